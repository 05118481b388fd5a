"""A clock for tests: nobody waits, and time passes when a test says so."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

from riverrun._timers import Clock, Timers

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeClock(Clock):
    """Stands in for real time where Riverrun waits, in this process: the value of the fixture `fake_clock`.

    A delay before a retry ends at once, and is noted in `delays`. Time limits go by `advance()`, and by real time for
    code that hangs; the age of cached values goes by `advance()` and the delays.

    Attributes:
        delays: the delays, in seconds, in the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._start = time.time()
        self._advanced = 0.0
        self._limits: list[tuple[float, int, _FakeTimers, Callable[[], object]]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        # Who lets time pass in another thread meanwhile comes back when those who overran their limits know it: it may
        # be one of them, and would end as if it had not. The functions may let time pass, too.
        self._passing = threading.RLock()

    def advance(self, seconds: float) -> None:
        """Let time pass: runs that overran their time limit by then are `TimedOut`, cached values are older.

        Called in the function of a task or flow, it stands for what would take so long there.

        Args:
            seconds: how much.

        Raises:
            ValueError: it is negative.
        """
        if seconds < 0:
            msg = f"Time cannot go back: advance({seconds!r})."
            raise ValueError(msg)
        with self._passing:
            with self._lock:
                self._advanced += seconds
                due = []
                while self._limits and self._limits[0][0] <= self._advanced:
                    due.append(heapq.heappop(self._limits)[3])
            for function in due:
                function()

    def time(self) -> float:
        """Give the seconds since the epoch, as far as tests know."""
        with self._lock:
            return self._start + self._advanced + sum(self.delays)

    def sleep(self, seconds: float) -> None:
        """Note a delay."""
        self._note(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Note a delay, and let other coroutines run."""
        self._note(seconds)
        await super().sleep_async(0)

    def timers(self) -> Timers:
        """Make timers that go by this clock."""
        return _FakeTimers(self)

    def _note(self, seconds: float) -> None:
        with self._lock:
            self.delays.append(seconds)

    def _limit(self, timers: _FakeTimers, seconds: float, function: Callable[[], object]) -> None:
        with self._lock:
            heapq.heappush(self._limits, (self._advanced + seconds, next(self._order), timers, function))

    def _forget(self, timers: _FakeTimers) -> None:
        with self._lock:
            self._limits = [limit for limit in self._limits if limit[2] is not timers]
            heapq.heapify(self._limits)


class PassingClock(FakeClock):
    """A fake clock on which a delay before a retry passes, and not only ends: what is due by then is called."""

    def sleep(self, seconds: float) -> None:
        """Let a delay pass."""
        super().sleep(seconds)
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Let a delay pass."""
        await super().sleep_async(seconds)
        self.advance(seconds)


class _FakeTimers(Timers):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        self._clock._limit(self, seconds, function)  # noqa: SLF001 - two halves of one thing
        super().call_later(seconds, function)  # real time, for code that hangs; a run that has ended is not overrun

    def call_after_delay(self, seconds: float, function: Callable[[], object]) -> None:
        self._clock._note(seconds)  # noqa: SLF001
        super().call_later(0, function)

    def stop(self) -> None:
        self._clock._forget(self)  # noqa: SLF001
        super().stop()
