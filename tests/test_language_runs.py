"""Runs of language, and what a run directory alone goes on with."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments import figures, generate, language
from experiments.experiment import restore
from experiments.runs import open_run
from helpers import draw, refusal, run
from wrnn_jax.analysis import plots

pytestmark = pytest.mark.usefixtures("standard_promotion", "undrawn")

TEXT = "".join(f"the {animal} sat on the mät.\n" for animal in ("cat", "dog", "cow", "hen")) * 10
T = 12
FLAGS = ["--T", T, "--model", "srnn", "--n-hid", 8, "--batch", 8, "--log-interval", 10]
LR = ["--lr", 0.03]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "animals & co.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """A run's folder, moved away, whose text is in another place."""
    folder = tmp_path_factory.mktemp("trained")
    assert run(language.main, "--text", text, *FLAGS, *LR, "--max-steps", 60, "--logdir", folder / "run") == 0
    return (folder / "run").rename(folder / "moved")


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def generated(capsys, folder, *flags):
    capsys.readouterr()
    assert run(generate.main, folder, *flags) == 0
    return capsys.readouterr().out.removesuffix("\n")


def test_a_run_says_what_came_of_it(trained, text):
    result = json.loads((trained / "summary.json").read_text())
    assert (result["experiment"], result["T"], result["units"], result["text"]) == (
        "language",
        T,
        "character",
        str(text),
    )
    assert result["val_bits"] == pytest.approx(result["val_loss"] / np.log(2), rel=1e-5)
    assert result["test_bits"] == pytest.approx(result["test_loss"] / np.log(2), rel=1e-5)
    assert result["val_bits"] < result["memoryless_bits"], "so simple a text is learned"
    validated = {row["step"]: row["val_bits"] for row in rows(trained)}
    assert result["best_step"] == min(validated, key=validated.get)
    assert result["val_bits"] == pytest.approx(min(validated.values()), rel=1e-5)


def test_folders_are_named_by_the_texts_name_and_what_is_not_as_usual():
    config = language.EXPERIMENT.configure({"text": "/a b/ä & \udcff?.txt", "T": 8})
    assert language.stem(config.task) == "ä-_T8"
    assert language.stem(language.EXPERIMENT.configure({}).task) == "tiny_shakespeare_T256"


def test_what_has_changed_since_is_refused(trained, text, tmp_path, capsys):
    """Another text in the same place; the same in another place is the same."""
    other = tmp_path / "other.txt"
    other.write_text(TEXT.replace("cow", "pig"))
    line = ("--max-steps", 60, *FLAGS, *LR, "--logdir", trained)
    assert "as in the run that" in refusal(capsys, language.main, "--text", other, *line, "--resume")
    again = shutil.copy(text, tmp_path / "again.txt")
    assert run(language.main, "--text", again, *line, "--eval-only") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = json.loads((trained / "summary.json").read_text())
    assert printed == {name: result[name] for name in ("val_loss", "val_bits", "test_loss", "test_bits")} | {"step": 60}
    digest = json.loads((trained / "config.json").read_text())["config"]["task"]["sha256"]
    new = ("--T", T, "--logdir", tmp_path / "r", "--sha256", digest)
    assert f"must be the text of SHA-256 {digest}" in refusal(capsys, language.main, "--text", other, *new)


@pytest.mark.slow
def test_resuming_ends_where_going_through_does(trained, text, tmp_path):
    for steps in (25, 60):
        line = (*LR, "--max-steps", steps, "--schedule", "constant", "--logdir", tmp_path / "r", "--resume")
        assert run(language.main, "--text", text, *FLAGS, *line) == 0
    assert run(language.main, "--text", text, *FLAGS, *line[:-3], "--logdir", tmp_path / "whole") == 0
    ends = [restore(open_run(tmp_path / name).parts().trainer(), 0, tmp_path / name) for name in ("r", "whole")]
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_directory_alone_goes_on_with_a_prompt(trained, text, capsys, tmp_path):
    """Also where text and configs' paths are gone."""
    alone = shutil.copytree(trained, tmp_path / "alone")
    about = json.loads((alone / "config.json").read_text())
    about["config"]["task"]["text"] = str(tmp_path / "gone.txt")
    (alone / "config.json").write_text(json.dumps(about))
    said = generated(capsys, alone, "--prompt", "the ", "--length", 30)
    assert said.startswith("the ")
    assert len(said) == 34
    assert set(said) <= set(TEXT)
    assert said == generated(capsys, trained, "--prompt", "the ", "--length", 30), "the same seed, the same text"
    others = {generated(capsys, trained, "--prompt", "the ", "--length", 30, "--seed", seed) for seed in (1, 2, 3)}
    assert others - {said}
    likeliest = {
        generated(capsys, trained, "--prompt", "the ", "--length", 30, "--temperature", 0, "--seed", s) for s in (0, 1)
    }
    assert len(likeliest) == 1


def test_bytes_are_symbols_too(text, tmp_path, capsys):
    assert (
        run(language.main, "--text", text, *FLAGS, "--units", "byte", "--max-steps", 1, "--logdir", tmp_path / "r") == 0
    )
    said = generated(capsys, tmp_path / "r", "--prompt", "mät", "--length", 5, "--temperature", 0)
    assert said.startswith("mät")
    line = refusal(capsys, generate.main, tmp_path / "r", "--prompt", "mäÄt")
    assert "that were seen, among which is no byte 132" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt", "the zebra"], "characters that were seen, among which is no 'z'"),
        (["--prompt", ""], "--prompt : must be one character or more"),
        (["--prompt", "t" * 13], "must be at most 12 characters, as trained on: it has 13"),
        (["--prompt", "t", "--temperature", "-0.1"], "--temperature -0.1: must be a finite number, 0 or more"),
        (["--prompt", "t", "--temperature", "nan"], "--temperature nan: must be a finite number"),
        (["--prompt", "t", "--length", "0"], "--length 0: must be a whole number, 1 or more"),
        (["--prompt", "t", "--length", "1000001"], "--length 1000001: must be a whole number, 1000000 at most"),
        (["--prompt", "t", "--seed", "-1"], "--seed -1: must be a whole number, 0 or more"),
        ([], "--prompt"),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_line(trained, capsys, flags, said):
    assert said in refusal(capsys, generate.main, trained, *flags)


def test_what_is_no_run_of_language_with_a_checkpoint_is_one_line(trained, tmp_path, capsys):
    assert "config.json is unreadable" in refusal(capsys, generate.main, tmp_path / "none", "--prompt", "t")
    other = shutil.copytree(trained, tmp_path / "other")
    for checkpoint in (other / "checkpoints").iterdir():
        (checkpoint / "state" / "_METADATA").write_text("{")
    assert "no readable checkpoint in" in refusal(capsys, generate.main, other, "--prompt", "t")
    shutil.rmtree(other / "checkpoints")
    assert "a run's folder with a checkpoint" in refusal(capsys, generate.main, other, "--prompt", "t")
    about = json.loads((other / "config.json").read_text())
    about["experiment"] = "copy"
    about["config"]["task"] = {"T": 3, "variant": "paper"}
    (other / "config.json").write_text(json.dumps(about))
    assert "a run of language, which this of copy is not" in refusal(capsys, generate.main, other, "--prompt", "t")


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        (None, "", "a file that can be read (No such file or directory)"),
        (b"", "", "a file with a text in it: this is empty"),
        (b"\xff", "", "UTF-8, which it is not from byte 0 on"),
        (b"ab" * 50, "--T 9", "--T 9: must be at most 4: the text has 100 characters, of which 5 validate"),
        (b"ab" * 50, "--T 2147483647", "must be smaller, or other sizes: this takes"),
        (b"ab" * 50, "--data-dir d", "--data-dir d: must be left out with --text"),
    ],
)
def test_a_bad_text_is_one_line(tmp_path, capsys, content, flags, said):
    file = tmp_path / "text"
    if content is not None:
        file.write_bytes(content)
    flags = ["--text", file, "--logdir", tmp_path / "r", "--n-hid", 4, *flags.split()]
    assert said in refusal(capsys, language.main, *flags)
    assert not (tmp_path / "r").exists()


def test_of_a_grid_the_fewest_bits_are_the_best(text, tmp_path, capsys):
    line = ("--grid.lr", 1e-6, 0.03, "--max-steps", 20, "--logdir", tmp_path / "grid")
    assert run(language.main, "--text", text, *FLAGS, *line) == 0
    ranked = [json.loads(row) for row in (tmp_path / "grid" / "grid.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in sorted(ranked, key=lambda row: row["rank"])] == [0.03, 1e-6]


@pytest.mark.drawn
def test_an_example_shows_each_character_and_its_probability(trained, tmp_path):
    out = tmp_path / "example.png"
    assert run(figures.main, trained, "--figure", "example", "--out", out) == 0
    assert out.stat().st_size > 5000


def test_characters_stand_row_by_row_on_their_probabilities():
    text = "a$b_\n\t ☃漢\0" * 30
    probabilities = np.linspace(0, 1, len(text) - 1)
    figure = plots.text_example(text, probabilities)
    draw(figure)  # Nothing warns of a character that the font has not.
    (image,) = figure.axes[0].images
    cells = image.get_array()
    assert cells.shape == (5, 64)
    np.testing.assert_allclose(cells.ravel()[1 : len(text)].astype(float), probabilities)
    assert cells.mask.sum() == 1 + 5 * 64 - len(text)
    marks = [label.get_text() for label in figure.axes[0].texts]
    assert "".join(marks[:10]) == "a$b_↵→·☃□□"
    with pytest.raises(ValueError, match=r"probabilities.shape"):
        plots.text_example("abc", np.zeros(3))
    long = plots.text_example("x" * 3001, np.full(3000, 0.5))
    assert (len(long.axes[0].texts), "1 bits" in long.get_suptitle()) == (1024, True)
