"""What a run meets on its way: signals, a second process, output that goes away, settings of JAX, devices."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import copy, devices, start
from helpers import refusal, run
from wrnn_jax import console
from wrnn_jax.grids.cgroups import cpu_quota
from wrnn_jax.grids.hosts import ALONE
from wrnn_jax.training import numerics
from wrnn_jax.training.lock import LOCK, locked, require_unlocked
from wrnn_jax.training.signals import STOPPING, received_signals
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parents[1]
SMALL = ["--T", "5", "--n-hid", "20", "--n-ch", "2", "--batch", "16", "--max-steps", "2", "--stop-below", "0"]


# Signals


@pytest.fixture
def hangup():
    """It ends a process, also where these tests were started so that it does not, as by ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_every_signal_that_asks_to_end_is_noted_and_the_handlers_are_as_before(capsys):
    before = [signal.getsignal(number) for number in STOPPING]
    assert {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"} == {number.name for number in STOPPING}
    with received_signals() as received:
        for number in (*STOPPING, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert received == [*STOPPING, signal.SIGINT]
    assert [signal.getsignal(number) for number in STOPPING] == before
    assert capsys.readouterr().err.count(": ") == 2, "however often a scheduler repeats itself"


def test_what_is_ignored_or_the_callers_own_stays_so():
    heard = []
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # As a script's shell does for jobs in the background.
    try:
        with received_signals() as received:
            for number in before:
                os.kill(os.getpid(), number)
        assert (received, heard) == ([signal.SIGINT], [signal.SIGUSR1])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_while_standard_error_is_being_written_is_noted(monkeypatch):
    class Interrupted(io.StringIO):
        """Of Python's own buffered streams the handler's write, amid another, raises this."""

        def write(self, text):
            raise RuntimeError("reentrant call")

    monkeypatch.setattr(sys, "stderr", Interrupted())
    with received_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_ctrl_c_outside_of_training_is_one_line(capsys, monkeypatch):
    """Also where an import on the way makes another error of it."""

    def interrupted():
        raise KeyboardInterrupt

    def amid_an_import():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("cannot import name") from error

    for comes in (interrupted, amid_an_import):
        monkeypatch.setattr(devices, "prepare_jax", comes)
        assert run(copy.main, "--T", 5) == start.INTERRUPTED
        assert capsys.readouterr().err.strip().startswith("interrupted; what is saved is whole")


# The lock


def test_one_job_has_the_folder_and_what_was_killed_has_none(tmp_path):
    folder = tmp_path / "run"
    holder = "import sys, time; from pathlib import Path; from wrnn_jax.training.lock import locked\n"
    holder += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        for attempt in (locked(folder).__enter__, lambda: require_unlocked(folder)):
            with pytest.raises(InvalidValue, match=f"process {process.pid} on .* is at work there"):
                attempt()
    finally:
        process.kill()
        process.communicate()
    assert (folder / LOCK).exists()
    require_unlocked(folder)
    with locked(folder):
        assert f"process {os.getpid()}" in (folder / LOCK).read_text()
        # One more process of the same job, which may be the last to end.
        joined = locked(folder, joining=True)
        joined.__enter__()
    assert (folder / LOCK).exists()
    with pytest.raises(InvalidValue):
        locked(folder).__enter__()
    joined.__exit__(None, None, None)
    assert list(folder.iterdir()) == []


def test_a_run_and_a_grid_that_are_under_way_are_left_alone(capsys, tmp_path):
    """Also a member of the grid, that would be trained further by itself."""
    with locked(tmp_path / "run"):
        assert "is at work there" in refusal(capsys, copy.main, *SMALL, "--logdir", tmp_path / "run")
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [LOCK]
    with ALONE.locked(tmp_path / "grid"):
        more = "--grid.lr", "1e-3", "1e-2", "--logdir", tmp_path / "grid"
        assert "is at work there" in refusal(capsys, copy.main, *SMALL, *more)
        member = tmp_path / "grid" / "members" / "lr-0.001"
        assert "is at work there" in refusal(capsys, copy.main, *SMALL, "--logdir", member)
        assert not member.exists()


# Output


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error):
        super().__init__()
        self.error, self.tries = error, 0

    def write(self, text):
        self.tries += 1
        raise self.error


ERRORS = BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), ValueError("closed")


@pytest.mark.parametrize("error", ERRORS)
def test_a_stream_that_fails_is_said_once_and_tried_no_more(error, capsys, monkeypatch):
    broken = Broken(error)
    monkeypatch.setattr(sys, "stdout", broken)
    console.say("one")
    console.say("two")
    assert broken.tries == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("standard output cannot be written (")
    monkeypatch.setattr(sys, "stderr", Broken(error))
    console.note("three")
    with console.bar(total=2, disable=False) as bar:
        bar.update()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    console.say("four")
    console.note("five")
    with console.bar(total=2, disable=False) as bar:
        bar.update()
    assert (console.OUT.error is None, console.OUT.isatty()) == (False, False)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_an_encoding_lacks_is_a_question_mark(encoding, monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding=encoding))
    console.say("f(x) − é \udce9")
    expected = {"latin-1": "f(x) ? é ?", "ascii": "f(x) ? ? ?", "utf-8": "f(x) − é ?"}[encoding]
    assert bytes_.getvalue().decode(encoding) == expected + "\n"
    copy.main(["--help"])
    assert len(bytes_.getvalue()) > 3000


@pytest.mark.usefixtures("standard_promotion")
def test_without_output_a_run_is_whole_and_printing_a_failure(tmp_path, capsys, monkeypatch):
    flags = [*SMALL, "--logdir", tmp_path / "run"]
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    assert run(copy.main, *flags) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 2
    for printing in ([*flags, "--eval-only"], ["--list-presets"], ["--help"]):
        assert run(copy.main, *printing) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "error: standard output cannot be written: No space left on device"


def test_a_folder_whose_name_is_not_utf8_is_refused_before_it_is_made(capsys, tmp_path):
    assert "UTF-8" in refusal(capsys, copy.main, *SMALL, "--logdir", tmp_path / "caf\udce9")
    assert list(tmp_path.iterdir()) == []


# Settings of JAX


@pytest.mark.usefixtures("standard_promotion")
def test_settings_that_change_numbers_are_kept(tmp_path, capsys, monkeypatch):
    """Float64, strict promotion and a search for infinities are not for experiments: they compute as without. Others a
    run keeps."""
    flags = [*SMALL, "--logdir", tmp_path / "run"]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.debug_infs(True):
        assert run(copy.main, *flags) == 0
        assert jax.config.jax_enable_x64
    assert "float32 all the same" in capsys.readouterr().err
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["jax"]
    assert stored["jax_enable_x64"] is False
    assert stored["jax_default_prng_impl"] == "threefry2x32"
    assert run(copy.main, *flags, "--resume") == 0
    changed = {
        "JAX_DEFAULT_PRNG_IMPL=rbg": jax.default_prng_impl("rbg"),
        "JAX_THREEFRY_PARTITIONABLE=False": jax.threefry_partitionable(False),
        "JAX_DEFAULT_MATMUL_PRECISION=float32": jax.default_matmul_precision("float32"),
        "JAX_DEBUG_NANS=True": jax.debug_nans(True),
    }
    for words, setting in changed.items():
        with setting:
            assert f"{words} here" in refusal(capsys, copy.main, *flags, "--resume")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true --xla_dump_to=/x")
    said = refusal(capsys, copy.main, *flags, "--resume")
    assert "xla_cpu_enable_fast_math not set there, xla_cpu_enable_fast_math=true here" in said
    numerics.require_same(None, tmp_path)  # A run of which nothing is known.


# Devices


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        (
            {
                "proc/self/cgroup": "0::/pod/a\n",
                "sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/pod/a/cpu.max": "200000 100000\n",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/x\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "-1\n",
            },
            3.0,
        ),
    ],
    ids=["none", "no limit", "version 2", "the least", "version 1"],
)
def test_the_quota_of_a_container_is_seen(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == expected
    monkeypatch.setattr(devices, "cpu_quota", lambda: 1.5)
    assert devices.usable_cores() == 1


def test_how_many_devices_there_are_is_the_users_to_say(monkeypatch):
    updates = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: updates.append(setting))
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=5")
    devices.prepare_jax()  # The number is not -1 here, either.
    assert "jax_num_cpu_devices" not in dict(updates)


def test_no_device_is_one_line(capsys, monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'x': no driver (set JAX_PLATFORMS='' to choose)\nmore")

    monkeypatch.setattr(jax, "local_devices", fail)
    said = refusal(capsys, copy.main, *SMALL)
    assert said.endswith(": Unable to initialize backend 'x': no driver")


def test_an_accelerator_that_does_not_start_is_one_sentence(capsys, monkeypatch):
    there = jax.local_devices()

    def with_a_plugin():
        try:
            raise ValueError("CUDA libraries are missing\nand more")
        except ValueError:
            logging.getLogger("jax._src.xla_bridge").exception("Jax plugin configuration error")
        return there

    monkeypatch.setattr(jax, "local_devices", with_a_plugin)
    devices.start()
    assert capsys.readouterr().err == "no accelerator, it is computed on the CPU: CUDA libraries are missing\n"
