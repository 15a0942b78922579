"""The README tells the truth: its Python runs, its commands are understood, its links lead somewhere."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from experiments import ablation, cli, figures, generate, report
from experiments.bench import __main__ as bench
from experiments.program import run_from_command_line
from experiments.runs import EXPERIMENTS

PROGRAMS = {"ablation": ablation, "bench": bench, "figures": figures, "generate": generate, "report": report}
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[0])
def test_python_examples_run(code, capsys, standard_promotion):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    shown = re.findall(r"# prints about ([\d.]+)", code)
    printed = re.findall(r"[\d.]+", capsys.readouterr().out)
    for about in shown:
        assert any(abs(float(number) - float(about)) < 0.03 for number in printed if number.strip("."))


def test_there_are_examples_and_commands():
    assert len(blocks("python")) >= 2
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command, monkeypatch):
    words = shlex.split(command)
    if words[0] == "srun":
        words = words[words.index("python3") :]
    program = words[2].removeprefix("experiments.") if words[:2] == ["python3", "-m"] else None
    if program in EXPERIMENTS:
        monkeypatch.setattr("experiments.program.run", lambda experiment, config, command: 0)
        monkeypatch.setattr("experiments.program.run_grid", lambda experiment, grid: 0)
        monkeypatch.setattr("experiments.devices.prepare_jax", lambda: None)
        run_from_command_line(EXPERIMENTS[program], words[3:])
    elif program in PROGRAMS:
        cli.parse(program, PROGRAMS[program].Config, words[3:])
    elif words[:2] == ["python3", "-m"] and words[2].startswith("wrnn_jax."):
        assert importlib.util.find_spec(words[2]) is not None
    else:
        known = (["python3", "-m", "pip"], ["python3", "-m", "pytest"], ["tensorboard"], ["git"], ["cd"])
        assert any(words[: len(start)] == start for start in known), command


def test_the_two_commands_are_what_ci_runs():
    script = (ROOT / ".ci" / "run").read_text()
    for command in (
        "python3 -m pip install -e . && python3 -m experiments.copy --T 480",
        "python3 -m pip install -e '.[test]' && python3 -m pytest",
    ):
        assert command in script
        assert command in README


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)", README) + re.findall(r'src="([^"]+)"', README)
    for target in [link for link in links if not link.startswith("http")]:
        assert (ROOT / target).exists(), target
