"""What a flow run may leave behind: threads, child processes, listening sockets."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from riverrun.testing._within import still_running

if TYPE_CHECKING:
    from collections.abc import Callable

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
        return _left(
            lambda: [words for thing, words in Traces.now().things.items() if thing not in self.things], seconds
        )


def expect_nothing_left_since(before: Traces, seconds: float, text: str) -> None:
    """Expect that all that has come is gone again.

    A check that hung, and was given up, still has its flow: what that starts meanwhile is not to be told from what the
    flow run starts that is looked at, so nothing is said then.

    Args:
        before: what there was.
        seconds: how long to wait at most for the rest to go.
        text: what is wrong if something is left.
    """
    __tracebackhide__ = True
    left = before.left_since(seconds)
    if left and still_running():
        pytest.skip(f"not to be judged: a check before it hung, and what is left may be of its flow run: {left}")
    assert left == [], text


def left_of_group(group: int, seconds: float) -> list[str]:
    """Name the processes of a process group that have not ended, after waiting for them to go.

    Args:
        group: the id of the group.
        seconds: how long to wait at most.
    """
    return _left(lambda: of_group(group), seconds)


def _left(look: Callable[[], list[str]], seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := look()) and time.monotonic() <= deadline:
        time.sleep(0.01)
    return left


def of_group(group: int) -> list[str]:
    """Name the processes of a process group that have not ended.

    One that has ended and was not waited for counts as gone: where the first process of a container adopts it, and is
    no real init, it stays like that.

    Args:
        group: the id of the group.
    """
    if _has_proc():
        return [process.words for process in _processes() if process.group == group and process.state != ZOMBIE]
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    return [f"a process of group {group}"]


class _Process(NamedTuple):
    pid: int
    name: str
    state: str
    parent: int
    group: int
    started: str

    @property
    def words(self) -> str:
        return f"process {self.pid} ({self.name})"


def _has_proc() -> bool:
    return (PROC / "self" / "stat").exists()


def _children() -> dict[object, str]:
    """Find the processes below this one; without /proc, those that multiprocessing has started."""
    if not _has_proc():
        return {child.pid: f"process {child.name!r}" for child in active_children()}
    processes = _processes()
    below = {os.getpid()}
    children: dict[object, str] = {}
    found = True
    while found:
        found = False
        for process in processes:
            if process.parent in below and process.pid not in below and process.state != ZOMBIE:
                below.add(process.pid)
                children[process.pid, process.started] = process.words
                found = True
    return children


def _processes() -> list[_Process]:
    """Read /proc: all processes of this machine."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                head, _, tail = (entry / "stat").read_text("utf-8", "replace").rpartition(")")
                state, parent, group, *more = tail.split()
                name = head.partition("(")[2]
                found.append(_Process(int(entry.name), name, state, int(parent), int(group), started=more[16]))
    return found


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
