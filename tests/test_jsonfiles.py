"""Damaged JSON is refused with a reason, or left out with a word."""

import json
import os

import pytest

from wrnn_jax.jsonfiles import DamagedFile, read_object
from wrnn_jax.training.stored import read_config, read_metrics, read_summary
from wrnn_jax.validation import InvalidValue

DAMAGES = {
    b"\xff\xfe{\x00}\x00": "not UTF-8",
    b"\x00" * 8: "not JSON",
    b'{"step": 1, ': "not JSON",
    b"[" * 100_000: "nested too deeply",
    b"[1]": "no object but list",
    b"7": "no object but int",
    b"null": "no object but NoneType",
    b'{"step": ' + b"9" * 5000 + b"}": "not JSON",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: repr(damage[:12]))
def test_what_is_damaged_is_refused_in_one_line_or_left_out_with_its_number(tmp_path, capsys, damage):
    for name, read in (("config.json", read_config), ("summary.json", read_summary)):
        (tmp_path / name).write_bytes(damage)
        with pytest.raises(InvalidValue, match=DAMAGES[damage]) as refused:
            read(tmp_path)
        assert "\n" not in str(refused.value)
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1}\n' + damage + b'\n{"loss": 2}\n{"step": 3, "loss": "low"}\n{"step": 4}\n{"st'
    )
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 4}]
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith(f"{tmp_path}/metrics.jsonl: damaged, and left out: lines 2-4, 6 (it ")
    assert DAMAGES[damage] in note


def test_numbers_that_are_not_finite_are_none(tmp_path):
    (tmp_path / "a.json").write_text('{"a": NaN, "b": 1e999, "c": -Infinity, "d": 1.5}')
    assert read_object(tmp_path / "a.json") == {"a": None, "b": None, "c": None, "d": 1.5}
    with pytest.raises(DamagedFile, match="it has no e"):
        read_object(tmp_path / "a.json", keys=("e",))


def test_folders_and_links_in_the_place_of_files(tmp_path):
    (tmp_path / "config.json").mkdir()
    (tmp_path / "summary.json").symlink_to("summary.json")
    for read in (read_config, read_summary):
        with pytest.raises(InvalidValue, match="is unreadable"):
            read(tmp_path)
    assert read_metrics(tmp_path) == []
    for target in ("nowhere", "metrics.jsonl"):
        (tmp_path / "metrics.jsonl").symlink_to(target)
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            read_metrics(tmp_path)
        (tmp_path / "metrics.jsonl").unlink()


def test_rows_that_a_run_has_written_and_are_not_there_are_said(tmp_path, capsys):
    rows = [{"step": step, "test_loss": 1 / step} for step in (20, 40, 60, 75)]
    lines = [json.dumps(row) + "\n" for row in rows]

    def notes(kept, status=None, steps=75, interval=None):
        for name, holds in (
            ("summary.json", status and {"status": status, "steps": steps, "max_steps": 75}),
            ("config.json", interval and {"config": {"train": {"log_interval": interval}}}),
        ):
            (tmp_path / name).unlink(missing_ok=True)
            if holds:
                (tmp_path / name).write_text(json.dumps(holds))
        (tmp_path / "metrics.jsonl").write_text("".join(kept))
        assert read_metrics(tmp_path) == rows[: len(kept)]
        return [note.removeprefix(f"{tmp_path}/metrics.jsonl: ") for note in capsys.readouterr().err.splitlines()]

    assert notes(lines, "complete") == notes([*lines[:-1], lines[-1].rstrip()], "complete") == []
    cut = "its rows end at step 60, and the run recorded step 75: what it had beyond is lost"
    assert notes(lines[:-1], "complete") == [cut]
    assert notes([], "complete") == ["it has no rows, and the run recorded step 75: what it had beyond is lost"]
    # Where a run may end between two records, its config says when the last one was.
    assert notes(lines[:3], "interrupted", 70) == notes(lines[:3], "diverged", 70, interval=20) == []
    (short,) = notes(lines[:2], "interrupted", 70, interval=20)
    assert short.startswith("its rows end at step 40, and the run recorded step 60")
    os.makedirs(tmp_path / "checkpoints" / "75")
    assert notes(lines[:3], interval=20) == []
    assert len(notes(lines[:2], interval=20)) == 1
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 60}\n')
    read_metrics(tmp_path)
    assert capsys.readouterr().err == f"{tmp_path}/metrics.jsonl: no test_loss at step 60\n"
