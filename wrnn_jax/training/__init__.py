"""Training: the compiled loop, its hyper-parameters, checkpoints, and the run directory."""
