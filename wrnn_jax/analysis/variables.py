"""Reading a trained RNN: its spectrum beside the theory's, and the variables of working memory in its hidden state.

Everything is numpy, in float64. Component k of a substrate of s columns of d neurons is element ``k mod d`` of the
``⌊k / d⌋``-th oldest column, as in :mod:`wrnn_jax.theory`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wrnn_jax.theory import Basis, basis
from wrnn_jax.validation import require, require_integer, require_positive

PERSISTENT = math.exp(-1 / 200)
"""0.995: what shrinks by this factor a step is left with 1/e after 200 steps, the horizon that is tested."""
ZERO = 1e-4
"""Eigenvalues of Φ below this share of the largest count as 0: rounding spreads a defective 0 that far."""


class SpectralComparison(NamedTuple):
    """What :func:`compare_spectra` returns."""

    theory: np.ndarray
    """``(J,)`` complex: the eigenvalues of Φ that are not 0."""
    trained: np.ndarray
    """``(K,)`` complex: the matrix's eigenvalues above the threshold. For K = J, the i-th was matched with the i-th of
    ``theory``; else they come largest first."""
    left_out: np.ndarray
    """``(N − K,)`` complex: the matrix's other eigenvalues."""
    threshold: float
    margin: tuple[float, float]
    """The largest magnitude left out (0 if none was) and the smallest kept (inf if none was): any threshold between
    them gives the same comparison. The nearer they are, the more the threshold has decided."""
    angle_error: float | None
    """Radians; None where the counts J and K differ, or there is nothing to compare."""


def reduced(phi: np.ndarray) -> np.ndarray:
    """The components of Φ that matter, ascending: all but those that nothing reads, or that read nothing::

        repeat: drop k where column k or row k of Φ, among the components left, is all zero

    Dropping such a component takes one eigenvalue 0 from Φ and leaves all others, with their multiplicities: the
    reduced Φ has exactly the nonzero spectrum of Φ. Of repeat copy all 64 components are left; of compose copy 36,
    since the wave whose boundary reads it in column c matters only down to there. Of a Φ without zero rows or columns,
    such as that of any dense operator, nothing is dropped.

    The published rule keeps what lowers the rank when removed. It is meant of the rank that lasts, that of Φ's powers:
    of Φ itself, a wave that runs on behind the column where it is read still lowers the rank (all but one of the 28
    components that compose copy does not need).

    Args:
      phi: Φ ``(s·d, s·d)``.

    Returns:
      Indices ``(K,)``; the reduced Φ is ``phi[np.ix_(kept, kept)]``.

    Raises:
      InvalidValue: for anything but a finite square matrix.

    Source: Karuvally et al. 2024, section on the spectral comparison.
    """
    reads = _square("phi", phi) != 0
    kept = np.arange(len(reads))
    while True:
        left = reads[np.ix_(kept, kept)]
        matter = left.any(0) & left.any(1)
        if matter.all():
            return kept
        kept = kept[matter]


def compare_spectra(matrix: np.ndarray, phi: np.ndarray, threshold: float = PERSISTENT) -> SpectralComparison:
    """Do the eigenvalues that keep a memory stand at the theory's angles?::

        angle_error = mean_i |arg(λ_i · conj(λ*_i))|        in radians, from 0 to π

    λ are the matrix's eigenvalues with ``|λ| > threshold``, λ* those of the reduced Φ (:func:`reduced`) that are not
    0. They are matched greedily by angle: the closest pair first, each used once. Where the counts differ nothing is
    matched and there is no error, as in the paper's tables ("–").

    The threshold looks at the matrix alone. To take as many eigenvalues as the theory has would match any matrix,
    even noise; to cut at the widest gap finds one among eigenvalues that do not matter. The default asks what lasts:
    a mode below it decays by more than e over the 200 steps that are tested; in a tanh RNN even more, since activity
    shrinks what its linear part keeps. Report both counts, and look at ``margin``.

    Args:
      matrix: ``(N, N)``, such as a trained ``W_hh`` or what :func:`linearised` gives.
      phi: Φ ``(s·d, s·d)``.
      threshold: a magnitude, above 0.

    Raises:
      InvalidValue: for anything but finite square matrices, or a threshold that is not above 0.

    Source: Karuvally et al. 2024, section on the spectral comparison, and Table 1.
    """
    require_positive("threshold", threshold)
    eigenvalues = np.linalg.eigvals(_square("matrix", matrix)).astype(complex)
    eigenvalues = eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")]
    above = np.abs(eigenvalues) > threshold
    theory, trained, left_out = _spectrum(phi), eigenvalues[above], eigenvalues[~above]
    margin = float(np.abs(left_out).max(initial=0)), float(np.abs(trained).min(initial=np.inf))
    error = None
    if len(theory) == len(trained) > 0:
        trained = trained[_closest_first(theory, trained)]
        error = float(np.abs(np.angle(trained * theory.conj())).mean())
    return SpectralComparison(theory, trained, left_out, float(threshold), margin, error)


def variable_memories(
    recurrence: np.ndarray, readout: np.ndarray, columns: int, kept: Sequence[int] | None = None
) -> Basis:
    """The directions of hidden state in which an RNN keeps its variables, found from the readout backwards::

        Ψ_s = W_r⁺        Ψ_{s−k} = W_hh^k Ψ_s,  k = 1 … s − 1        every vector of length 1, then Ψ⁺

    What it shows. ``W_hh ψ_i`` points along ``ψ_{i−1}`` by construction, so in ``Ψ⁺ W_hh Ψ`` the shift is no finding:
    the boundary is, that is where the oldest vector of each wave is sent, and that it is sent nowhere else. Making
    lengths 1 scales the entries: a 1 of Φ from component k to i becomes |Ψ_i| / |Ψ_k|, of the lengths before; in the
    product of the entries round a loop they cancel.

    Let W_hh = Ψ Φ Ψ⁺ and W_r = Ψ_s^* be exact (:func:`wrnn_jax.theory.rnn`). Then Ψ is found again, and
    ``Ψ⁺ W_hh Ψ`` is the reduced Φ, for an orthonormal Ψ if the boundary reads each wave once (T1 … T4, with ``kept``
    from :func:`reduced`): W_r⁺ is Ψ_s where Ψ_s is orthogonal to the rest. For repeat copy (T1) any Ψ does, up to the
    lengths. Where a wave is read in several columns (Fibonacci), the matrix is Φ's companion form with the
    boundary in the columns of the oldest vectors instead of the rows of the newest: another basis, the same spectrum.

    Args:
      recurrence: ``W_hh (N, N)``.
      readout: ``W_r (d, N)``.
      columns: s.
      kept: which of the s·d vectors to keep, all if not given; in the order of the components of Φ.

    Returns:
      Ψ ``(N, K)`` and its dual ``(K, N)``, K = s·d or ``len(kept)``.

    Raises:
      InvalidValue: for matrices that do not fit together or are not finite, a readout of rank below d, indices that
        are no components, a memory that dies out on its way, or vectors that are not linearly independent.

    Source: Karuvally et al. 2024, section on variable memories.
    """
    recurrence = _square("recurrence", recurrence)
    readout = np.asarray(readout, np.float64)
    neurons = len(recurrence)
    fits = readout.ndim == 2 and len(readout) > 0 and readout.shape[1] == neurons
    require(fits, "readout.shape", readout.shape, f"(d, N) with N = {neurons}, as the recurrence")
    _require_rank("readout", readout, len(readout))
    return _memories(recurrence, np.linalg.pinv(readout), columns, kept)


def input_memories(
    recurrence: np.ndarray, encoder: np.ndarray, columns: int, kept: Sequence[int] | None = None
) -> Basis:
    """The directions of hidden state in which an RNN keeps its variables, found from the input onwards::

        Ψ_s = W_uh        Ψ_{s−k} = W_hh^k W_uh,  k = 1 … s − 1        every vector of length 1, then Ψ⁺

    Where :func:`variable_memories` asks how what is read came to be there, this asks where what is written goes. Let
    W_hh = Ψ Φ Ψ⁺ and W_uh = Ψ_s be exact (:func:`wrnn_jax.theory.rnn`). Then the vectors of any Ψ are found again,
    orthogonal or not, up to their lengths, if the boundary reads each wave once and ``kept`` is that of
    :func:`reduced`: W_uh is Ψ_s in any basis, W_r⁺ only where Ψ_s is orthogonal to the rest. ``Ψ⁺ W_hh Ψ`` is the
    reduced Φ, up to the ratios of lengths, if the components that were not kept are orthogonal to the others, or not
    in the network at all.

    Args:
      recurrence: ``W_hh (N, N)``.
      encoder: ``W_uh (N, d)``.
      columns: s.
      kept: as of :func:`variable_memories`.

    Returns:
      Ψ ``(N, K)`` and its dual ``(K, N)``.

    Raises:
      InvalidValue: as :func:`variable_memories`, of the encoder.

    Source: Karuvally et al. 2024, section on variable memories; its authors' program grounds the basis in either.
    """
    recurrence = _square("recurrence", recurrence)
    encoder = np.asarray(encoder, np.float64)
    neurons = len(recurrence)
    fits = encoder.ndim == 2 and encoder.shape[1:] > (0,) and len(encoder) == neurons
    require(fits, "encoder.shape", encoder.shape, f"(N, d) with N = {neurons}, as the recurrence")
    _require_rank("encoder", encoder, encoder.shape[1])
    return _memories(recurrence, encoder, columns, kept)


def in_basis(matrix: np.ndarray, basis: Basis) -> np.ndarray:
    """``Ψ⁺ W Ψ`` ``(K, K)``: a matrix ``(N, N)`` as it acts on the variables."""
    return basis.dual @ np.asarray(matrix, np.float64) @ basis.vectors


def variables_over_time(
    hidden: np.ndarray, basis: Basis, columns: int, size: int, kept: Sequence[int] | None = None
) -> np.ndarray:
    """The hidden state in the basis of its variables, ``Ψ⁺ h(t)``, as substrates: waves that run from column s to 1.

    Args:
      hidden: ``(T, N)``.
      basis: of K vectors, such as :func:`variable_memories` gives.
      columns: s.
      size: d.
      kept: the components that the K vectors stand for, ascending; all s·d if not given.

    Returns:
      ``(T, s, d)``, the oldest column first; NaN where a component was not kept.

    Raises:
      InvalidValue: for states or a basis that do not fit.

    Source: Karuvally et al. 2024, section on variable memories.
    """
    require_integer("columns", columns, at_least=1)
    require_integer("size", size, at_least=1)
    hidden = _states(hidden, basis)
    chosen, count = _components(kept, columns * size), basis.vectors.shape[1]
    require(count == len(chosen), "basis", f"{count} vectors", f"of {len(chosen)}, the components that are kept")
    variables = np.full((len(hidden), columns * size), np.nan)
    variables[:, chosen] = hidden @ basis.dual.T
    return variables.reshape(-1, columns, size)


def outside(hidden: np.ndarray, basis: Basis) -> np.ndarray:
    """The share of the state that is in none of the variables::

        ‖h(t) − Ψ Ψ⁺ h(t)‖² / ‖h(t)‖²        from 0, all of it is in their span, to 1; 0 for a state that is 0

    Ψ Ψ⁺ projects orthogonally: the share depends on the span alone. What a picture of the variables shows is 1 minus
    this share of what the network does.

    Args:
      hidden: ``(T, N)``.
      basis: such as :func:`variable_memories` gives.

    Returns:
      ``(T,)``.

    Raises:
      InvalidValue: for states that do not fit.
    """
    hidden = _states(hidden, basis)
    rest = hidden - hidden @ basis.dual.T @ basis.vectors.T
    whole = np.square(hidden).sum(axis=1)
    return np.square(rest).sum(axis=1) / np.where(whole > 0, whole, 1)


def _memories(recurrence: np.ndarray, newest: np.ndarray, columns: int, kept: Sequence[int] | None) -> Basis:
    """Ψ from the newest column's vectors ``(N, d)`` and powers of W_hh."""
    require_integer("columns", columns, at_least=1)
    chosen = _components(kept, columns * newest.shape[1])
    memories = [newest]
    for _ in range(columns - 1):
        memories.append(recurrence @ memories[-1])
    return basis(_unit(np.concatenate(memories[::-1], axis=1)[:, chosen]))


def _require_rank(field: str, matrix: np.ndarray, size: int) -> None:
    rank = int(np.linalg.matrix_rank(matrix))
    require(rank == size, field, f"a matrix of rank {rank}", f"of rank d = {size}")


def _states(hidden: np.ndarray, basis: Basis) -> np.ndarray:
    """States ``(T, N)`` that fit the basis, in double precision."""
    hidden, neurons = np.asarray(hidden, np.float64), len(basis.vectors)
    fits = hidden.ndim == 2 and hidden.shape[1] == neurons
    require(fits, "hidden.shape", hidden.shape, f"(T, N) with N = {neurons}, as the basis")
    return hidden


def _spectrum(phi: np.ndarray) -> np.ndarray:
    """The eigenvalues of Φ that are not 0, largest first."""
    kept = reduced(phi)
    eigenvalues = np.linalg.eigvals(_square("phi", phi)[np.ix_(kept, kept)]).astype(complex)
    magnitudes = np.abs(eigenvalues)
    order = np.argsort(-magnitudes, kind="stable")
    return eigenvalues[order[magnitudes[order] > ZERO * magnitudes.max(initial=0)]]


def _closest_first(theory: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """For each of ``theory`` its partner's index in ``trained``: of all pairs left the closest, again and again."""
    difference = np.abs(np.angle(trained * theory.conj()[:, None]))
    partner = np.full(len(theory), -1)
    for pair in np.argsort(difference, axis=None, kind="stable"):
        i, j = divmod(int(pair), len(trained))
        if partner[i] < 0 and j not in partner:
            partner[i] = j
    return partner


def _square(field: str, matrix: np.ndarray) -> np.ndarray:
    """A finite square matrix, in double precision; complex stays complex."""
    matrix = np.asarray(matrix)
    is_square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0
    require(is_square, f"{field}.shape", matrix.shape, "(N, N), N at least 1")
    count = int((~np.isfinite(matrix)).sum())
    require(count == 0, field, f"{count} values NaN or infinite", "finite numbers")
    return matrix.astype(np.result_type(matrix, np.float64))


def _components(kept: Sequence[int] | None, count: int) -> np.ndarray:
    """``kept`` as an array, all of ``count`` for None."""
    chosen = np.arange(count) if kept is None else np.asarray(kept)
    ascending = chosen.ndim == 1 and chosen.size > 0 and chosen.dtype.kind in "iu" and bool((np.diff(chosen) > 0).all())
    fits = ascending and chosen[0] >= 0 and chosen[-1] < count
    require(fits, "kept", kept, f"indices from 0 to {count - 1}, ascending, at least one")
    return chosen


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Each column divided by its length."""
    lengths = np.linalg.norm(vectors, axis=0)
    require(bool((lengths > 0).all()), "recurrence", "one that maps a memory to 0", "one that keeps every memory alive")
    return vectors / lengths
