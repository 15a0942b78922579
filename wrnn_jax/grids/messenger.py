"""The messenger: a process beside the training process that keeps in touch with those of the other processes.

It runs JAX's runtime for several processes: ``jax.distributed``, and gloo to carry the data. That does not run in the
training process for two reasons:

- Its client ends the process that it lives in, by SIGABRT after a stack trace, when process 0 is lost, when not all
  come in time, or when two claim the same number. A messenger may end so: the user is told in one line.
- With it, JAX counts the devices of all processes. Orbax then writes NumPy arrays in process 0 alone, and asks
  process 0 at each checkpoint. Training on devices of one's own needs none of that.
"""

import contextlib
import hashlib
import math
import multiprocessing
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Connection
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from wrnn_jax.training.signals import STOPPING

FAREWELL_SECONDS = 10
"""How long one that is done waits for the others."""
PATIENCE_SECONDS = 86_400
"""How long a process may keep the others waiting while it is alive: it may have much to compile or to prepare."""
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "XLA_FLAGS": f"--xla_cpu_collective_timeout_seconds={PATIENCE_SECONDS}",
}
"""Instead of what the user has set for the training process and its devices."""


SHOWN = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""By what the processes of a host are shown some of its accelerators, which they then count from 0 on."""


class HostsError(RuntimeError):
    """The processes did not meet, or one of them is gone."""


class Met(NamedTuple):
    """The first message: all processes are there."""

    index: int
    count: int
    visible_devices: dict[str, str]
    """Settings of JAX: which accelerators of the host are for this process."""


class Messenger:
    """The messenger, as the training process sees it."""

    def __init__(self, coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float):
        """Start it; the arguments are those of :func:`wrnn_jax.grids.hosts.connect`."""
        self._connection, theirs = multiprocessing.Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the messenger lives)
        task = (theirs.fileno(), coordinator, num_processes, process_id, timeout)
        code = f"import sys; sys.path[:] = {sys.path}; from wrnn_jax.grids import messenger; messenger.run{task}"
        # gRPC would look for the other processes behind a proxy.
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        # A cluster sends signals to every process of a job; the training process then saves its work, and still needs
        # this one. So they are blocked where it begins, and stay so in it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=kept | ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C and Ctrl-Z are for the training process to answer.
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def meet(self, timeout: float) -> Met | None:
        """Wait until all processes are there; None if there is no cluster that would tell of them.

        Raises:
          HostsError: if they are not there in time, with the reason.
        """
        if not self._connection.poll(timeout):
            raise HostsError("no answer")
        return self._reply()

    def gather(self, values: np.ndarray) -> np.ndarray:
        """As :meth:`wrnn_jax.grids.hosts.Hosts.gather`."""
        try:
            with contextlib.suppress(BrokenPipeError):  # If it has ended, it may still have said why.
                self._connection.send(values)
            return self._reply()
        except HostsError as error:
            raise HostsError(f"lost touch with another process ({error})") from None

    def dismiss(self) -> None:
        """Stop it once all other messengers are dismissed too, so that none is cut off in the middle of a message."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._connection.send(None)
            self._process.wait(FAREWELL_SECONDS + 5)
        self.stop()

    def stop(self) -> None:
        """Stop it at once."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._log.close()

    def _reply(self) -> Met | np.ndarray | None:
        try:
            reply = self._connection.recv()
        except (EOFError, OSError):
            raise HostsError(self._last_words()) from None
        if isinstance(reply, str):
            raise HostsError(reply)
        return reply

    def _last_words(self) -> str:
        """Of a messenger that was ended by JAX."""
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        statuses = [line.partition("absl::Status: ")[2] for line in lines if "absl::Status: " in line]
        return _reason(statuses[-1] if statuses else f"its messenger ended with code {self._process.returncode}")


def run(pipe: int, coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float) -> None:
    """The messenger's program: meet the others, then gather what the training process sends, until it sends None or
    ends. Every answer is a :class:`Met`, None, an array, or a string: the reason why there is none.

    Args:
      pipe: file descriptor of the connection with the training process.
      coordinator, num_processes, process_id, timeout: as :func:`wrnn_jax.grids.hosts.connect`.
    """
    jax.config.update("jax_enable_preemption_service", False)  # It would answer SIGTERM.
    connection = Connection(pipe)
    requests: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    try:
        connection.send(_meet(coordinator, num_processes, process_id, timeout))
        while (values := requests.get()) is not None:
            connection.send(_all_gather(values))
        jax.distributed.shutdown()
    except Exception as error:  # JAX raises several kinds.
        connection.send(_reason(str(error)))
        os._exit(1)  # Else JAX, on its way out, would wait for those that are gone.


def _listen(connection: Connection, requests: queue.SimpleQueue) -> None:
    """Pass on what the training process sends; when that ends, end too, whatever the other thread is waiting for."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    os._exit(0)


def _meet(coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float) -> Met | None:
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=math.ceil(timeout),
            shutdown_timeout_seconds=FAREWELL_SECONDS,
        )
    except ValueError:  # Neither an argument nor a cluster has given a value.
        return None
    _all_gather(np.uint8(0))  # Connects the messengers with each other.
    settings = {name: value for name, value in jax.config.values.items() if name.endswith("_visible_devices")}
    own = {name: devices for name, devices in settings.items() if devices != "all"}
    return Met(jax.process_index(), jax.process_count(), {} if _are_bound(own) else own)


def _are_bound(own: dict[str, str]) -> bool:
    """Whether this process is shown no other accelerators than its own, or fewer than there are processes on the host,
    so that it is left all that it sees; ``own`` are those that JAX means for it, counted among the host's.

    All processes call it.
    """
    seen = {name: os.environ[name] for name in SHOWN if name in os.environ}
    digests = (hashlib.sha256(repr(about).encode()).digest() for about in (socket.gethostname(), seen))
    rows = _all_gather(np.frombuffer(b"".join(digests), np.uint8))
    hosts, shown = np.split(rows, 2, axis=1)
    neighbours = shown[(hosts == hosts[jax.process_index()]).all(axis=1)]
    counts = [len(devices.split(",")) for devices in seen.values()]
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:  # The user has said which.
        return False
    by_slurm = "SLURM_GPUS_PER_TASK" in os.environ or "gpu" in os.environ.get("SLURM_TRES_PER_TASK", "")
    each_its_own = (neighbours != neighbours[0]).any()
    too_few = any(count < len(neighbours) for count in counts)
    unseen = any(int(number) >= count for count in counts for numbers in own.values() for number in numbers.split(","))
    return bool(by_slurm or each_its_own or too_few or unseen)


def _all_gather(values: np.ndarray) -> np.ndarray:
    """``(count, *shape)``; sent as bytes, for JAX would make 64-bit numbers 32-bit ones."""
    rows = multihost_utils.process_allgather(np.frombuffer(values.tobytes(), np.uint8))
    return np.frombuffer(rows.tobytes(), values.dtype).reshape(len(rows), *values.shape)


def _reason(message: str) -> str:
    """The first line of what JAX says, without the place in its sources."""
    return re.sub(r"^.*\.cc:\d+\] ", "", message.strip().partition("\n")[0])[:200]
