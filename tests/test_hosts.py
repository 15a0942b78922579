"""Several processes: what one tells, all hear, to the bit; whoever is lost, the others end in one line."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wrnn_jax.grids.hosts import ALONE, Hosts, HostsError, connect
from wrnn_jax.grids.messenger import Messenger
from wrnn_jax.training.signals import STOPPING
from wrnn_jax.validation import InvalidValue

ROOT = Path(__file__).parents[1]
TIMEOUT = 120
DTYPES = ["bool", "int8", "uint32", "int64", "float16", "float32", "float64", "complex128"]
PROGRAM = """
import sys
import jax
import numpy as np
from wrnn_jax.grids.hosts import HostsError, connect

address, index = sys.argv[1:] or (None, None)
try:
    with connect(address, address and 2, index and int(index), timeout=60) as hosts:
        print("met", hosts.index, hosts.count, jax.config.values["jax_cuda_visible_devices"], flush=True)
        for order in map(str.strip, sys.stdin):
            if order == "gather":
                print(*hosts.gather(np.int64(hosts.index)), flush=True)
            elif order == "devices":
                print(jax.process_count(), len(jax.devices()), jax.distributed.is_initialized(), flush=True)
            elif order == "fail":
                raise ZeroDivisionError("of its own")
except HostsError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(1)
"""


def free_port(low=0, high=0):
    """One that nothing listens at: the system's choice, or the first from ``low`` on."""
    for port in range(low, high + 1):
        with socket.socket() as trial:
            try:
                trial.bind(("", port))
            except OSError:
                continue
            return trial.getsockname()[1]
    pytest.fail("no port is free")


def address():
    return f"127.0.0.1:{free_port()}"


class Process:
    """A training process in the hands of the test: it does as it is told, line by line."""

    def __init__(self, *arguments, **environment):
        self.popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"} | environment,
        )

    def tell(self, order):
        self.popen.stdin.write(f"{order}\n")
        self.popen.stdin.flush()

    def heard(self):
        return self.popen.stdout.readline().split()

    def end(self):
        """Exit code and what it wrote to standard error, at the end of its orders."""
        _, err = self.popen.communicate(timeout=TIMEOUT)
        return self.popen.returncode, err


def ends(processes):
    """Of processes that end together, since each waits for the others."""
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(Process.end, processes))


@pytest.fixture
def start():
    """Start processes; those that a test leaves behind are killed."""
    processes = []

    def start_one(*arguments, **environment):
        processes.append(Process(*arguments, **environment))
        return processes[-1]

    yield start_one
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


@pytest.fixture
def two(start):
    """Two processes that have met, and where process 0 listens."""
    meeting = address()
    processes = [start(meeting, index) for index in range(2)]
    assert [process.heard()[:3] for process in processes] == [["met", "0", "2"], ["met", "1", "2"]]
    return *processes, meeting


@pytest.fixture(scope="module")
def together():
    """``together(f)``: ``[f(hosts 0), f(hosts 1)]``, called at the same time by two that have met."""
    meeting = address()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda index: connect(meeting, 2, index, timeout=60), range(2))
        with first, second:
            yield lambda function: list(pool.map(function, (first, second)))
            list(pool.map(Hosts.close, (first, second)))


def caught(function, kind):
    with pytest.raises(kind) as error:
        function()
    return error.value


def test_each_knows_its_number(together):
    assert together(lambda hosts: (hosts.index, hosts.count)) == [(0, 2), (1, 2)]


@given(data=st.data())
def test_all_hear_what_each_has_to_the_bit(together, data):
    """Also 64-bit numbers, NaNs and infinities, and nothing at all; the shape () is a number."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    dtype = data.draw(st.sampled_from(DTYPES))
    told = [data.draw(hnp.arrays(dtype, shape)) for _ in range(2)]
    for heard in together(lambda hosts: hosts.gather(told[hosts.index])):
        assert heard.dtype == dtype
        assert heard.shape == (2, *shape)
        assert heard.tobytes() == np.stack(told).tobytes()


def test_a_long_message_arrives_whole(together):
    told = np.random.default_rng(0).normal(size=(2, 300_000))
    for heard in together(lambda hosts: hosts.gather(told[hosts.index])):
        np.testing.assert_array_equal(heard, told)


def test_the_faster_waits_for_the_slower(together):
    said = []

    def slower_after(seconds):
        def gather(hosts):
            if hosts.index == 1:
                time.sleep(seconds)
                said.append("slower comes")
            hosts.gather(np.zeros(2))
            said.append("both go on")

        return gather

    together(slower_after(1.0))
    assert said == ["slower comes", "both go on", "both go on"]


@pytest.mark.parametrize("text", ["", "lr=0.1\nT=30", "ν = 1\n" * 1000])
def test_the_same_text_is_agreed_on(together, text):
    assert together(lambda hosts: hosts.agree(text, "flags")) == [None, None]


@pytest.mark.parametrize(
    ("texts", "found", "expected"),
    [
        (("lr=1\nT=30\nC=6", "lr=1\nT=10\nC=6"), "T=10", "T=30"),
        (("lr=1", "lr=1\nT=10"), "T=10", None),
        (("lr=1", ""), "", "lr=1"),
        (("lr=1\n", "lr=1"), None, ""),
    ],
)
def test_a_different_text_is_shown_in_every_process(together, texts, found, expected):
    errors = together(lambda hosts: caught(lambda: hosts.agree(texts[hosts.index], "flags"), InvalidValue))
    for error in errors:
        assert (error.field, error.value) == ("flags", found)
        assert error.allowed.startswith(f"{expected!r} in process 1")
    assert together(lambda hosts: hosts.gather(np.int8(hosts.index)).tolist()) == [[0, 1], [0, 1]]


def test_a_signal_of_the_cluster_leaves_the_line_to_the_others_intact(together):
    """A signal goes to every process of a job: the training process still has to save, and to tell the others."""
    for number in STOPPING:
        together(lambda hosts, number=number: hosts.messenger._process.send_signal(number))
        assert together(lambda hosts: hosts.gather(np.int8(hosts.index)).tolist()) == [[0, 1], [0, 1]]


def test_alone_every_answer_is_ones_own():
    with ALONE as hosts:
        np.testing.assert_array_equal(hosts.gather(np.arange(3.0)), np.arange(3.0)[None])
        hosts.agree("lr=1", "flags")
        assert (hosts.index, hosts.count) == (0, 1)
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("localhost:1234", 2, None), "process_id"),
        (("localhost:1234", None, 0), "num_processes"),
        ((None, 2, 0), "coordinator"),
        ((None, None, 1), "coordinator"),
        (("localhost", 2, 1), "coordinator"),
        ((":1234", 2, 1), "coordinator"),
        (("localhost:", 2, 1), "coordinator"),
        (("localhost:http", 2, 1), "coordinator"),
        (("localhost:0", 2, 1), "coordinator"),
        (("localhost:65536", 2, 1), "coordinator"),
        (("localhost:1234", 0, 0), "num_processes"),
        (("localhost:1234", 2.0, 0), "num_processes"),
        (("localhost:1234", 2, -1), "process_id"),
        (("localhost:1234", 2, 2), "process_id"),
        (("localhost:1234", 2, 1, 0), "timeout"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_started(arguments, field, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert caught(lambda: connect(*arguments), InvalidValue).field == field


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as taken:
        coordinator = f"127.0.0.1:{taken.getsockname()[1]}"
        assert caught(lambda: connect(coordinator, 2, 0), InvalidValue).field == "coordinator"


def test_without_arguments_there_has_to_be_a_cluster(monkeypatch):
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "PMIX_", "JAX_COORDINATOR", "KUBERNETES_", "TPU_")):
            monkeypatch.delenv(name)
    error = caught(lambda: connect(timeout=60), InvalidValue)
    assert error.field == "coordinator"
    assert "SLURM" in error.allowed


@pytest.mark.parametrize("index", [0, 1])
def test_whoever_comes_alone_is_told_so_in_time(index):
    """As process 0 it waits for the other; as process 1, for an answer from where nobody listens."""
    coordinator = address()
    error = caught(lambda: connect(coordinator, 2, index, timeout=1), HostsError)
    assert str(error).startswith(f"2 processes at {coordinator} did not all meet within 1 s")
    assert "\n" not in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_jax_itself_giving_up_is_no_more_than_a_line_either(index):
    """JAX's client ends its process by SIGABRT, here before the training process would stop waiting."""
    messenger = Messenger(address(), 2, index, timeout=1)
    error = caught(lambda: messenger.meet(TIMEOUT), HostsError)
    assert str(error).startswith("DEADLINE_EXCEEDED")
    assert "\n" not in str(error)
    messenger.stop()


@pytest.mark.slow
def test_two_of_the_same_number_are_both_told():
    coordinator = address()
    with ThreadPoolExecutor(3) as pool:
        for error in pool.map(
            lambda index: caught(lambda: connect(coordinator, 3, index, timeout=15), HostsError), [0, 1, 1]
        ):
            assert "each with its own process_id" in str(error)


@pytest.mark.slow
def test_whoever_counts_on_more_than_process_0_is_refused():
    coordinator = address()
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(connect, coordinator, 2, 0, 60)
        error = caught(lambda: connect(coordinator, 3, 1, timeout=60), InvalidValue)
        assert (error.field, error.value) == ("num_processes", 3)
        with host.result() as hosts:
            caught(lambda: hosts.gather(np.zeros(1)), HostsError)


@pytest.mark.slow
def test_two_processes_each_with_devices_of_its_own(two):
    """To JAX each is alone: what it compiles, saves and sees does not hang on the other."""
    *processes, _ = two
    for process in processes:
        process.tell("gather")
        process.tell("devices")
    for process in processes:
        assert process.heard() == ["0", "1"]
        assert process.heard() == ["1", "2", "False"]
    assert ends(processes) == [(0, ""), (0, "")]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_lost_process_ends_the_other_in_one_line(two, lost, how):
    """Also process 0, which all others are connected to; whether it is killed, or stops at an error of its own."""
    *processes, meeting = two
    if how == "kill":
        processes[lost].popen.kill()
        assert processes[lost].end()[0] == -signal.SIGKILL
    else:
        processes[lost].tell("fail")
        code, err = processes[lost].end()
        assert code == 1
        assert err.splitlines()[-1] == "ZeroDivisionError: of its own"
    other = processes[1 - lost]
    other.tell("gather")
    code, err = other.end()
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith("error: lost touch with another process")
    wait_until_nobody_listens(meeting)


def wait_until_nobody_listens(meeting):
    """No messenger outlives its training process: that of process 0 held the port."""
    host, port = meeting.split(":")
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("a messenger is left behind")


@pytest.mark.slow
def test_who_waits_for_another_can_be_interrupted(two):
    waiting, other, _ = two
    waiting.tell("gather")
    time.sleep(1)
    waiting.popen.send_signal(signal.SIGINT)
    code, err = waiting.end()
    assert code == -signal.SIGINT
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    other.tell("gather")
    code, err = other.end()
    assert code == 1
    assert len(err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shown", "more", "own"),
    [
        (("0,1", "0,1"), {}, ("0", "1")),
        (("0", "0"), {}, ("all", "all")),  # As SLURM shows each task the GPU that is bound to it.
        (("0,1", "2,3"), {}, ("all", "all")),
        (("0,1", "0,1"), {"SLURM_GPUS_PER_TASK": "2"}, ("all", "all")),
    ],
    ids=["one of the host's", "bound", "bound by several", "bound by several, each counted from 0"],
)
def test_a_cluster_tells_who_is_who_and_whose_each_accelerator_is(start, shown, more, own):
    """SLURM's variables for two tasks of a node. JAX derives the port from the number of the job."""
    low, high = 2**16 - 2**12, 2**16 - 1
    job = {"SLURM_JOB_ID": str(free_port(low, high) - low), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [
        start(**job, **more, SLURM_PROCID=str(index), SLURM_LOCALID=str(index), CUDA_VISIBLE_DEVICES=shown[index])
        for index in range(2)
    ]
    assert [task.heard() for task in tasks] == [["met", "0", "2", own[0]], ["met", "1", "2", own[1]]]
    for task in tasks:
        task.tell("gather")
    assert [task.heard() for task in tasks] == [["0", "1"], ["0", "1"]]
    assert ends(tasks) == [(0, ""), (0, "")]
