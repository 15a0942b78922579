"""States of many members: stacked as a trainer has them, apart, and in checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wrnn_jax import console
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.loop import Trainer
from wrnn_jax.training.state import TrainState


def of_slot(states: Any, slot: int) -> Any:
    """One member's, of leaves with an axis for members, the first."""
    return jax.tree.map(lambda leaf: leaf[slot], states)


def stacked(states: Sequence[Any]) -> Any:
    """Many members' leaves, on the host, with an axis for members, the first."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def save_together(checkpoints: Checkpoints, states: Mapping[int, TrainState]) -> None:
    """Write the states of members, by number, as one new checkpoint, where there are any.

    Raises:
      CheckpointError: if it could not be written.
    """
    if states:
        together = {"members": np.array(list(states), np.int32), "states": stacked(list(states.values()))}
        checkpoints.save(max(checkpoints.steps(), default=0) + 1, together, about=len(states))


def newest_states(members: Mapping[int, Path], together: Sequence[Path], trainer: Trainer) -> dict[int, TrainState]:
    """The newest state of each member that has begun, by number.

    Args:
      members: number -> the folder of the member's own checkpoints.
      together: folders of checkpoints as :func:`save_together` writes them, of these members and others.
      trainer: of members like these.

    Raises:
      CheckpointError: if a folder has checkpoints and none of them can be read.
    """
    seeds = jax.ShapeDtypeStruct((trainer.mesh.shape["grid"],), np.int32)
    one = jax.tree.map(lambda leaf: leaf.update(shape=leaf.shape[1:]), jax.eval_shape(trainer.init, seeds))
    found: dict[int, TrainState] = {}

    def find(number: int, state: TrainState) -> None:
        if number in members and (number not in found or found[number].step < state.step):
            found[number] = state

    def of_many(count: int) -> dict[str, Any]:
        states = jax.tree.map(lambda leaf: leaf.update(shape=(count, *leaf.shape)), one)
        return {"members": jax.ShapeDtypeStruct((count,), np.int32), "states": states}

    for folder in together:
        stored = _restored(folder, of_many)
        for slot, number in enumerate(() if stored is None else stored["members"]):
            find(int(number), of_slot(stored["states"], slot))
    for number, folder in members.items():
        stored = _restored(folder, one)
        if stored is not None:
            find(number, stored)
    return found


def _restored(folder: Path, like: Any) -> Any:
    """The newest whole checkpoint, or None if there is none."""
    if not any(folder.glob("[0-9]*")):
        return None
    checkpoints = Checkpoints(folder)
    stored, notes = checkpoints.restore(like)
    checkpoints.close()
    for note in notes:
        console.note(f"{folder}: {note}: falling back to an earlier one")
    return stored
