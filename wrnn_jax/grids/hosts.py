"""Several processes, on one host or more: they meet, find out whether they agree, and tell each other numbers.

Each trains on its own devices, as if it were alone: JAX's runtime for several processes is in a process beside it
(:mod:`wrnn_jax.grids.messenger` says why).
"""

import contextlib
import dataclasses
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from wrnn_jax.grids.messenger import HostsError, Messenger
from wrnn_jax.training.lock import locked
from wrnn_jax.validation import InvalidValue, require, require_integer, require_positive

__all__ = ["ALONE", "Hosts", "HostsError", "connect"]

MEETING_SECONDS = 300.0
"""Long, since clusters do not start all processes at once."""
CLUSTERS = "SLURM, Open MPI, Kubernetes, Cloud TPU"


@dataclasses.dataclass(frozen=True)
class Hosts:
    """This process, number ``index`` of ``count``, and a line to the others.

    As a context manager it closes at the end; after an exception at once, so that the others find out.
    """

    index: int = 0
    count: int = 1
    messenger: Messenger | None = None

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The values of every process, to the bit. It waits for the slowest of them, however long that takes.

        All processes call it equally often, with the same shape and dtype.

        Args:
          values: ``(*shape)``, numbers of any dtype.

        Returns:
          ``(count, *shape)``: row i is that of process i.

        Raises:
          HostsError: if another process is gone. One that ended or was killed is missed at once; one whose host
            is switched off or cut off, after the 100 s in which JAX expects a sign of life.
        """
        values = np.asarray(values)
        return values[None] if self.messenger is None else self.messenger.gather(values)

    def agree(self, text: str, about: str) -> None:
        """Return if the text is the same in every process; all call it, as :meth:`gather`.

        Raises:
          InvalidValue: in every process, if it is not; its field is ``about``, its value the first line that differs,
            or None if that is missing.
          HostsError: as :meth:`gather`.
        """
        encoded = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        sizes = self.gather(np.int64(encoded.size))
        rows = self.gather(np.pad(encoded, (0, sizes.max() - encoded.size)))
        texts = (row[:size].tobytes() for row, size in zip(rows, sizes, strict=True))
        first, *others = (text.decode("utf-8", "surrogateescape") for text in texts)
        if any(other != first for other in others):
            # The first to leave takes the line with it: by then all have to know what the others have.
            with contextlib.suppress(HostsError):
                self.gather(np.int64(0))
        for process, other in enumerate(others, start=1):
            for expected, found in itertools.zip_longest(first.split("\n"), other.split("\n"), fillvalue=None):
                if found != expected:
                    raise InvalidValue(about, found, f"{expected!r} in process {process}, as it is in process 0")

    @contextlib.contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """Within it the folder is these processes' alone, see :func:`wrnn_jax.training.lock.locked`; all call it.

        Raises:
          InvalidValue: in every process, if another job is at work there.
          HostsError: as :meth:`gather`.
        """
        with contextlib.ExitStack() as lock:
            refused = None
            if not self.index:
                try:
                    lock.enter_context(locked(folder))
                except InvalidValue as error:
                    refused = error
            if self.gather(np.bool_(refused is not None))[0]:
                # The first to leave takes the line with it: by then all have to know.
                with contextlib.suppress(HostsError):
                    self.gather(np.int64(0))
                raise refused or InvalidValue("logdir", str(folder), "a folder that process 0 can have for itself")
            if self.index:
                lock.enter_context(locked(folder, joining=True))
            yield

    def close(self) -> None:
        """Part from the others, waiting some seconds for those that are not done; raises nothing."""
        if self.messenger is not None:
            self.messenger.dismiss()

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self.messenger is not None:
            self.messenger.stop()


ALONE = Hosts()
"""The only process there is: nothing is started, and every answer is its own."""


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = MEETING_SECONDS,
) -> Hosts:
    """Meet the other processes, by ``jax.distributed.initialize``; to be called before a device is used.

    The first three arguments are all given, or none: then the cluster tells them (SLURM, Open MPI, Kubernetes,
    Cloud TPU). Under SLURM and Open MPI each process of a host gets one of its accelerators, as JAX has it, or all that
    it is shown, where each is shown its own (as by ``--gpus-per-task``) or there are fewer than processes; the
    environment variable JAX_LOCAL_DEVICE_IDS gives it others. A host's name must lead the others to it: gloo uses it.

    Args:
      coordinator: ``host:port`` of process 0, which listens there; the same in all.
      num_processes: how many there are; the same in all.
      process_id: which one this is, from 0 on.
      timeout: seconds in which all have to come.

    Raises:
      InvalidValue: if an argument is wrong or missing, or the port is taken.
      HostsError: if they did not all come in time.
    """
    require_positive("timeout", timeout)
    is_given = _check(coordinator, num_processes, process_id)
    messenger = Messenger(coordinator, num_processes, process_id, timeout)
    try:
        met = messenger.meet(timeout)
        if met is None:
            allowed = f"host:port, with num_processes and process_id, where no cluster tells them ({CLUSTERS})"
            raise InvalidValue("coordinator", None, allowed)
        # JAX lets a process in that counts on more than process 0 does.
        require(num_processes in (None, met.count), "num_processes", num_processes, f"{met.count}, as for process 0")
    except HostsError as error:
        messenger.stop()
        where = f"{num_processes} processes at {coordinator}" if is_given else "the processes of the cluster"
        raise HostsError(
            f"{where} did not all meet within {timeout:g} s ({error}): is process 0 there, and were all started "
            "with the same num_processes, each with its own process_id?"
        ) from None
    except BaseException:
        messenger.stop()
        raise
    for name, devices in met.visible_devices.items():
        jax.config.update(name, devices)
    return Hosts(met.index, met.count, messenger)


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Whether the arguments of :func:`connect` are given; they are right, or none is.

    Raises:
      InvalidValue: if not.
    """
    arguments = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in arguments.items() if value is None]
    if len(missing) == len(arguments):
        return False
    if missing:
        raise InvalidValue(missing[0], None, f"given: {', '.join(arguments)} come together, or none of them")
    host, _, port = str(coordinator).rpartition(":")
    is_address = bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16
    require(is_address, "coordinator", coordinator, "host:port, the address of process 0")
    require_integer("num_processes", num_processes, at_least=1)
    require_integer("process_id", process_id, at_least=0)
    require(process_id < num_processes, "process_id", process_id, f"less than num_processes = {num_processes}")
    is_possible = process_id > 0 or _is_free(int(port))
    require(is_possible, "coordinator", coordinator, "an address whose port is free: process 0 listens there")
    return True


def _is_free(port: int) -> bool:
    """Asked beforehand, since JAX ends in a segmentation fault at one that is not."""
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True
