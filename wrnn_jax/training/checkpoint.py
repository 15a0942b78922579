"""Checkpoints by Orbax: written whole or not at all, and believed only if every byte is as it was."""

import contextlib
import hashlib
import logging
import shutil
import sys
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from wrnn_jax.files import make_folder, sync, sync_tree
from wrnn_jax.training.stored import saved_steps

OVERHEAD = 2**18
"""Bytes that a checkpoint takes beside its arrays, rounded up: some twenty small files."""

BESIDE = "writing"
"""The folder that is not yet a checkpoint."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read; what was saved is untouched."""


class Checkpoints:
    """The checkpoints of one run: a folder for each step, the newest ``keep`` of them kept, all if that is 0.

    Orbax writes beside; once the disk has all of it, it gets its step's name, and only then is an older one deleted:
    neither a killed process nor a lost machine leaves half a checkpoint under a step's name. A digest of the arrays is
    stored with them: Orbax itself returns wrong numbers for a flipped bit.
    """

    def __init__(self, folder: Path, keep: int = 0):
        self._folder = folder.absolute()
        # Its warnings on unfinished folders and its progress are for its developers, not for our users.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._keep = keep
        make_folder(self._folder)
        # Not a manager of Orbax: for one damaged step it would refuse the whole folder.
        self._checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())

    def save(self, step: int, state: Any, about: Any = None) -> None:
        """Write ``state`` as that of ``step``, replacing an unreadable one of the same step.

        Args:
          step: its number.
          state: a pytree of arrays.
          about: what a reader must know to read it, as JSON has it.

        Raises:
          CheckpointError: if it could not be written, with the reason.
        """
        state = jax.tree.map(np.array, state)
        digest = {"sha256": _digest(state), "about": about}
        args = ocp.args.Composite(state=ocp.args.StandardSave(_written(state)), digest=ocp.args.JsonSave(digest))
        try:
            self._require_room(state)
            beside = self._folder / BESIDE
            self._checkpointer.save(beside, args=args, force=True)
            sync_tree(beside)
            self._delete(step)
            beside.rename(self._folder / str(step))
            sync(self._folder)
            for old in self.steps()[: -self._keep] if self._keep else ():
                self._delete(old)
        except Exception as error:  # Orbax and tensorstore raise many kinds, for a full disk as well.
            raise CheckpointError(f"cannot write checkpoint {step} in {self._folder}: {_first_line(error)}") from error

    def _require_room(self, state: Any) -> None:
        """Raise ``OSError`` if the disk has no room for ``state``: its bytes are written once for trial.

        Orbax would notice too, but its threads then fill the screen with their tracebacks.
        """
        trial = self._folder / "room"
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + OVERHEAD
        try:
            with trial.open("wb", buffering=0) as file:
                written = 0
                while written < size:
                    written += file.write(bytes(min(2**20, size - written)))
        finally:
            trial.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Those that there is a checkpoint of, the oldest first."""
        return saved_steps(self._folder)

    def _delete(self, step: int) -> None:
        """Whatever there is of that name."""
        path = self._folder / str(step)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def restore(self, like: Any) -> tuple[Any | None, list[str]]:
        """The state of the newest whole checkpoint.

        Args:
          like: a state of the same structure, shapes and dtypes; or a function that makes one of what was saved
            ``about`` it.

        Returns:
          (state, notes): None if there is no checkpoint at all; a note for each newer checkpoint that
          was passed over as unreadable.

        Raises:
          CheckpointError: if there are checkpoints and none can be read.
        """
        notes = []
        for step in reversed(self.steps()):
            try:
                return self.restore_step(step, like), notes
            except CheckpointError as error:
                notes.append(str(error))
        if notes:
            raise CheckpointError(f"no readable checkpoint in {self._folder}: " + "; ".join(notes))
        return None, notes

    def restore_step(self, step: int, like: Any) -> Any:
        """The state of one step; ``like`` as above.

        Raises:
          CheckpointError: if it cannot be read, with the reason.
        """
        try:
            with _quiet_threads():
                path = self._folder / str(step)
                of_digest = ocp.args.Composite(digest=ocp.args.JsonRestore())
                digest = self._checkpointer.restore(path, args=of_digest).digest
                like = jax.eval_shape(partial(like, digest["about"]) if callable(like) else lambda: like)
                args = ocp.args.Composite(state=ocp.args.StandardRestore(_written(like)))
                state = _whole(like, self._checkpointer.restore(path, args=args).state)
            if digest["sha256"] != _digest(state):
                raise ValueError("its numbers are not those that were written")
        except Exception as error:  # As many kinds as there are ways to damage a file.
            raise CheckpointError(f"checkpoint {step} is unreadable ({_first_line(error)})") from error
        return state

    def shapes(self, step: int) -> Any:
        """The shapes of the arrays in the checkpoint of one step, by their names; raises as :meth:`restore_step`."""
        try:
            about = ocp.StandardCheckpointHandler().metadata(self._folder / str(step) / "state")
            return jax.tree.map(lambda leaf: leaf.shape, about.tree)
        except Exception as error:
            raise CheckpointError(f"checkpoint {step} is unreadable ({_first_line(error)})") from error

    def close(self) -> None:
        """Free what Orbax holds."""
        self._checkpointer.close()


def _written(tree: Any) -> Any:
    """As it is written: records without the fields that are empty by default and are so, as they were written before
    there were such fields."""
    if not hasattr(tree, "_fields"):
        return tree
    left_out = {name for name, usual in tree._field_defaults.items() if usual == () == getattr(tree, name)}
    kept = {name: _written(value) for name, value in tree._asdict().items() if name not in left_out}
    return namedtuple(type(tree).__name__, kept)(**kept)


def _whole(like: Any, written: Any) -> Any:
    """What was written, with the fields that were left out."""
    if not hasattr(like, "_fields"):
        return written
    fields = like._asdict().items()
    return type(like)(
        *(_whole(value, getattr(written, name)) if hasattr(written, name) else value for name, value in fields)
    )


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Tensorstore's threads tell a failed read once more to an event loop that is closed by then, which Python
    would print as a traceback; the failure itself is raised as well, and said by us."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _digest(state: Any) -> str:
    """SHA-256 over every array's path, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
