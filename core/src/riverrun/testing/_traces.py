"""What a flow run may leave behind: threads, child processes, listening sockets."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
LISTENING: Final = "0A"
"""The code of the state in /proc/net/tcp."""
ZOMBIE: Final = "Z"


class Traces(NamedTuple):
    """What there is at one moment, each with the words for people."""

    things: dict[object, str]

    @classmethod
    def now(cls) -> Traces:
        """Look at this process, and at those below it."""
        threads: dict[object, str] = {thread: f"thread {thread.name!r}" for thread in threading.enumerate()}
        return cls({**threads, **_children(), **_listeners()})

    def left_since(self, seconds: float) -> list[str]:
        """Name what there is now and was not there then, after waiting for it to go.

        Args:
            seconds: how long to wait at most; a thread or a process that has been stopped takes a moment to be gone.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = [words for thing, words in Traces.now().things.items() if thing not in self.things]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.01)


def _children() -> dict[object, str]:
    """Find the processes below this one; without /proc, those that multiprocessing has started."""
    if not (PROC / "self" / "stat").exists():
        return {child.pid: f"process {child.name!r}" for child in active_children()}
    processes = dict(_stat(entry) for entry in PROC.iterdir() if entry.name.isdigit())
    below, children = {os.getpid()}, {}
    found = True
    while found:
        found = False
        for pid, (name, state, parent, started) in processes.items():
            if parent in below and pid not in below and state != ZOMBIE:
                below.add(pid)
                children[pid, started] = f"process {pid} ({name})"
                found = True
    return dict(children)


def _stat(process: Path) -> tuple[int, tuple[str, str, int, str]]:
    """Read the name, the state, the parent and the start time of a process."""
    try:
        head, _, tail = (process / "stat").read_text("utf-8", "replace").rpartition(")")
    except OSError:  # it has ended
        return 0, ("", ZOMBIE, 0, "")
    fields = tail.split()
    return int(process.name), (head.partition("(")[2], fields[0], int(fields[1]), fields[19])


def _listeners() -> dict[object, str]:
    """Find the sockets of this process that listen; without /proc, none."""
    inodes = set()
    for descriptor in (PROC / "self" / "fd").glob("*"):
        with suppress(OSError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    sockets: dict[object, str] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "self" / "net" / table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[9] in inodes:
                    port = int(fields[1].rpartition(":")[2], 16)
                    sockets["socket", fields[9]] = f"socket that listens on port {port}"
    return sockets
