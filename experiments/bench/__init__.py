"""How fast it is: python -m experiments.bench [kernels|grid|loop|scaling]"""
