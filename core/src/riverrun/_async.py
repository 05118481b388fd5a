"""The one door between plain code and event loops, under asyncio and under trio.

The engine is plain code. It needs of a loop: start a coroutine on it, call a function on it from any thread, and
something to await that any thread can wake. Neither asyncio nor trio is imported before it is in use.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from riverrun._waits import LOOK_EVERY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from contextvars import Context

    import trio

T = TypeVar("T")


class Waiter(Protocol):
    """Something to await once, woken by `wake()` from any thread."""

    def wake(self) -> None:
        """End the wait; a second call does nothing."""
        ...

    def wait(self) -> Awaitable[Any]:
        """Give what to await."""
        ...


class Loop:
    """A running event loop, seen from plain code."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._inbox: deque[Callable[[], object]] = deque()
        self._awake = False

    def is_here(self) -> bool:
        """Say whether the calling thread is the loop's."""
        return threading.get_ident() == self._thread

    def call(self, function: Callable[[], object]) -> None:
        """Call a function on the loop's thread: at once from that thread, soon from any other."""
        if threading.get_ident() == self._thread:
            function()
            return
        self._inbox.append(function)
        # Waking a loop costs a system call, so many calls share one. The flag falls before the inbox is read, so that
        # what comes later wakes the loop again.
        if not self._awake:
            self._awake = True
            self._wake_loop()

    def _drain(self) -> None:
        self._awake = False
        while self._inbox:
            self._inbox.popleft()()

    def _wake_loop(self) -> None:
        raise NotImplementedError

    def start(self, function: Callable[[], Coroutine[Any, Any, object]], context: Context) -> Any:
        """Run a coroutine on the loop, in a context; it never raises. Call this on the loop's thread.

        Returns:
            What `stop` takes to cancel it; None where the coroutine has to see to that itself.
        """
        raise NotImplementedError

    def waiter(self) -> Waiter:
        """Make something to await on this loop."""
        raise NotImplementedError


class AsyncioLoop(Loop):
    """The running asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        super().__init__()
        self._loop = loop
        self._task_class = asyncio.Task

    def _wake_loop(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            self._inbox.clear()

    def start(self, function: Callable[[], Coroutine[Any, Any, object]], context: Context) -> asyncio.Task[object]:
        # Nothing is kept here, though asyncio itself keeps weak references only: the coroutine's submission is among
        # the live ones of its flow run, and has the task as its handle.
        if self._loop.get_task_factory() is None:  # what `create_task` does, without two more frames
            return self._task_class(function(), loop=self._loop, context=context)
        return self._loop.create_task(function(), context=context)

    def waiter(self) -> Waiter:
        return _AsyncioWaiter(self, self._loop)


class _AsyncioWaiter:
    def __init__(self, owner: AsyncioLoop, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._future: asyncio.Future[None] = loop.create_future()

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wake(self) -> None:
        self._owner.call(self._set)

    def wait(self) -> Awaitable[None]:
        return self._future


class TrioLoop(Loop):
    """The running trio loop. Coroutines need a nursery: `opened()` gives it one."""

    def __init__(self) -> None:
        super().__init__()
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self.nursery: trio.Nursery | None = None

    def _wake_loop(self) -> None:
        try:
            self._token.run_sync_soon(self._drain)
        except self._trio.RunFinishedError:
            self._inbox.clear()

    def start(self, function: Callable[[], Coroutine[Any, Any, object]], context: Context) -> None:
        assert self.nursery is not None, "a trio loop starts coroutines inside opened() only"  # noqa: S101 - a promise
        context.run(self.nursery.start_soon, function)

    def waiter(self) -> Waiter:
        return _TrioWaiter(self, self._trio.Event())


class _TrioWaiter:
    def __init__(self, owner: TrioLoop, event: trio.Event) -> None:
        self._owner = owner
        self._event = event

    def wake(self) -> None:
        self._owner.call(self._event.set)

    def wait(self) -> Awaitable[None]:
        return self._event.wait()


def running_library() -> str | None:
    """Say which event loop runs in this thread: `"asyncio"`, `"trio"` or None; import neither."""
    # A module that another thread is importing at this moment has no such function yet, and runs no loop here.
    asyncio_loop = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    if asyncio_loop is not None and asyncio_loop() is not None:
        return "asyncio"
    in_trio = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return "trio" if in_trio is not None and in_trio() else None


def current_loop() -> Loop:
    """Give the event loop that runs in this thread."""
    if running_library() == "trio":
        return TrioLoop()
    import asyncio

    return AsyncioLoop(asyncio.get_running_loop())


@asynccontextmanager
async def opened(loop: Loop) -> AsyncIterator[None]:
    """Keep a loop ready to start coroutines; under trio, leave when all of them have ended."""
    if not isinstance(loop, TrioLoop):
        yield
        return
    import trio

    async with trio.open_nursery() as nursery:
        loop.nursery = nursery
        try:
            yield
        finally:
            loop.nursery = None


@contextmanager
def looking_for_signals() -> Iterator[None]:
    """Let asyncio's loop in the main thread miss no signal: it waits in slices, as `_waits` does. Trio sees to it."""
    if threading.current_thread() is not threading.main_thread() or running_library() != "asyncio":
        yield
        return
    import asyncio

    loop = asyncio.get_running_loop()
    next_look: list[asyncio.TimerHandle] = []

    def look() -> None:
        next_look[:] = [loop.call_later(LOOK_EVERY, look)]

    look()
    try:
        yield
    finally:
        next_look[0].cancel()


def forget_library() -> None:
    """Take from the present context what sniffio noted of the loop it was copied from: another one begins here."""
    # Another thread may be importing it at this moment: then this context has nothing of it.
    library = getattr(sys.modules.get("sniffio"), "current_async_library_cvar", None)
    if library is not None and library.get() is not None:
        library.set(None)


def run_to_end(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end from plain code: on a new loop in this thread, or in another if one runs here."""
    import anyio

    context = copy_context()
    context.run(forget_library)
    if running_library() is None:
        return context.run(anyio.run, function)
    return _in_thread(context, lambda: anyio.run(function))


def _in_thread(context: Context, function: Callable[[], T]) -> T:
    result: list[T] = []
    error: list[BaseException] = []

    def body() -> None:
        try:
            result.append(context.run(function))
        except BaseException as exception:  # noqa: BLE001 - handed to the caller's thread, whatever it is
            error.append(exception)

    thread = threading.Thread(target=body, name="riverrun-nested-loop", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_EVERY)
    if error:
        raise error[0]
    return result[0]


def asyncio_task() -> Any:
    """Give the asyncio task that runs now; None under trio."""
    try:
        return sys.modules["asyncio"].current_task()
    except (KeyError, AttributeError, RuntimeError):  # not imported, just being imported elsewhere, not running here
        return None


class TaskCancellation:
    """What stops one asyncio task, from any thread."""

    __slots__ = ("_task",)
    withdraws = False

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def cancel(self) -> bool:
        """Cancel it soon; false if its loop is closed."""
        try:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        except RuntimeError:
            return False
        return True

    def is_running(self) -> bool:
        """Say that it has begun: it is made when that is so."""
        return True


class TrioCancellation:
    """What stops one coroutine under trio, from any thread: a cancel scope around what it awaits."""

    withdraws = False

    def __init__(self) -> None:
        import trio

        self.scope = trio.CancelScope()
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()

    def cancel(self) -> bool:
        """Cancel it soon; false if trio's run is over."""
        try:
            self._token.run_sync_soon(self.scope.cancel)
        except self._trio.RunFinishedError:
            return False
        return True

    def is_running(self) -> bool:
        """Say that it has begun: it is made when that is so."""
        return True


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function that blocks, without holding up the loop."""
    import anyio

    return await anyio.to_thread.run_sync(function)
