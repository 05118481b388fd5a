"""Wait for many futures: `wait`, `as_completed`, `gather`."""

from __future__ import annotations

import threading
import time
from _queue import Empty, SimpleQueue  # noqa: PLC2701 - `queue` itself imports more
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from riverrun import _async, _inputs
from riverrun._context import current_scope
from riverrun._futures import TaskFuture, check_may_block
from riverrun._waits import Countdown, acquire
from riverrun.exceptions import ResultTimeout
from riverrun.states import Elsewhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

T = TypeVar("T")


class DoneAndNotDone(NamedTuple, Generic[T]):
    """What `wait()` gives: the futures that are final and those that are not, each in the order given."""

    done: list[TaskFuture[T]]
    not_done: list[TaskFuture[T]]


def wait(futures: Iterable[TaskFuture[T]], timeout: float | None = None) -> DoneAndNotDone[T]:
    """Wait until all of the futures are final, or the time is over.

    Args:
        futures: the futures, in any iterable.
        timeout: how long to wait, in seconds; None: as long as it takes.

    Returns:
        `(done, not_done)`, each in the order given.

    Raises:
        BlockingCallError: called on the thread of an async flow's loop; write `await riverrun.gather(futures)`.
    """
    futures = list(futures)
    pending = _pending(futures)
    if pending:
        check_may_block(pending[0], "riverrun.wait()", "await riverrun.gather(futures)")
        _block(pending, timeout)
    return DoneAndNotDone([f for f in futures if f.done()], [f for f in futures if not f.done()])


def _pending(futures: Iterable[TaskFuture[Any]]) -> list[TaskFuture[Any]]:
    return [future for future in futures if not future.done()]


def _block(futures: list[TaskFuture[Any]], timeout: float | None) -> None:
    if timeout is None:
        for future in futures:
            future.wait()
        return
    woken = threading.Lock()
    woken.acquire()
    forget = when_all_done(futures, woken.release)
    if not acquire(woken, max(timeout, 0)):
        forget()


def when_all_done(futures: list[TaskFuture[Any]], then: Callable[[], object]) -> Callable[[], None]:
    """Call `then` once all are final (at once if they are); give a function that forgets about it."""
    countdown = Countdown(len(futures) + 1)  # one more than there are: nobody is the last before all are registered

    def one_done(_: object) -> None:
        if countdown.is_over():
            then()

    def forget() -> None:
        for future in futures:
            future._remove_callback(one_done)  # noqa: SLF001

    for future in futures:
        if not future._add_callback(one_done):  # noqa: SLF001
            one_done(None)
    one_done(None)
    return forget


class as_completed(Generic[T]):  # noqa: N801 - reads like the function of that name in concurrent.futures
    """Give futures in the order in which they become final; for `for` and for `async for`.

    Args:
        futures: the futures, in any iterable.
        timeout: how long the whole iteration may take, in seconds; None: as long as it takes.

    Raises:
        ResultTimeout: (from the iteration) the time is over; the text says how many were not finished.
        BlockingCallError: `for` on the thread of an async flow's loop; write `async for`.

    Example:
        >>> from riverrun import as_completed, flow, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> @flow(task_runner="sequential")
        ... def doubles():
        ...     return sorted(future.result() for future in as_completed(double.map([1, 2, 3])))
        >>> doubles()
        [2, 4, 6]
    """

    def __init__(self, futures: Iterable[TaskFuture[T]], timeout: float | None = None) -> None:
        self._futures = list(futures)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _too_late(self, missing: int, total: int) -> ResultTimeout:
        return ResultTimeout(
            f"{missing} of {total} futures were not finished after {self._timeout} seconds. They go on."
        )

    def _hand_over(self) -> list[TaskFuture[T]]:
        """Give the futures, and keep none: what the caller drops is free, with its value."""
        futures, self._futures = self._futures, []
        futures.reverse()  # they are taken from the end, so that those already final come in the order given
        return futures

    def __iter__(self) -> Iterator[TaskFuture[T]]:
        futures = self._hand_over()
        for future in _pending(futures)[:1]:
            check_may_block(future, "for future in as_completed()", "async for future in as_completed()")
        total = missing = len(futures)
        finished: SimpleQueue[TaskFuture[T]] = SimpleQueue()
        while futures:
            _report(futures.pop(), finished.put)
        while missing:
            try:
                future = finished.get(timeout=self._left())
            except Empty:
                raise self._too_late(missing, total) from None
            missing -= 1
            yield future
            del future

    async def __aiter__(self) -> AsyncIterator[TaskFuture[T]]:
        import anyio

        futures = self._hand_over()
        total = missing = len(futures)
        finished: deque[TaskFuture[T]] = deque()
        loop = _async.current_loop()
        waiter = loop.waiter()

        def report(future: TaskFuture[T]) -> None:
            finished.append(future)
            waiter.wake()

        while futures:
            _report(futures.pop(), report)
        while missing:
            if not finished:
                with anyio.move_on_after(self._left()):
                    await waiter.wait()
                # Made anew before the look at what has come, so that nothing comes in between unseen.
                waiter = loop.waiter()
                if not finished and self._left() == 0:
                    raise self._too_late(missing, total)
                continue
            missing -= 1
            yield finished.popleft()


def _report(future: TaskFuture[T], report: Callable[[TaskFuture[T]], object]) -> None:
    """Call `report(future)` when the future is final."""
    if not future._add_callback(report):  # noqa: SLF001
        report(future)


def gather(nested: Any) -> Any:
    """Wait for every future inside, and give the same data with the results in their places.

    Args:
        nested: a future, or lists, tuples, sets, dicts, dataclasses, pydantic models with futures inside; an
            iterator is read to its end.

    Returns:
        The results; in an async flow something to await that gives them.

    Raises:
        Exception: the first failure, in the order in which the futures stand.

    Example:
        >>> from riverrun import flow, gather, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> @flow(task_runner="sequential")
        ... def doubles():
        ...     return gather({"one": double(1), "more": [double(2), double(3)]})
        >>> doubles()
        {'one': 2, 'more': [4, 6]}
    """
    if hasattr(nested, "__next__"):
        nested = list(nested)
    scope = current_scope.get()
    if scope is not None and scope.awaits and _async.running_library() is not None:
        return gather_async(nested)
    return _inputs.replace(nested, lambda future, may_fail: future.result(raise_on_failure=not may_fail))


async def gather_async(nested: Any) -> Any:
    """Do what `gather` does, without blocking the loop."""
    if type(nested) is list and all(type(part) is TaskFuture for part in nested):  # what most people gather
        await all_done(nested)
        return await result_of(lambda: [future.result() for future in nested], nested)
    futures = [future for future in _inputs.upstreams_in([nested]) if isinstance(future, TaskFuture)]
    await all_done(futures)

    def replaced() -> Any:
        return _inputs.replace(nested, lambda future, may_fail: future.result(raise_on_failure=not may_fail))

    return await result_of(replaced, futures)


async def result_of(function: Callable[[], T], futures: Iterable[TaskFuture[Any]]) -> T:
    """Call a function that asks final futures for their results: in a thread, if one of them has to be fetched."""
    if any(isinstance(future._value, Elsewhere) for future in futures):  # noqa: SLF001
        return await _async.in_thread(function)
    return function()


async def all_done(futures: list[TaskFuture[Any]]) -> None:
    """Wait until all are final.

    One after the other, not with a callback on each: after one of them the next ones are often final too, and then
    they cost nothing.
    """
    for future in futures:
        if not future.done():
            await future.finished()
