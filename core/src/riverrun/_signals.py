"""Signals that end the process while a flow runs: they become exceptions, so that all is stopped on the way out."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


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


class Signals:
    """What signals came while a flow ran."""

    noted: BaseException | None = None


@contextmanager
def signals_noted() -> Iterator[Signals]:
    """Raise `Terminated` at SIGTERM, and note an interrupt, in the main thread; handlers of the application's stay."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    import signal

    def terminate(*_: Any) -> None:
        signals.noted = Terminated()
        raise signals.noted

    at_interrupt: Any = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        signals.noted = KeyboardInterrupt()
        at_interrupt(number, frame)

    replaced: dict[int, Any] = {}
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        replaced[signal.SIGTERM] = signal.SIG_DFL
        signal.signal(signal.SIGTERM, terminate)
    if callable(at_interrupt) and at_interrupt is not signal.default_int_handler:  # an event loop's, say
        replaced[signal.SIGINT] = at_interrupt
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield signals
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
