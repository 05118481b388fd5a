"""The tasks of simulated programs: what they do stands in their first argument, so that they run on any worker."""

from __future__ import annotations

import os
import threading
import time
import zlib
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from riverrun import task
from riverrun.states import Completed, Failed
from riverrun.testing._simulation._world import here

if TYPE_CHECKING:
    from collections.abc import Iterator

PADDING: Final = "." * 300
"""Makes a value so large that it stays on a worker of the simulation."""


@dataclass(frozen=True)
class Box:
    """A dataclass that may have a future inside."""

    content: Any


class SlowArgument:
    """Says that it is large, and takes its time to be pickled: much may happen meanwhile."""

    nbytes = 1_000_001

    def __reduce__(self) -> Any:
        world = here()
        if world is not None and world.failed is None:
            world.note("pickles a slow argument")
            world.reached("pickling")
            world.sleep(world.random.choice([0.0, 0.1, 3.0]))
        return SlowArgument, ()


@dataclass(frozen=True)
class Body:
    """What the function of a task does.

    Attributes:
        label: which one it is.
        fails: how many attempts raise, before one does not.
        takes: how long one takes, in seconds.
        ends: with a `value`, a `list`, a State that is `completed` or `failed`.
        length: of the list.
        large: whether the value stays on its worker.
        nested: whether it calls another task.
        folder: where executions are noted, when the workers are real; else empty.
    """

    label: str
    fails: int = 0
    takes: float = 0.0
    ends: str = "value"
    length: int = 0
    large: bool = False
    nested: bool = False
    folder: str = ""

    def packed(self) -> str:
        """Give it as a text, which is an argument that travels fast."""
        flags = f"{int(self.large)}{int(self.nested)}"
        return "|".join([self.label, str(self.fails), str(self.takes), self.ends, str(self.length), flags, self.folder])

    @classmethod
    def unpacked(cls, text: str) -> Body:
        """Make it again."""
        label, fails, takes, ends, length, flags, folder = text.split("|", 6)
        return cls(label, int(fails), float(takes), ends, int(length), flags[0] == "1", flags[1] == "1", folder)

    def value(self, seen: str) -> Any:
        """Give the value for arguments that were described so."""
        # Real clusters bring values of up to some thousand bytes home with the outcome.
        padding = (PADDING * 100 if self.folder else PADDING) if self.large else ""
        digest = f"{zlib.crc32(seen.encode()):08x}"
        if self.ends == "list":
            return [f"{self.label}.{index}:{digest}{padding}" for index in range(self.length)]
        return f"{self.label}:{digest}{padding}"


def described(value: Any) -> str:
    """Describe an argument: its value, and the kinds of the containers around it."""
    if isinstance(value, BaseException):
        return "!"
    if isinstance(value, Box):
        return f"Box({described(value.content)})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({','.join([described(part) for part in value])})"
    if isinstance(value, dict):
        return f"dict({','.join([f'{key}={described(part)}' for key, part in value.items()])})"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return value if isinstance(value, str) else f"<{type(value).__name__}>"


class _Here(threading.local):
    attempt: Any = None


_here = _Here()
_in_context: ContextVar[Any] = ContextVar("riverrun_simulated_attempt", default=None)


@contextmanager
def executing(attempt: Any) -> Iterator[None]:
    """Let a body know which attempt it belongs to: by its thread, or the context that a thread has copied."""
    token = _in_context.set(attempt)
    _here.attempt = attempt
    try:
        yield
    finally:
        _here.attempt = None
        _in_context.reset(token)


def _file(folder: str, label: str, seen: str) -> str:
    return f"{folder}/{zlib.crc32(f'{label} {seen}'.encode()):08x}"


def executions(folder: str, label: str, seen: str) -> int:
    """Say how often a body was executed with certain arguments, where workers are real."""
    try:
        return os.stat(_file(folder, label, seen)).st_size
    except FileNotFoundError:
        return 0


def _begin(body: Body, seen: str) -> int:
    """Note an execution; say which it is, from 1."""
    world = here()
    if world is None:
        if not body.folder:
            return 1
        with open(_file(body.folder, body.label, seen), "a+b") as file:
            file.write(b".")
            file.flush()
            return file.tell()
    attempt = _here.attempt or _in_context.get()
    attempt.seen.append(seen)
    return int(world.simulated.journal.executed(attempt.name))


def _end(body: Body, seen: str, execution: int) -> Any:
    if execution <= body.fails:
        raise ValueError(f"{body.label} fails in execution {execution}")
    value = body.value(seen)
    if body.ends == "completed":
        return Completed(data=value)
    if body.ends == "failed":
        return Failed("by hand")
    return value


@task
def perform(what: str, *values: Any, **named: Any) -> Any:
    """Do what a step of a program says."""
    body = Body.unpacked(what)
    seen = described([*values, *named.values()])
    execution = _begin(body, seen)
    if body.takes:
        _take(body.takes)
    if body.nested:
        inner = echo(body.label).result()
        if inner != body.label:
            raise AssertionError(f"a nested task gave {inner!r}")
    return _end(body, seen, execution)


@task
async def perform_async(what: str, *values: Any, **named: Any) -> Any:
    """Do what a step of a program says, in a coroutine."""
    body = Body.unpacked(what)
    seen = described([*values, *named.values()])
    return _end(body, seen, _begin(body, seen))


@task
def echo(text: str) -> str:
    """Give the argument: for hooks, callbacks and other tasks."""
    return text


def _take(seconds: float) -> None:
    world = here()
    if world is None:
        time.sleep(seconds)
    else:
        world.sleep(seconds)
