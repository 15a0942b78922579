"""Traveling-wave working memory (TWM): a substrate of waves, and the boundary conditions that start them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.cells.base import Cell, Engines
from wrnn_jax.cells.parts import PRECISION, affine, batch_sizes, cast, uniform_fan_in
from wrnn_jax.kernels.doubling import linear_unroll
from wrnn_jax.theory import warn_if_unstable
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_integer, require_switch


class Boundary(NamedTuple):
    """The start boundary f of a substrate of s columns of d neurons, the oldest column first.

    =================================  =====================================================
    ``init(key)``                      -> params
    ``apply(params, substrate)``       substrate ``(*batch, s, d)`` -> f(H) ``(*batch, d)``
    =================================  =====================================================
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array], Array]
    columns: int
    """s."""
    size: int
    """d."""
    is_linear: bool = False
    """f(a G + H) = a f(G) + f(H): the recurrence can then be computed for all steps at once."""
    pure: bool = False
    """Whether ``apply`` reads nothing but its arguments; see :class:`wrnn_jax.cells.base.Cell`."""


class TWMCarry(NamedTuple):
    """The carry of a :func:`twm` with an input phase."""

    substrate: Array
    """H ``(*batch, s, d)``."""
    remaining: Array
    """Steps of the input phase that are left, ``(*batch,)``, whole numbers."""


def linear_boundary(columns: int, size: int, operator: Any | None = None, *, freeze: bool = False) -> Boundary:
    """The linear boundary condition (LBC)::

        f(H)_i = Σ_ν f[i, ν] h_ν,     h the substrate flattened, h_{j·d + k} = element k of the j-th oldest column

    so that ``h(t+1) = Φ h(t) + Ψ_s u(t)`` with Φ of :func:`wrnn_jax.theory.phi`. Parameters
    ``{"operator": f (d, s·d)}``.

    Args:
      columns: s.
      size: d.
      operator: the start of f, as the functions of :mod:`wrnn_jax.theory` make it; U(−1/√(s·d), 1/√(s·d)) if not given,
        for which a state decays: f(H) has a third of the variance of independent components. (The spectral radius of Φ
        is about 0.93 for s = d = 8, and in hundreds of draws of small s and d never was above 1.2.)
      freeze: no gradient flows into f.

    Raises:
      ValueError: for sizes below 1, or an operator of another shape or not of finite numbers.

    Warns:
      UserWarning: for a given operator with which states grow, with Φ's spectral radius.

    Source: Karuvally et al. 2024, section on linear boundary conditions.
    """
    _require_sizes(columns, size)
    require_switch("freeze", freeze)
    shape = (size, columns * size)
    if operator is not None:
        operator = np.asarray(operator, np.float64)
        allowed = f"(d, s·d) = {shape} for {columns} columns of size {size}"
        require(operator.shape == shape, "operator.shape", operator.shape, allowed)
        require(bool(np.isfinite(operator).all()), "operator", "an array with inf or nan", "finite")
        warn_if_unstable(operator)

    def init(key: Key) -> Params:
        return {"operator": uniform_fan_in(key, shape, shape[1]) if operator is None else jnp.asarray(operator)}

    def apply(params: Params, substrate: Array) -> Array:
        kernel = params["operator"].astype(substrate.dtype)
        return affine({"kernel": jax.lax.stop_gradient(kernel) if freeze else kernel}, _flatten(substrate))

    return Boundary(init, apply, columns, size, is_linear=True, pure=True)


def attention_boundary(
    columns: int, size: int, *, heads: int = 1, projections: Literal["identity", "learned"] = "identity"
) -> Boundary:
    """The self-attention boundary condition (SBC): the newest column asks, all s columns answer::

        f(H) = W_O [softmax(q_a K_aᵀ / √(d/A)) V_a]_a,     q = W_Q H_s,   K_j = W_K H_j,   V_j = W_V H_j

    with a = 1 … A over heads, each of d/A consecutive elements. It is the autoregressive loop of an attention-only
    transformer whose window is the substrate; columns that nothing has reached yet are zero vectors in this window.

    Parameters: none (``{}``) for identity projections; else ``{"query": {"kernel": W_Q (d, d)}, "key": …, "value": …,
    "output": …}``, each U(−1/√d, 1/√d).

    Args:
      columns: s, the window.
      size: d.
      heads: A, a divisor of d.
      projections: ``"identity"``: W_Q = W_K = W_V = W_O = 1, or ``"learned"``.

    Raises:
      ValueError: for sizes below 1, heads that do not divide d, or unknown projections.

    Source: Karuvally et al. 2024, section on self-attention boundary conditions; Vaswani et al. 2017, section 3.2.
    """
    _require_sizes(columns, size)
    require_integer("heads", heads, at_least=1)
    require(size % heads == 0, "heads", heads, f"a divisor of size = {size}")
    require_choice("projections", projections, ("identity", "learned"))
    names = ("query", "key", "value", "output") if projections == "learned" else ()

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(names))
        return {
            name: {"kernel": uniform_fan_in(key, (size, size), size)} for name, key in zip(names, keys, strict=True)
        }

    def apply(params: Params, substrate: Array) -> Array:
        params = cast(params, substrate.dtype)

        def project(name: str, columns: Array) -> Array:
            return affine(params[name], columns) if names else columns

        def by_head(name: str, columns: Array) -> Array:
            return project(name, columns).reshape(*columns.shape[:-1], heads, size // heads)

        query = by_head("query", substrate[..., -1, :])
        scores = jnp.einsum("...ak,...jak->...aj", query, by_head("key", substrate), precision=PRECISION)
        weights = jax.nn.softmax(scores * (size // heads) ** -0.5)
        answers = jnp.einsum("...aj,...jak->...ak", weights, by_head("value", substrate), precision=PRECISION)
        return project("output", _flatten(answers))

    return Boundary(init, apply, columns, size, pure=True)


def function_boundary(columns: int, size: int, f: Callable[[Array], Array]) -> Boundary:
    """Any f of one's own: substrate ``(*batch, s, d)``, the oldest column first, -> ``(*batch, d)``. No parameters.

    Raises:
      ValueError: for sizes below 1 or an f that is no function; when used, for an f that gives another shape.
    """
    _require_sizes(columns, size)
    require(callable(f), "f", f, "a function of the substrate")

    def apply(params: Params, substrate: Array) -> Array:
        value = jnp.asarray(f(substrate))
        expected = (*substrate.shape[:-2], size)
        require(value.shape == expected, "f(substrate).shape", value.shape, f"(*batch, d) = {expected}")
        return value.astype(substrate.dtype)

    return Boundary(lambda key: {}, apply, columns, size)


def twm(boundary: Boundary, *, input_steps: int = 0) -> Cell:
    """Traveling-wave working memory: d waves over s columns, started by f, gone where they leave::

        H_i(t+1) = H_{i+1}(t),  i < s        H_s(t+1) = f(H_1(t), …, H_s(t)) + u(t)        y_t = H_s(t+1),   H(0) = 0

    The end is open: H_1 is dropped, nothing reflects. The boundary is at work from the first step on, unless
    ``input_steps`` closes it: the first so many steps write H_s(t+1) = u(t) alone, the input phase of the theorem that
    every history-dependent system is a TWM, see :func:`history_system`. (f is computed then too, and not used: it has
    to be differentiable on a substrate that is still empty if gradients are wanted.)

    Parameters: the boundary's. Inputs ``(*batch, d)``, output the newest column, ``(*batch, d)``.
    Carry: H ``(*batch, s, d)``; with an input phase :class:`TWMCarry`, which also counts. The hidden state is shown as
    ``(*batch, C = d, N = s)``: d waves over s columns, the newest column last, so that waves travel down the index as
    those of :func:`wrnn_jax.cells.wave` do.

    The unroll knows a ``"parallel"`` backend for a linear boundary without an input phase. It squares Φ log₂ T times,
    meant for small s·d and long sequences.

    Args:
      boundary: f, with s and d.
      input_steps: steps of the input phase.

    Raises:
      ValueError: for a negative number of steps; from ``init`` and ``step`` for D ≠ d.

    Source: Karuvally et al. 2024, section on traveling-wave working memory.
    """
    require_integer("input_steps", input_steps, at_least=0)
    columns, size = boundary.columns, boundary.size

    def init(key: Key, input_size: int) -> Params:
        require(input_size == size, "input_size", input_size, f"d = {size}, the size of the boundary's columns")
        return boundary.init(key)

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> Carry:
        substrate = jnp.zeros((*batch_sizes(batch_shape), columns, size), dtype)
        if not input_steps:
            return substrate
        return TWMCarry(substrate, jnp.full(batch_sizes(batch_shape), input_steps, jnp.int32))

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        _require_inputs(x, size)
        substrate = carry.substrate if input_steps else carry
        newest = boundary.apply(params, substrate)
        if input_steps:
            newest = jnp.where(carry.remaining[..., None] > 0, jnp.zeros_like(newest), newest)
        newest = newest + x.astype(substrate.dtype)
        substrate = _travel(substrate, newest)
        return TWMCarry(substrate, jnp.maximum(carry.remaining - 1, 0)) if input_steps else substrate, newest

    def hidden(carry: Carry) -> Array:
        return jnp.swapaxes(carry.substrate if input_steps else carry, -1, -2)

    engines = Engines(parallel=_parallel(boundary)) if boundary.is_linear and not input_steps else Engines()
    return Cell(init, initial_carry, step, hidden, size, engines, boundary.pure)


def history_system(f: Callable[[Array], Array], columns: int, size: int) -> Cell:
    """The TWM that is a history-dependent dynamical system (HDS), ``x(t) = f(x(t−s), …, x(t−1))``::

        u = x(0), …, x(s−1), 0, 0, …   ->   y = x(0), …, x(s−1), x(s), x(s+1), …

    Args:
      f: the last s vectors ``(*batch, s, d)``, the oldest first, -> the next ``(*batch, d)``.
      columns: s.
      size: d.

    Raises:
      ValueError: as :func:`function_boundary`.

    Source: Karuvally et al. 2024, the theorem that every HDS is representable by a TWM.
    """
    return twm(function_boundary(columns, size, f), input_steps=columns)


def _parallel(boundary: Boundary) -> Callable[..., tuple[Carry, Array]]:
    """``Engines.parallel`` of a linear boundary: :func:`linear_unroll` of the flattened substrate."""
    shape = (boundary.columns, boundary.size)
    components = boundary.columns * boundary.size

    def loop(params: Params, carry: Carry, xs: Array, last: bool, readout=None, readout_params: Params = ()):
        _require_inputs(xs, boundary.size)
        # A step from each unit substrate: a row of it is a column of Φ.
        units = jnp.eye(components, dtype=carry.dtype).reshape(components, *shape)
        transition = _flatten(_travel(units, boundary.apply(params, units)))
        drives = jnp.pad(xs.astype(carry.dtype), ((0, 0), (0, 0), (components - boundary.size, 0)))
        state, states = linear_unroll(transition, _flatten(carry), drives, last=last)
        return state.reshape(-1, *shape), _read(readout, readout_params, states[..., -boundary.size :])

    return loop


def _read(readout: Callable | Literal["linear"] | None, params: Params, ys: Array) -> Array:
    """What a readout, given as the engines are given one, makes of y ``(*batch, d)``."""
    if readout is None:
        return ys
    if readout == "linear":
        return affine(params["output"], ys)
    outputs = readout(params, ys.reshape(-1, ys.shape[-1]))
    return outputs.reshape(*ys.shape[:-1], -1)


def _travel(substrate: Array, newest: Array) -> Array:
    """All columns one on, the oldest out, ``newest`` ``(*batch, d)`` in."""
    return jnp.concatenate([substrate[..., 1:, :], newest[..., None, :]], axis=-2)


def _flatten(columns: Array) -> Array:
    *batch, count, size = columns.shape
    return columns.reshape(*batch, count * size)


def _require_sizes(columns: int, size: int) -> None:
    require_integer("columns", columns, at_least=1)
    require_integer("size", size, at_least=1)


def _require_inputs(x: Array, size: int) -> None:
    require(x.shape[-1] == size, "x.shape", x.shape, f"(…, D) with D = d = {size}, the size of the boundary's columns")
