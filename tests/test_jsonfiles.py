"""Damaged JSON is refused with a reason, or left out with a word."""

import pytest

from wrnn_jax.jsonfiles import DamagedFile, read_object
from wrnn_jax.training.rundir import read_config, read_metrics, read_summary
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
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(" is left out")[0] for note in notes] == [
        f"{tmp_path}/metrics.jsonl, line {n}" for n in (2, 3, 4)
    ]
    assert DAMAGES[damage] in notes[0]


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
