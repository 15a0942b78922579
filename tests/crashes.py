"""What a folder can hold after a crash: recorded at every file-system call of one run that nothing disturbs.

A process that is killed leaves what its calls so far have made. A machine that is lost may also lose whatever was not
synced: the bytes of a file since its own last ``fsync``, the names in a folder since the folder's.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import NamedTuple

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
FOLDER = None
"""Stands for a folder's bytes in a tree."""

_listening: list["Recording"] = []


def _hear(event, arguments):
    """Python tells it every call that opens or changes files, before it is made."""
    if _listening and (event in CHANGES or (event == "open" and _writes(*arguments))):
        _listening[-1].call()


def _writes(path, mode, flags):
    return bool(set(mode or "") & set("wax+") or (isinstance(flags, int) and flags & WRITING))


sys.addaudithook(_hear)  # For good: a hook cannot be taken away.


class Inode(NamedTuple):
    """A file's bytes, or the names in a folder and the numbers of what they name."""

    content: "bytes | dict[str, int]"


class Recording:
    """The trees, path -> bytes, that a crash at some call could leave below ``root``."""

    def __init__(self, root: Path):
        self.root, self.calls = root, 0
        self._lock = threading.Lock()  # Orbax has threads of its own.
        self.states: dict[frozenset, None] = {}
        self._pins: dict[int, int] = {}
        self._folders: set[int] = set()
        self._now: dict[int, Inode] = {}
        self._durable: dict[int, Inode] = {}
        self._top = self._look(root)
        self._durable = dict(self._now)

    @contextlib.contextmanager
    def __call__(self):
        """Within it all calls of this process are heard."""
        fsync = os.fsync

        def synced(descriptor):
            self.call()
            fsync(descriptor)
            number = os.fstat(descriptor).st_ino
            with self._lock:
                if number in self._now:
                    self._durable[number] = self._now[number]

        _listening.append(self)
        os.fsync = synced
        try:
            yield self
            self.call()
        finally:
            os.fsync = fsync
            _listening.pop()
            for pin in self._pins.values():
                os.close(pin)

    def call(self):
        """A call is about to be made: what a crash would leave now."""
        with self._lock:
            self._see()

    def _see(self):
        self.calls += 1
        before = self._now
        self._now = {}
        self._top = self._look(self.root)
        now, durable = self._now, self._durable
        if now != before:
            # A write is seen once it is whole; it could also have been cut short.
            for number, inode in now.items():
                old = before.get(number, Inode(b""))
                if isinstance(inode.content, bytes) and isinstance(old.content, bytes) and inode != old:
                    half = len(old.content) + max(0, len(inode.content) - len(old.content)) // 2
                    for cut in {len(old.content), half}:
                        self._add(now, {**now, number: Inode(inode.content[:cut])})
        self._add(now, now)
        # The machine is lost, and with it all that was not synced; or only bytes, or only new names.
        self._add(durable, durable)
        self._add(now, durable)
        names = {}
        for number, inode in now.items():
            if isinstance(inode.content, dict):
                known = durable.get(number, Inode({})).content
                names[number] = Inode({k: v for k, v in inode.content.items() if known.get(k) == v})
        self._add(names, durable)

    def _look(self, path: Path) -> int:
        number = path.stat(follow_symlinks=False).st_ino
        if number not in self._pins:
            # As long as it is open its number is given to no other file.
            self._pins[number] = os.open(path, os.O_RDONLY)
        if path.is_dir():
            self._folders.add(number)
            names = {}
            for name in sorted(os.listdir(path)):
                with contextlib.suppress(FileNotFoundError):  # Threads below Python are at work as well.
                    names[name] = self._look(path / name)
            self._now[number] = Inode(names)
        else:
            self._now[number] = Inode(path.read_bytes())
        return number

    def _add(self, names: dict[int, Inode], contents: dict[int, Inode]) -> None:
        tree = {}

        def walk(number, path):
            if number not in self._folders:
                tree[path] = contents.get(number, Inode(b"")).content
                return
            # One that was never synced is there, once its name is, but empty.
            tree[path] = FOLDER
            for name, inside in names.get(number, Inode({})).content.items():
                walk(inside, f"{path}/{name}")

        walk(self._top, ".")
        self.states.setdefault(frozenset(tree.items()))


def put(tree: frozenset, root: Path) -> None:
    """Make the folder that a crash left."""
    for path, content in sorted(tree, key=lambda item: item[0].split("/")):
        if content is FOLDER:
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(content)
