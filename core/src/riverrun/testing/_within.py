"""A time limit that fails a test, whatever hangs in it."""

from __future__ import annotations

import functools
import sys
import threading
import traceback
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and fail if it has not ended in time.

    Args:
        seconds: the time limit, in seconds.
        function: what to call; if it hangs, its thread is left behind.

    Returns:
        What the function returns.

    Raises:
        AssertionError: the time is over; the text says where the function was.
        BaseException: what the function raised.

    Example:
        >>> from riverrun.testing import within
        >>> within(5, lambda: 1 + 1)
        2
    """
    __tracebackhide__ = True
    result: list[T] = []
    raised: list[BaseException] = []
    context = copy_context()

    def body() -> None:
        try:
            result.append(context.run(function))
        except BaseException as error:  # noqa: BLE001 - also what pytest raises for a skip or a failure
            raised.append(error)

    thread = threading.Thread(target=body, name="riverrun-test", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        msg = f"It hangs: it had not ended after {seconds:g} seconds. It was here:\n{_stack_of(thread)}"
        raise AssertionError(msg)
    if raised:
        raise raised[0]
    return result[0]


def _stack_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented, despite its name
    return "".join(traceback.format_stack(frame)) if frame is not None else "(it has ended meanwhile)"


C = TypeVar("C", bound=type)


def limited(suite: C) -> C:
    """Give each test of a class the time limit that the class declares as `time_limit`."""
    for name, test in list(vars(suite).items()):
        if name.startswith("test_"):
            setattr(suite, name, _limited(test))
    return suite


def _limited(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)  # pytest finds the fixtures and marks of the test through this
    def in_time(self: Any, **fixtures: Any) -> None:
        __tracebackhide__ = True
        within(self.time_limit, lambda: test(self, **fixtures))

    return in_time
