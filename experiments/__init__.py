"""Experiments: each a module to run, ``python -m experiments.<name>``."""

import sys

# Python imports this package first when it runs one of its modules, and JAX only then: seconds in which one may well
# press Ctrl-C.
if sys.argv[:1] == ["-m"]:
    from experiments import start

    start.as_program()
