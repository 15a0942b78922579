"""Grids as real processes: killed, resumed otherwise, on four devices, and as two processes that share one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# Without ReLU's kinks rounding stays rounding: Adam makes whole steps of the least gradient.
FLAGS = ["--T", "3", "--n-hid", "16", "--n-ch", "2", "--act", "tanh", "--batch", "16", "--stop-below", "0"]
FLAGS += ["--grid.lr", "1e-3", "3e38", "--grid.grad-clip", "0", "1", "--seeds", "2"]
FLAGS += ["--log-interval", "100", "--checkpoint-interval", "20", "--max-steps", "1500"]
TIMEOUT = 400
FOUR_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from wrnn_jax.models import configure
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.grids import grid
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import Hparams

assert jax.device_count() == 4
task = copy_task(CopyConfig(T=2))
model = configure("wrnn", n_hid=6, n_ch=2, act="tanh").build(task.signature)
CASES = (4, "map", (4, 1)), (6, "map", (2, 2)), (6, "vmap", (4, 1)), (2, "vmap", (2, 2)), (1, "map", (1, 4))
for members, how, shape in CASES:
    trainer = make_trainer(model, task, 8, members=members, how=how)
    assert tuple(trainer.mesh.shape.values()) == shape, trainer.mesh.shape
    slots = -(-members // shape[0]) * shape[0]
    until = np.where(np.arange(slots) < members, 5, 0)
    hparams = Hparams(np.geomspace(1e-3, 1e-2, slots).astype("f"), np.ones(slots, "f"))
    states = trainer.advance(trainer.init(np.arange(slots)), hparams, until)
    losses = trainer.evaluate(states, "test", until > 0)["test_loss"]
    assert states.step.tolist() == until.tolist()
    assert len(states.step.sharding.device_set) == shape[0] * shape[1]
    alone = make_trainer(model, task, 8, jax.devices()[:1])
    for m in range(members):
        state = alone.advance(alone.init(m), jax.tree.map(lambda leaf: leaf[m], hparams), 5)
        np.testing.assert_allclose(losses[m], alone.evaluate(state, "test")["test_loss"], rtol=1e-5)
xs = np.arange(7.0, dtype="f")
np.testing.assert_array_equal(grid(lambda x: {"y": x**2}, xs)["y"], xs**2)
print("as one")
"""


# By a program of its own: a function that runs between fork and exec is unsafe in a process that uses JAX.
FEW_CORES = """
import os, sys
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:int(sys.argv[1])])
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def start(logdir, *more, cores=None):
    few_cores = [] if cores is None else ["-c", FEW_CORES, str(cores)]
    command = [sys.executable, *few_cores, "-m", "tests.undrawn", "experiments.copy", *FLAGS, *more]
    command += ["--logdir", str(logdir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_two(logdir, *more):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--num-processes", "2"]
    return [start(logdir, *more, *shared, "--process-id", str(number)) for number in (0, 1)]


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def wait_for_checkpoints(folders, process):
    """Until each of the folders has one more checkpoint than it has now."""

    def newest(folder):
        return max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()), default=0)

    deadline = time.monotonic() + TIMEOUT
    before = {folder: newest(folder) for folder in folders}
    while any(newest(folder) <= before[folder] for folder in folders):
        if time.monotonic() > deadline or process.poll() is not None:
            pytest.fail(f"no checkpoint in {folders}: {process.communicate(timeout=TIMEOUT)}")
        time.sleep(0.01)


def rows(logdir):
    lines = [json.loads(line) for line in (logdir / "grid.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "rank")} for line in lines]


def metrics(logdir, row):
    text = (logdir / row["folder"] / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "steps_per_second")} for line in lines]


def assert_same_grid(logdir, expected):
    got, wanted = rows(logdir), rows(expected)
    assert len(got) == len(wanted) == 8
    for one, other in zip(got, wanted, strict=True):
        pairs = [(one, other), *zip(metrics(logdir, one), metrics(expected, other), strict=True)]
        for a, b in pairs:
            assert a.keys() == b.keys()
            for key in a:
                if isinstance(b[key], float):
                    np.testing.assert_allclose(a[key], b[key], rtol=2e-3, err_msg=f"{one['folder']} {key}")
                else:
                    assert a[key] == b[key]
    assert not (logdir / "checkpoints").exists()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("unbroken") / "grid"
    code, out, err = finish(start(logdir))
    assert code == 0, (out, err)
    assert {row["status"] for row in rows(logdir)} == {"complete", "diverged"}
    return logdir


def test_killed_again_and_again_and_resumed_otherwise_it_ends_the_same(unbroken, tmp_path):
    """kill -9, then SIGTERM; with other numbers of members at once and of cores each time."""
    logdir = tmp_path / "grid"
    ways = [
        ((), 2, signal.SIGKILL),
        (("--grid-chunk", "3"), 1, signal.SIGKILL),
        (("--grid-chunk", "2"), 2, signal.SIGTERM),
    ]
    for launch, (more, cores, number) in enumerate(ways, start=1):
        process = start(logdir, *more, *["--resume"] * (launch > 1), cores=cores)
        folder = logdir / "checkpoints" / "0" / f"{launch}-0"
        wait_for_checkpoints([folder], process)
        process.send_signal(number)
        code, out, err = finish(process)
        assert code == (-number if number == signal.SIGKILL else 128 + number), (out, err)
    assert {row["status"] for row in rows(logdir)} & {"interrupted", "pending"}
    code, out, err = finish(start(logdir, "--resume"))
    assert code == 0, err
    assert_same_grid(logdir, unbroken)


def test_four_devices_are_as_one():
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stdout.strip()) == (0, "as one"), done.stderr


def test_two_processes_are_as_one(unbroken, tmp_path):
    first, second = (finish(process) for process in start_two(tmp_path / "grid"))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "2 process(es)" in first[1]
    assert_same_grid(tmp_path / "grid", unbroken)


def test_a_signal_to_the_whole_job_saves_all_of_it_and_a_second_job_stays_out(unbroken, tmp_path):
    """Messengers, by which the processes agree to stop, are of the job as well."""
    logdir = tmp_path / "grid"
    processes = start_two(logdir)
    wait_for_checkpoints([logdir / "checkpoints" / "0" / f"1-{number}" for number in (0, 1)], processes[0])
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    for other in (start(logdir, "--resume"), *start_two(logdir, "--resume")):
        code, _, err = finish(other)
        assert (code, len(err.splitlines())) == (2, 1), err
    job = [pid for process in processes for pid in (*children(process.pid), process.pid)]
    assert len(job) == 4
    for pid in job:
        os.kill(pid, signal.SIGUSR1)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    for process in processes:
        code, _, err = finish(process)
        assert code == 128 + signal.SIGUSR1, err
    assert not (logdir / "lock").exists()
    code, _, err = finish(start(logdir, "--resume"))
    assert code == 0, err
    assert_same_grid(logdir, unbroken)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_of_two_is_killed_the_other_says_so_and_a_resume_finishes(killed, unbroken, tmp_path):
    logdir = tmp_path / "grid"
    processes = start_two(logdir)
    wait_for_checkpoints([logdir / "checkpoints" / "0" / f"1-{number}" for number in (0, 1)], processes[killed])
    processes[killed].kill()
    code, out, err = finish(processes[1 - killed])
    finish(processes[killed])
    assert code == 1, (out, err)
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: lost touch with another process")
    assert last.endswith("start all processes again with --resume")
    # As one process now, where there were two.
    code, out, err = finish(start(logdir, "--resume"))
    assert code == 0, err
    assert_same_grid(logdir, unbroken)


def test_processes_that_differ_are_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id"]
    processes = [start(tmp_path / "grid", *shared, str(number), "--n-hid", str(16 + number)) for number in (0, 1)]
    for process in processes:
        code, _, err = finish(process)
        assert code == 2
        (line,) = err.splitlines()
        assert line == "error: --distributed n-hid 17: must be 'n-hid 16' in process 1, as it is in process 0"
    assert not (tmp_path / "grid").exists()
