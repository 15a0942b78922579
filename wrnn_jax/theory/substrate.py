"""The substrate's linear theory: its transition Φ, bases of neurons, and the RNN that solves a system untrained.

Here the substrate is flattened as in :mod:`wrnn_jax.theory.operators`; s columns ("variables") of d neurons.
"""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from wrnn_jax.theory.operators import operator_shape
from wrnn_jax.typing import Params
from wrnn_jax.validation import require, require_integer

STABLE = 1e-6
"""How far above 1 a computed spectral radius may lie before it is taken to be above 1."""


def phi(operator: np.ndarray) -> np.ndarray:
    """The substrate's transition, ``h(t+1) = Φ h(t) + Ψ_s u(t)``, a shift by one column and the boundary f below it::

        Φ = Σ_{μ ≤ (s−1)d} |ψ_μ⟩⟨ψ^{μ+d}| + Σ_{μ > (s−1)d} Σ_ν Φ^μ_ν |ψ_μ⟩⟨ψ^ν|  =  [ 0  I ]
                                                                                  [  f   ]

    Args:
      operator: f ``(d, s·d)``.

    Returns:
      Φ ``(s·d, s·d)`` in the standard basis, float64.

    Raises:
      InvalidValue: for an operator of another shape.

    Source: Karuvally et al. 2024, section on linear boundary conditions.
    """
    operator = np.asarray(operator, np.float64)
    size, components = operator_shape(operator)
    return np.concatenate([np.eye(components)[size:], operator])


def spectral_radius(matrix: np.ndarray) -> float:
    """max |λ| over the eigenvalues of a square matrix."""
    return float(np.abs(np.linalg.eigvals(np.asarray(matrix, np.float64))).max())


def warn_if_unstable(operator: np.ndarray) -> None:
    """Warn, with its value, if the spectral radius of Φ is above 1: the substrate then grows without bound."""
    radius = spectral_radius(phi(operator))
    if radius > 1 + STABLE:
        warnings.warn(f"unstable boundary: spectral radius of Φ = {radius:.6g} > 1, states grow", stacklevel=3)


class Basis(NamedTuple):
    """Linearly independent vectors of neurons, one a component of the substrate: ``h = Ψ g``, ``g = Ψ⁺ h``."""

    vectors: np.ndarray
    """Ψ ``(N, s·d)``, a vector ψ_μ a column."""
    dual: np.ndarray
    """Ψ⁺ ``(s·d, N)``, its pseudo-inverse: a covector ψ^μ a row, ``⟨ψ^μ|ψ_ν⟩ = 1`` for μ = ν, else 0."""


def basis(vectors: np.ndarray) -> Basis:
    """The basis Ψ ``(N, s·d)`` with its dual, float64.

    Raises:
      InvalidValue: for anything but a finite matrix, fewer neurons than vectors, or vectors that depend on each other.

    Source: Karuvally et al. 2024, section on linear boundary conditions.
    """
    vectors = np.asarray(vectors, np.float64)
    is_matrix = vectors.ndim == 2 and vectors.size > 0 and bool(np.isfinite(vectors).all())
    require(is_matrix, "vectors", f"an array of shape {vectors.shape}", "a finite matrix (N, s·d)")
    neurons, count = vectors.shape
    require(neurons >= count, "neurons", neurons, f"{count} or more, as many as the basis has vectors (s·d)")
    rank = int(np.linalg.matrix_rank(vectors))
    require(rank == count, "rank", rank, f"{count}, the number of vectors: a basis is linearly independent")
    return Basis(vectors, np.linalg.pinv(vectors))


def random_basis(rng: np.random.Generator, neurons: int, columns: int, size: int) -> Basis:
    """s·d normal vectors of N neurons, of length about 1.

    The closer N is to s·d, the worse the basis is conditioned: about as N for N = s·d, 6 for N = 2·s·d.

    Raises:
      InvalidValue: for sizes below 1 or N < s·d.
    """
    for field, value in {"neurons": neurons, "columns": columns, "size": size}.items():
        require_integer(field, value, at_least=1)
    return basis(rng.normal(size=(neurons, columns * size)) / np.sqrt(neurons))


def rnn(operator: np.ndarray, basis: Basis) -> Params:
    """The RNN that is the substrate with boundary f in a basis Ψ, exact with no training::

        h_{t+1} = Ψ Φ Ψ⁺ h_t + Ψ_s u_t,     y_t = Ψ_s^* h_{t+1}

    Ψ_s ``(N, d)`` are the vectors of the newest column, Ψ_s^* ``(d, N)`` their covectors: y_t is the newest column.

    What to feed it. The boundary acts at every step, the first s as well: after u_t the newest column holds f(H) + u_t.
    Fed with a history itself, u = x, the substrate does not come to hold that history unless f reads nothing but the
    oldest column (as T1's does); :func:`writing_input` gives the u that writes it.

    No linear time-invariant network at all repeats T2 from u = x. Let g(m) be the weight, in the last element of the
    output, of that element of the input m steps before. T2 repeats the last element of x(s−1) for ever. At step s this
    input is 1 step old and x(s−2) 2 steps: g(1) = 1, g(2) = 0. At step s + 1 it is itself 2 steps old: g(2) = 1.

    Args:
      operator: f ``(d, s·d)``.
      basis: of s·d vectors.

    Returns:
      Parameters, in JAX's default floating dtype, of the model
      ``with_readout(elman(N, activation="identity", use_bias=False), linear(d, use_bias=False))``::

          {"cell": {"encoder": {"kernel": Ψ_s (N, d)}, "recurrence": {"kernel": Ψ Φ Ψ⁺ (N, N)}},
           "readout": {"output": {"kernel": Ψ_s^* (d, N)}}}

    Raises:
      InvalidValue: for an operator of a wrong shape, or a basis of another number of vectors.

    Warns:
      UserWarning: where Φ is unstable, with its spectral radius.

    Source: Karuvally et al. 2024, section on linear boundary conditions.
    """
    size, components = operator_shape(operator)
    count = basis.vectors.shape[1]
    require(count == components, "basis", f"{count} vectors", f"of {components}, the operator's components")
    warn_if_unstable(operator)
    recurrence = basis.vectors @ phi(operator) @ basis.dual
    return {
        "cell": {
            "encoder": {"kernel": jnp.asarray(basis.vectors[:, -size:])},
            "recurrence": {"kernel": jnp.asarray(recurrence)},
        },
        "readout": {"output": {"kernel": jnp.asarray(basis.dual[-size:])}},
    }


def writing_input(operator: np.ndarray, history: np.ndarray) -> np.ndarray:
    """The inputs that write a history into an empty substrate whose boundary f acts all the while::

        u(t) = x(t) − f(H(t)),  t = 0 … s − 1,     H(0) = 0

    The input phase of the theorem that every history-dependent system is a traveling-wave memory. Where f reads only
    the oldest column, which is empty until the history is written, u = x.

    Args:
      operator: f ``(d, s·d)``.
      history: x(0) … x(s − 1), ``(…, s, d)``.

    Returns:
      u(0) … u(s − 1), ``(…, s, d)``, float64.

    Raises:
      InvalidValue: for an operator or a history of a wrong shape.

    Source: Karuvally et al. 2024, the theorem's proof.
    """
    operator, history = np.asarray(operator, np.float64), np.asarray(history, np.float64)
    size, components = operator_shape(operator)
    columns = components // size
    fits = history.shape[-2:] == (columns, size)
    require(fits, "history.shape", history.shape, f"(…, {columns}, {size}): s columns of d neurons")
    past = np.concatenate([np.zeros_like(history), history], axis=-2)
    substrates = [past[..., t : t + columns, :].reshape(*history.shape[:-2], components) for t in range(columns)]
    return history - np.stack(substrates, axis=-2) @ operator.T
