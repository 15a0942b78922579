"""The compiled kernels are built once, kept in a file of the user's own, and loaded only if that is whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import copy
from experiments.experiment import assemble
from experiments.runs import open_run
from experiments.settings import RunConfig
from wrnn_jax.kernels import native
from wrnn_jax.kernels.native import build, library
from wrnn_jax.models import configure
from wrnn_jax.tasks import CopyConfig
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.validation import InvalidValue

ROOT = Path(__file__).parents[1]


@pytest.fixture
def compiler(native_cache, tmp_path, monkeypatch):
    """An empty cache, and a compiler that is quick: it hands out what the real one made once, and keeps count.

    -> how often it was run
    """
    (made,) = native_cache.rglob("*.so")
    program = tmp_path / "compiler"
    # Its last argument is where to; the argument before that is -o.
    program.write_text(
        f'#!/bin/sh\necho >> {tmp_path}/count\nsleep "${{DELAY:-0}}"\nfor last; do :; done\ncp {made} "$last"\n'
    )
    program.chmod(0o700)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(library.VARIABLE)
    forget()
    yield lambda: len((tmp_path / "count").read_text()) if (tmp_path / "count").exists() else 0
    forget()


def forget():
    """What this process knows of libraries that it loaded or complained of."""
    library._load.cache_clear()
    library.complain.cache_clear()


def kept():
    """The file in the cache."""
    (path,) = library.folder().glob("*.so")
    return path


def test_compiled_once_with_a_word(compiler):
    said = []
    assert not native.is_built()
    assert build.build_once(said.append)
    assert native.is_built()
    (line,) = said
    assert line.startswith("compiling the native kernels")
    assert library.VARIABLE in line
    assert build.build_once(said.append)
    forget()
    assert build.build_once(said.append)
    assert compiler() == len(said) == 1
    assert {path.suffix for path in library.folder().iterdir()} == {".so", ".lock"}


def test_whose_they_are(compiler):
    """Nobody else may write there, whatever the user's mask."""
    mask = os.umask(0)
    try:
        build.build()
    finally:
        os.umask(mask)
    for path in (kept(), kept().parent):
        assert path.stat().st_mode & 0o077 == 0


def test_the_command_says_in_a_line_where_to(compiler, capsys):
    for _ in range(2):  # asked for, they are compiled although they are there
        assert build.main() == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"{kept()}: built in ")
    assert compiler() == 2


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PATH": "", "CXX": ""}, "no C++ compiler"),
        ({"CXX": "no-such-compiler"}, "no C++ compiler"),
        ({"CXX": "false"}, "false: exit code 1"),
        ({"XDG_CACHE_HOME": "/dev/null/cache"}, "Not a directory"),
    ],
)
def test_why_not_is_said_in_a_line(compiler, capsys, monkeypatch, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert build.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("native kernels not built: ")
    assert said in line
    with pytest.raises(InvalidValue, match=r"python3 -m wrnn_jax\.kernels\.native\.build"):
        native.require_built()


@pytest.mark.parametrize(
    "environment",
    [{"CXX": "no-such-compiler"}, {"XDG_CACHE_HOME": "/dev/null/cache"}, {library.VARIABLE: "0"}],
)
def test_silent_where_it_cannot_be_or_is_declined(compiler, monkeypatch, caplog, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not build.build_once(pytest.fail)
    assert compiler() == 0
    assert not caplog.messages


def test_declined_they_are_not_loaded_either(compiler, monkeypatch):
    build.build()
    assert native.is_built()
    monkeypatch.setenv(library.VARIABLE, "0")
    assert not native.is_built()
    with pytest.raises(InvalidValue, match=f"another while {library.VARIABLE}=0"):
        native.require_built()


def test_a_compiler_that_failed_is_not_tried_again(compiler, monkeypatch):
    working, said = os.environ["CXX"], []
    monkeypatch.setenv("CXX", "false")
    for _ in range(2):
        assert not build.build_once(said.append)
    assert len(said) == 2
    assert "not tried again: false: exit code 1" in said[1]
    assert library.COMMAND in said[1]
    # One that makes what cannot be loaded has failed too.
    monkeypatch.setenv("CXX", working)
    Path(working).write_text(Path(working).read_text().replace("\ncp ", "\necho no library > $last #"))
    assert not build.build_once(said.append)
    assert "cannot be loaded" in said[3]
    assert not build.build_once(pytest.fail)
    assert not list(library.folder().glob("*.so"))
    # A newer one of that name may do.
    Path(working).write_text(Path(working).read_text().replace("echo no library > $last #", "cp "))
    assert build.build_once(said.append)
    assert not list(library.folder().glob("*.failed"))


def belongs_to_another(path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)


def is_a_link(path, monkeypatch):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


SPOILED = {
    "file for the group to write": lambda path, _: path.chmod(0o720),
    "file for all to write": lambda path, _: path.chmod(0o702),
    "folder for all to write": lambda path, _: path.parent.chmod(0o777),
    "link": is_a_link,
    "another user's": belongs_to_another,
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_only_a_file_of_the_users_own_is_loaded(compiler, monkeypatch, caplog, spoil):
    build.build()
    spoil(kept(), monkeypatch)
    for _ in range(2):
        assert not native.is_built()
        assert not build.build_once(pytest.fail)
    (line,) = caplog.messages
    assert line.startswith("native kernels not loaded: ")
    assert library.COMMAND in line
    assert compiler() == 1
    if spoil is not belongs_to_another:
        build.build()
        assert native.is_built()


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", "half", "flipped"])
def test_a_damaged_file_is_not_loaded_but_made_anew(compiler, caplog, damage):
    build.build()
    content = kept().read_bytes()
    half = len(content) // 2
    damages = {"half": content[:half], "flipped": content[:half] + b"?" + content[half + 1 :]}
    kept().write_bytes(damages.get(damage, damage))
    assert not native.is_built()
    (line,) = caplog.messages
    assert "is damaged" in line
    assert build.build_once(print)
    assert kept().read_bytes() == content


def test_another_processor_has_another_file(compiler, monkeypatch):
    build.build()
    for name, value in (("_instructions", lambda: "flags: sse"), ("FLAGS", (*library.FLAGS, "-g"))):
        with monkeypatch.context() as patch:
            patch.setattr(library, name, value)
            library.stem.cache_clear()
            forget()
            assert not native.is_built()
        library.stem.cache_clear()
    assert native.is_built()


def test_of_processes_that_start_together_one_compiles(compiler):
    script = "from wrnn_jax.kernels.native import build; print(build.build_once(print))"
    command = [sys.executable, "-c", script]
    environment = os.environ | {"DELAY": "2"}
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in "12"]
    said = sorted(process.communicate()[0].splitlines() for process in processes)
    assert [lines[-1] for lines in said] == ["True", "True"]
    assert sorted(len(lines) for lines in said) == [1, 2]
    assert compiler() == 1


def test_the_lock_is_gone_with_its_process(compiler, monkeypatch):
    """One that waits in vain goes on without; what a killed process held is free."""
    library.folder().mkdir(parents=True, mode=0o700)
    path = library.folder() / f"{library.stem()}.lock"
    script = "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, 2); print(flush=True)"
    holder = subprocess.Popen([sys.executable, "-c", f"{script}; time.sleep(60)", path], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        monkeypatch.setattr(build, "WAITING_SECONDS", 0.5)
        started = time.monotonic()
        assert not build.build_once(pytest.fail)
        assert 0.5 <= time.monotonic() - started < 10
    finally:
        holder.kill()
        holder.communicate()
    assert build.build_once(print)


def test_without_locks_in_the_file_system_it_is_compiled_all_the_same(compiler, monkeypatch):
    def flock(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert build.build_once(print)


def copying(max_steps=60_000, **model):
    return copy.Config(
        CopyConfig(), configure(**{"model": "wrnn", **model}), TrainConfig(max_steps=max_steps), RunConfig()
    )


@pytest.mark.parametrize(
    ("config", "options", "backend"),
    [
        (copying(), {"trains": True}, "native"),
        (copying(model="irnn"), {"trains": True}, "native"),
        (copying(), {}, "fused"),  # to draw its figures
        (copying(backend="fused"), {"trains": True}, "fused"),
        (copying(model="lstm"), {"trains": True}, "scan"),
        (copying(max_steps=4), {"trains": True}, "fused"),
        (copying(max_steps=40), {"trains": True}, "fused"),
        (copying(max_steps=40), {"trains": True, "members": 9}, "native"),
    ],
)
def test_an_experiment_compiles_them_where_that_pays(compiler, capsys, config, options, backend):
    parts = assemble(copy.EXPERIMENT, config, **options)
    assert parts.config.model.backend == backend
    assert compiler() == capsys.readouterr().out.count("compiling") == (backend == "native")


def test_a_run_that_had_them_is_read_without(compiler, tmp_path, monkeypatch):
    parts = assemble(copy.EXPERIMENT, copying(), trains=True)
    RunDirectory(tmp_path / "run", "copy", parts.config, resume=False).create()
    monkeypatch.setenv(library.VARIABLE, "0")
    assert open_run(tmp_path / "run").parts().config.model.backend == "fused"
