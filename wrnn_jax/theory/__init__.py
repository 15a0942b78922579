"""What is known of traveling-wave working memory without training: operators, their transition Φ, exact RNNs."""

from wrnn_jax.theory.operators import (
    TASKS,
    binding_operator,
    compose_copy_operator,
    copy_operator,
    fibonacci_operator,
)
from wrnn_jax.theory.substrate import (
    Basis,
    basis,
    phi,
    random_basis,
    rnn,
    spectral_radius,
    warn_if_unstable,
    writing_input,
)
from wrnn_jax.theory.systems import Moments, System, linear_system, moments, named_system

__all__ = [
    "TASKS",
    "Basis",
    "Moments",
    "System",
    "basis",
    "binding_operator",
    "compose_copy_operator",
    "copy_operator",
    "fibonacci_operator",
    "linear_system",
    "moments",
    "named_system",
    "phi",
    "random_basis",
    "rnn",
    "spectral_radius",
    "warn_if_unstable",
    "writing_input",
]
