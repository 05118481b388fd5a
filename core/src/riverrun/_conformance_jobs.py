"""The tasks that the conformance suite in `riverrun.testing` runs.

They are functions of a module, so that they travel to a worker by their name; not of one in `riverrun.testing`, so that
no worker has to import pytest. Where they have to tell something across processes, they do so through files: a file
that is there is an event, so many of them are a barrier.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from riverrun import get_run_logger, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE: Final = 60.0
"""How long a task waits for others, in seconds, before it gives up: so it ends, even if its runner is broken.

That is longer than the suite waits for one thing: a task that is held does not end before the check that holds it.
"""
STEP: Final = 0.005
TOO_LATE: Final = "too-late"
"""The name of the file by which a task that gave up waiting for others says so to them."""

flavour: ContextVar[str] = ContextVar("flavour", default="none")


@contextmanager
def flavoured(value: str) -> Iterator[None]:
    """Set the context variable around a block."""
    token = flavour.set(value)
    try:
        yield
    finally:
        flavour.reset(token)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait for something that makes no event; false if the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(STEP)
    return True


async def wait_until_async(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Do the same on a loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await anyio.sleep(STEP)
    return True


@task
def add(x: Any, y: Any) -> Any:
    """Add."""
    return x + y


@task
async def add_async(x: Any, y: Any) -> Any:
    """Add, after a turn of the loop."""
    await anyio.lowlevel.checkpoint()
    return x + y


@task
def same(value: Any) -> Any:
    """Return the argument."""
    return value


@task
def type_name(value: Any) -> str:
    """Give the name of the type of the argument."""
    return type(value).__name__


@task
def total(values: Any) -> Any:
    """Sum."""
    return sum(values)


@task
def fail(text: str = "no") -> Any:
    """Raise."""
    raise ValueError(text)


@task
async def fail_async(text: str = "no") -> Any:
    """Raise, after a turn of the loop."""
    await anyio.lowlevel.checkpoint()
    raise ValueError(text)


@task
def note(file: Path, text: str) -> None:
    """Add a line to a file."""
    _append(file, text)


@task
async def note_async(file: Path, text: str) -> None:
    """Add a line to a file, with a turn of the loop before it."""
    await anyio.lowlevel.checkpoint()
    _append(file, text)


def _append(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


@task
def fail_when_released(release: Path) -> Any:
    """Raise when it is released."""
    wait_until(release.exists)
    msg = "no disk"
    raise ValueError(msg)


@task
def note_arguments(file: Path, *arguments: Any) -> None:
    """Add a line to a file, which says of what types the arguments are."""
    _append(file, " ".join(type(argument).__name__ for argument in arguments))


class SlowToPickle:
    """Bytes that take their time to be pickled; on a worker they are plain bytes.

    Args:
        size: how many.
        meanwhile: what happens while they are pickled.
    """

    def __init__(self, size: int, meanwhile: Callable[[], object]) -> None:
        self.nbytes = size  # as arrays say it
        self._meanwhile = meanwhile

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        self._meanwhile()
        return bytes, (bytes(self.nbytes),)


@task
def leave_a_mark(folder: Path, name: str, _: Any = None) -> None:
    """Make a new file in a folder, each time it runs."""
    (folder / f"{name}-{uuid.uuid4().hex}").touch()


@task
def meet(folder: Path, name: str, count: int, seconds: float) -> bool:
    """Wait for others: whether they came. Once one of them has given up, no other waits."""
    (folder / name).touch()
    return _met(folder, came=wait_until(lambda: _enough(folder, count), seconds))


@task
async def meet_async(folder: Path, name: str, count: int, seconds: float) -> bool:
    """Do the same on a loop."""
    _append(folder / name, "here")
    return _met(folder, came=await wait_until_async(lambda: _enough(folder, count), seconds))


def _enough(folder: Path, count: int) -> bool:
    return len(list(folder.iterdir())) >= count or (folder / TOO_LATE).exists()


def _met(folder: Path, *, came: bool) -> bool:
    if not came:
        (folder / TOO_LATE).touch()
    return not (folder / TOO_LATE).exists()


@task
def look(folder: Path) -> list[str]:
    """Give the names of the files in a folder."""
    return sorted(file.name for file in folder.iterdir())


@task
def hold(started: Path, release: Path, seconds: float = PATIENCE) -> str:
    """Say that it has started, then run on until it is released."""
    started.touch()
    if not wait_until(release.exists, seconds):
        msg = f"nobody made {release} in {seconds} seconds"
        raise TimeoutError(msg)
    return "released"


@task
async def hold_async(started: Path, release: Path | None = None, seconds: float = PATIENCE) -> str:
    """Do the same on a loop; without `release`, until it is cancelled."""
    _append(started, "here")
    if not await wait_until_async(lambda: release is not None and release.exists(), seconds):
        msg = f"nobody made {release} in {seconds} seconds"
        raise TimeoutError(msg)
    return "released"


@task
def where() -> tuple[int, int]:
    """Give the ids of the process and the thread."""
    return os.getpid(), threading.get_ident()


@task
async def where_async() -> tuple[int, int]:
    """Give the ids of the process and the thread."""
    return os.getpid(), threading.get_ident()


@task
def attempt(folder: Path, failures: int) -> int:
    """Fail so many times, then give the number of attempts."""
    number = _number_of_attempt(folder)
    if number <= failures:
        msg = f"attempt {number}"
        raise ConnectionError(msg)
    return number


@task
async def attempt_async(folder: Path, failures: int) -> int:
    """Fail so many times, then give the number of attempts."""
    number = _number_of_attempt(folder)
    if number <= failures:
        msg = f"attempt {number}"
        raise ConnectionError(msg)
    return number


@task
def held_attempt(folder: Path, release: Path) -> int:
    """Fail the first time, when it is released; the second time give the number of attempts."""
    number = _number_of_attempt(folder)
    if number == 1:
        wait_until(release.exists)
        msg = f"attempt {number}"
        raise ConnectionError(msg)
    return number


@task
async def held_attempt_async(folder: Path, release: Path) -> int:
    """Do the same on a loop."""
    number = _number_of_attempt(folder)
    if number == 1:
        await wait_until_async(release.exists)
        msg = f"attempt {number}"
        raise ConnectionError(msg)
    return number


def _number_of_attempt(folder: Path) -> int:
    (folder / uuid.uuid4().hex).touch()
    return len(list(folder.iterdir()))


@task
def taste() -> str:
    """Give the value of a context variable, and change it."""
    value = flavour.get()
    flavour.set("changed by a task")
    return value


@task
async def taste_async() -> str:
    """Give the value of a context variable, and change it."""
    value = flavour.get()
    flavour.set("changed by a task")
    return value


@task
def log(text: str) -> None:
    """Log a warning."""
    get_run_logger().warning(text)


@task
def log_and_fail(text: str) -> Any:
    """Log a warning, and raise."""
    get_run_logger().warning(text)
    msg = "and it failed"
    raise ValueError(msg)


@task
def say(text: str) -> None:
    """Print."""
    print(text)  # noqa: T201 - that is what is tested


@task
def add_inside(x: int, y: int) -> tuple[bool, int]:
    """Call a task: whether the future was finished at once, and its value."""
    future = add(x, y)
    return future.done(), future.result()


@task
def add_async_inside(x: int, y: int) -> tuple[bool, int]:
    """Call an async task."""
    future = add_async(x, y)
    return future.done(), future.result()


@task
def map_inside(numbers: list[int]) -> list[int]:
    """Map a task."""
    return add.map(numbers, 1).result()


@task
def fail_inside(text: str) -> Any:
    """Call a task that fails."""
    return fail(text).result()


@task
def raise_timeout_error() -> Any:
    """Raise the exception that many libraries raise for a time limit of theirs."""
    msg = "the server did not answer"
    raise TimeoutError(msg)


@task
def die() -> Any:
    """End the process it runs in, as a segmentation fault or the kernel would."""
    os._exit(9)
