"""Signals that end the process while a flow runs: they become exceptions, so that all is stopped on the way out."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

from riverrun import _waits


class Terminated(SystemExit):
    """SIGTERM, as an exception, so that everything is stopped on the way out; the exit status is 143."""

    is_termination = True

    def __init__(self) -> None:
        super().__init__(143)


@contextmanager
def interrupts_raised(home: Any) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block, whatever an event loop has planned for it; `home.interrupt` keeps it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import signal

    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or before is signal.default_int_handler:
        yield
        return

    def interrupt(*_: Any) -> None:
        home.interrupt = KeyboardInterrupt()
        raise home.interrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Handler:
    """A signal handler of ours, shared by all flow runs that are under way: the last of them takes it away."""

    def __init__(self, number: int, before: Any) -> None:
        self.number = number
        self.before = before
        self.users = 0
        self.noted: BaseException | None = None

    def __call__(self, number: int, frame: Any) -> None:
        if callable(self.before):
            # An event loop's: it turns the signal into a cancellation, and now we know of what.
            self.noted = KeyboardInterrupt()
            self.before(number, frame)
        else:
            self.noted = Terminated()
            if (loop := _loop_at_work(frame)) is None:
                raise self.noted
            loop.call_soon_threadsafe(_raise, self.noted)

    def remove(self) -> None:
        """Put back what was there before, unless somebody has put a handler of his own over this one."""
        import signal

        present: Any = signal.getsignal(self.number)
        if present is self:
            signal.signal(self.number, self.before)


def _loop_at_work(frame: Any) -> Any:
    """Give the event loop in whose own code a signal came; None if it came elsewhere.

    asyncio takes a callback from its queue, and then runs it. An exception in between loses the callback, and a task
    that was to go on there never ends, also if it is cancelled. An exception that a callback raises loses nothing.
    """
    if frame is None or frame.f_globals.get("__name__", "").partition(".")[0] != "asyncio":
        return None
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _raise(error: BaseException) -> None:
    raise error


class _Hook:
    """Takes the interrupts that Python would ignore, for all flow runs that are under way in the main thread."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.users = 0

    def __call__(self, unraisable: Any) -> None:
        is_interrupt = issubclass(unraisable.exc_type, (KeyboardInterrupt, Terminated))
        if is_interrupt and self.users and threading.current_thread() is threading.main_thread():
            _waits.ignored.append(unraisable.exc_value or unraisable.exc_type())
        else:
            self.before(unraisable)


_hook = _Hook(None)


def _add_hook() -> None:
    global _hook  # noqa: PLW0603 - Python has one such hook
    if not _hook.users:
        sys.unraisablehook = _hook = _Hook(sys.unraisablehook)
    _hook.users += 1


def _remove_hook() -> None:
    """Put back what was there before, unless somebody has set a hook of his own over this one."""
    _hook.users -= 1
    present: Any = sys.unraisablehook
    if not _hook.users and present is _hook:
        sys.unraisablehook = _hook.before


class Signals:
    """What signals came while a flow ran."""

    def __init__(self, handlers: list[_Handler]) -> None:
        self._handlers = handlers

    @property
    def noted(self) -> BaseException | None:
        """The exception that stands for the signal; None if there was none."""
        return next((handler.noted for handler in self._handlers if handler.noted is not None), None)


@contextmanager
def signals_noted() -> Iterator[Signals]:
    """Raise `Terminated` at SIGTERM, and note an interrupt, in the main thread; handlers of the application's stay."""
    handlers: list[_Handler] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        import signal

        _add_hook()

        terminate: Any = signal.getsignal(signal.SIGTERM)
        if terminate is signal.SIG_DFL:
            terminate = _Handler(signal.SIGTERM, terminate)
        interrupt: Any = signal.getsignal(signal.SIGINT)
        if callable(interrupt) and interrupt is not signal.default_int_handler and not isinstance(interrupt, _Handler):
            interrupt = _Handler(signal.SIGINT, interrupt)
        handlers = [handler for handler in (terminate, interrupt) if isinstance(handler, _Handler)]
        for handler in handlers:
            handler.users += 1
            signal.signal(handler.number, handler)
    try:
        yield Signals(handlers)
        if in_main_thread:
            _waits.raise_ignored()
    finally:
        if in_main_thread:
            _remove_hook()
        for handler in handlers:
            handler.users -= 1
            if not handler.users:
                handler.remove()
