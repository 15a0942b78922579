"""Experiments: each a module to run, ``python -m experiments.<name>``."""
