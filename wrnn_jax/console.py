"""Everything that is said to the user, in one place: what cannot be said stops no training.

Standard output and error are the user's, and may go away while a run goes on: ``| head``, a full disk behind a log
file, a terminal that is closed. A stream that fails is not written to again, and nothing is raised.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

_lost: list[tuple[TextIO, OSError]] = []
"""Streams that have failed, and how."""


class Stream:
    """A stream as whoever writes to it would have it: it takes all, and raises nothing.

    Characters that its encoding lacks are written as "?".

    Args:
      find: the stream that is meant now, which may be another one later, as in a notebook; None if it is closed.
      title: its name in a message.
    """

    def __init__(self, find: Callable[[], TextIO | None], title: str):
        self._find, self._title = find, title

    @property
    def _stream(self) -> TextIO | None:
        return self._find()

    @property
    def error(self) -> OSError | None:
        """Why it cannot be written, or could not be once; None if all was written."""
        stream = self._stream
        if stream is None:
            return OSError(errno.EBADF, os.strerror(errno.EBADF))
        return next((error for failed, error in _lost if failed is stream), None)

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether somebody watches."""
        with contextlib.suppress(ValueError, AttributeError):
            return not self.error and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Raises ``OSError`` if it has none."""
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write as much as can be; raises nothing."""
        if not self.error:
            self._try(lambda: self._stream.write(self._encodable(text)))
        return len(text)

    def flush(self) -> None:
        """Raises nothing."""
        if not self.error:
            self._try(self._stream.flush)

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.encode(self.encoding, "replace").decode(self.encoding)
        return text

    def _try(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (RuntimeError, BlockingIOError):
            # A signal's handler may not write while the stream is being written; a pipe that takes nothing at once
            # takes what comes later.
            pass
        except (OSError, ValueError) as error:  # ValueError: it is closed.
            stream = self._stream
            error = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
            _lost.append((stream, error))
            # What it has not written yet would fail once more when Python ends, with a traceback and a code of its own.
            if stream in (sys.__stdout__, sys.__stderr__):
                with contextlib.suppress(OSError, ValueError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, stream.fileno())
                    os.close(nowhere)
            ERR.write(f"{self._title} cannot be written ({error.strerror}): nothing more is written there\n")
            ERR.flush()


OUT = Stream(lambda: sys.stdout, "standard output")
ERR = Stream(lambda: sys.stderr, "standard error")


def unfailing(stream: TextIO | None) -> Stream:
    """Standard output as it is now, for a library to print to."""
    return Stream(lambda: stream, "standard output")


def say(*lines: str) -> None:
    """To standard output, above the bars."""
    _write(OUT, lines)


def note(*lines: str) -> None:
    """To standard error, above the bars."""
    _write(ERR, lines)


def bar(**options: Any) -> tqdm:
    """A progress bar. Where nobody watches there is none: in a log file each refresh would be a line."""
    return tqdm(file=ERR, **{"disable": None, "dynamic_ncols": True, **options})


def _write(stream: Stream, lines: tuple[str, ...]) -> None:
    with tqdm.external_write_mode(file=ERR):
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
