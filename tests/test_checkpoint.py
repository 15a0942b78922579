"""Checkpoints: exact, and believed only when whole."""

import gc

import chex
import numpy as np
import pytest

from helpers import linear_map
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.checkpoint import CheckpointError, Checkpoints
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import make_hparams

pytestmark = [
    pytest.mark.usefixtures("standard_promotion", "collected"),
    # A read that fails leaves Orbax with others under way, whose results nobody fetches.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TASK = copy_task(CopyConfig(T=0))


@pytest.fixture(scope="module")
def trainer():
    # Its array is larger than any file of Orbax's own: see ``largest_file``.
    return make_trainer(linear_map(TASK.signature), TASK, 8)


@pytest.fixture
def collected():
    """What a test leaves behind is collected, and heard of, before the next."""
    yield
    gc.collect()


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    yield checkpoints
    checkpoints.close()


def stepped(trainer, steps):
    return trainer.advance(trainer.init(0), make_hparams(1e-3, 1.0), steps)


def largest_file(folder):
    """Where the arrays' bytes are."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def test_what_is_restored_is_what_was_saved_to_the_bit(trainer, checkpoints):
    state = stepped(trainer, 3)
    checkpoints.save(3, state)
    restored, notes = checkpoints.restore(trainer.init(0))
    assert notes == []
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal_dtypes(restored, state)
    # And it goes on as if nothing had been.
    going_on = trainer.advance(trainer.place(restored), make_hparams(1e-3, 1.0), 6)
    chex.assert_trees_all_equal(going_on, stepped(trainer, 6))


def test_an_empty_folder_has_nothing_to_restore(trainer, checkpoints):
    assert checkpoints.restore(trainer.init(0)) == (None, [])


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, remove])
def test_a_damaged_checkpoint_is_passed_over(trainer, tmp_path, damage):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, stepped(trainer, step))
    checkpoints.close()
    damage(largest_file(folder / "2"))
    checkpoints = Checkpoints(folder)
    restored, notes = checkpoints.restore(trainer.init(0))
    assert len(notes) == 1
    assert "checkpoint 2 is unreadable" in notes[0]
    chex.assert_trees_all_equal(restored, stepped(trainer, 1))
    # Training comes past the damaged one again and puts a whole one in its place.
    checkpoints.save(2, stepped(trainer, 2))
    restored, notes = checkpoints.restore(trainer.init(0))
    checkpoints.close()
    assert notes == []
    chex.assert_trees_all_equal(restored, stepped(trainer, 2))


def test_what_is_no_checkpoint_is_passed_over_and_replaced(trainer, checkpoints, tmp_path):
    """A file, a link to nowhere, an empty folder by a step's name; of a whole one the notes of Orbax do not matter."""
    checkpoints.save(1, stepped(trainer, 1))
    (folder,) = {path.parent for path in tmp_path.rglob("1")}
    (folder / "1/_CHECKPOINT_METADATA").write_bytes(b"3")
    (folder / "2").touch()
    (folder / "3").symlink_to("nowhere")
    (folder / "4").mkdir()
    restored, notes = checkpoints.restore(trainer.init(0))
    chex.assert_trees_all_equal(restored, stepped(trainer, 1))
    assert [note.split(" is unreadable")[0] for note in notes] == [f"checkpoint {step}" for step in (4, 3, 2)]
    for step in (2, 3, 4):
        checkpoints.save(step, stepped(trainer, step))
    assert checkpoints.restore(trainer.init(0))[1] == []


def test_none_readable_is_an_error_and_not_a_new_start(trainer, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, stepped(trainer, 1))
    truncate(largest_file(folder / "1"))
    with pytest.raises(CheckpointError, match=r"no readable checkpoint in .*checkpoint 1 is unreadable"):
        checkpoints.restore(trainer.init(0))
    checkpoints.close()


def test_the_newest_three_are_kept(trainer, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    state = trainer.init(0)
    for step in range(1, 6):
        checkpoints.save(step, state._replace(step=np.int32(step)))
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4", "5"]
