"""The world of a simulation: threads of which one runs at a time, locks, time; a seed decides who goes on.

Simulated threads are real ones, so that each has a stack and thread-local data of its own, but they hand one baton
around: only who has it runs. It is handed on where a thread waits, where it takes a lock, at the engine's fault points
(`reached`) and where it calls the executor. So one seed is one interleaving, on every machine.

Nothing takes real time. When nobody can go on, time passes, to the next timer or the next end of a wait. If there is
none, nobody ever will: that is a hang, and known at once.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
import threading
import traceback
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from riverrun import _timers, _world
from riverrun.testing._simulation import _threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCH: Final = 1_700_000_000.0
MAX_STEPS: Final = 20_000
"""After so many hand-overs in one program something goes round in circles."""
STUCK_AFTER: Final = 20.0
"""Seconds of real time in which something must happen."""
MAX_SECONDS: Final = 3600.0
"""By then every program must have ended, in the time of the simulation."""


class Violation(BaseException):
    """Something happened that must not. It is no `Exception`, so that the engine does not make a state of it."""


class Fiber:
    """A simulated thread that waits for its turn."""

    __slots__ = ("attempt", "baton", "ident", "job", "name", "outcome", "thread", "until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ident = threading.get_ident()
        self.thread = threading.current_thread()
        self.baton = threading.Lock()
        self.baton.acquire()
        self.job: tuple[World, Callable[[], object]] | None = None
        self.attempt: Callable[[float], bool] | None = None
        self.until = float("inf")
        self.outcome = True


_idle: list[Fiber] = []
"""Threads that have nothing to do: worlds that follow each other use them again."""


def _thread_that_runs(name: str) -> Fiber:
    if _idle:
        fiber = _idle.pop()
        fiber.name = name
        return fiber
    fiber = Fiber(name)
    fiber.thread = threading.Thread(target=_serve, args=(fiber,), name="riverrun-simulated", daemon=True)
    fiber.thread.start()
    return fiber


def end_idle_threads() -> None:
    """End the threads that are kept for worlds to come."""
    while _idle:
        fiber = _idle.pop()
        fiber.job = None
        fiber.baton.release()
        fiber.thread.join()


def _serve(fiber: Fiber) -> None:
    fiber.ident = threading.get_ident()
    while True:
        fiber.baton.acquire()
        if fiber.job is None:
            return
        world, job = fiber.job
        fiber.job = None
        world.live(fiber, job)


class World:
    """What decides, from a seed, what happens next (`riverrun._world.World`).

    Args:
        seed: decides all.
        yields: how likely a thread is put to sleep where that is possible; by default the seed decides that, too.
    """

    def __init__(self, seed: int, yields: float | None = None) -> None:
        self.random = random.Random(seed)  # noqa: S311 - it draws lots
        chosen = self.random.choice([0.02, 0.1, 0.3])
        self.yields = chosen if yields is None else yields
        self.now = 0.0
        self.violations: list[str] = []
        self.history: deque[str] = deque(maxlen=1000)
        """What happened last, for people."""
        self.quiet = False
        """No thread is put to sleep any more, but by waiting."""
        self.failed: Violation | None = None
        self.steps = 0
        self.simulated: Any = None
        """What the executors of this world share."""
        self.simulation: Any = None
        """What its user has of it."""
        self.describe: Callable[[], str] = str
        """Says what is not final, where something hangs."""
        self._ready: list[tuple[str, Callable[[], object]]] = []
        self._later: list[tuple[float, int, str, Callable[[], object]]] = []
        self._order = itertools.count()
        self._parked: list[Fiber] = []
        self._main = self._running = Fiber("main")

    # -- what the engine calls

    def reached(self, point: str) -> None:
        """Let others go on, perhaps."""
        if self.quiet or self.failed is not None or self.random.random() >= self.yields:
            return
        self.note(f"sleeps at {point}")
        self._park(None, float("inf"))

    def wait(self, attempt: Callable[[float], bool], timeout: float = -1) -> bool:
        """Let others go on until `attempt(0)` is true, or the time is over."""
        if self.failed is not None:
            raise self.failed
        if attempt(0):
            return True
        if timeout == 0:
            return False
        return self._park(attempt, float("inf") if timeout < 0 else self.now + timeout)

    def start_thread(self, target: Callable[[], object], name: str) -> None:
        """Run a function beside the caller."""
        self.soon(target, name)

    # -- what else may be done in it

    def soon(self, function: Callable[[], object], name: str) -> None:
        """Call a function in a thread of its own."""
        self._ready.append((name, function))

    def later(self, seconds: float, function: Callable[[], object], name: str) -> None:
        """Call a function in a thread of its own, when so much time has passed."""
        heapq.heappush(self._later, (self.now + seconds, next(self._order), name, function))

    def sleep(self, seconds: float) -> None:
        """Let time pass for the calling thread."""
        if seconds > 0:
            self.wait(lambda _: False, seconds)

    def chance(self, probability: float) -> bool:
        """Draw a lot."""
        return self.random.random() < probability

    def note(self, text: str) -> None:
        """Keep what happened, for people."""
        self.history.append(f"{self.now:8.3f} {self._running.name}: {text}")

    def violate(self, text: str, *, fatal: bool = False) -> None:
        """Note that something happened which must not; a fatal one ends the program."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)
        if fatal and self.failed is None:
            self.failed = Violation(text)

    # -- handing over

    def live(self, me: Fiber, job: Callable[[], object]) -> None:
        """Be a thread, with one job after the other, until it is another one's turn."""
        while True:
            try:
                job()
            except Violation:
                pass
            except BaseException as error:  # noqa: BLE001 - nobody would see it
                place = "".join(traceback.format_tb(error.__traceback__)[-1:]).strip()
                if self.failed is None:
                    self.violate(f"thread `{me.name}` ended with {error!r} ({place})")
            following = self._choose()
            if isinstance(following, Fiber):
                _idle.append(me)
                self._hand_over(following)
                return
            me.name, job = following

    def _park(self, attempt: Callable[[float], bool] | None, until: float) -> bool:
        me = self._running
        me.attempt, me.until, me.outcome = attempt, until, True
        self._parked.append(me)
        following = self._choose()
        if following is not me:
            if not isinstance(following, Fiber):
                name, job = following
                following = _thread_that_runs(name)
                following.job = self, job
            self._hand_over(following)
            self._wait_for_turn(me)
        if self.failed is not None and attempt is not None:
            raise self.failed
        return me.outcome

    def _wait_for_turn(self, me: Fiber) -> None:
        if me is not self._main:
            me.baton.acquire()
            return
        try:
            self._wait_for_turn_in_main(me)
        except BaseException:  # a signal: the others unwind before this thread goes on
            if self.failed is None:
                self.violate("interrupted from outside", fatal=True)
            me.baton.acquire(blocking=self._running is not me)
            raise

    def _wait_for_turn_in_main(self, me: Fiber) -> None:
        steps = -1
        while not me.baton.acquire(timeout=STUCK_AFTER):
            if self.steps == steps:  # it waits for something real, a lock perhaps that a sleeping thread has
                msg = f"thread `{self._running.name}` is stuck outside of the simulation: {_stack_of(self._running)}"
                self.violate(msg, fatal=True)
                self._running = me  # nobody will hand over
                raise self.failed or Violation(msg)
            steps = self.steps

    def _hand_over(self, fiber: Fiber) -> None:
        self._running = fiber
        fiber.baton.release()

    def _choose(self) -> Fiber | tuple[str, Callable[[], object]]:
        self.steps += 1
        if self.steps > MAX_STEPS:
            self.violate(f"no end after {MAX_STEPS} steps", fatal=True)
        while self.failed is None:
            chosen = self._ready_one()
            if chosen is not None:
                return chosen
            if not self._let_time_pass() and self.failed is None:
                waiting = "".join(f"\n    {fiber.name}: {_stack_of(fiber)}" for fiber in self._parked)
                self.violate(f"hang: nothing is left to happen; {self.describe()}; these wait:{waiting}", fatal=True)
        return self._last_one()

    def _last_one(self) -> Fiber:
        """Wake all that still wait, for them to unwind; the main thread at last."""
        for fiber in self._parked:
            if fiber is not self._main:
                break
        else:
            fiber = self._main
        if fiber in self._parked:
            self._parked.remove(fiber)
        return fiber

    def _ready_one(self) -> Fiber | tuple[str, Callable[[], object]] | None:
        ready, parked = self._ready, self._parked
        candidates = list(range(len(ready) + len(parked)))
        while candidates:
            place = int(self.random.random() * len(candidates))
            index = candidates[place]
            if index < len(ready):
                return ready.pop(index)
            fiber = parked[index - len(ready)]
            in_time = fiber.attempt is None or fiber.attempt(0)
            if in_time or fiber.until <= self.now:
                fiber.outcome = in_time
                parked.remove(fiber)
                return fiber
            candidates[place] = candidates[-1]
            candidates.pop()
        return None

    def _let_time_pass(self) -> bool:
        ends = [fiber.until for fiber in self._parked]
        if self._later:
            ends.append(self._later[0][0])
        soonest = min(ends, default=float("inf"))
        if soonest == float("inf"):
            return False
        self.now = max(self.now, soonest)
        if self.now > MAX_SECONDS and self.failed is None:
            self.violate(f"no end after {MAX_SECONDS:.0f} simulated seconds", fatal=True)
        while self._later and self._later[0][0] <= self.now:
            _, _, name, function = heapq.heappop(self._later)
            self._ready.append((name, function))
        return True

    # -- being in it

    @contextmanager
    def entered(self) -> Iterator[World]:
        """Let this process be in the world: its threads, locks, waits and clock are simulated."""
        assert _world.world is None, "one simulation at a time"
        with _threads.replaced(self), _timers.replaced(SimulatedClock(self)):
            _world.world = self
            try:
                yield self
            finally:
                self._end()
                _world.world = None

    def _end(self) -> None:
        """Let all threads unwind that the program has left behind."""
        self.quiet = True
        self._ready.clear()
        self._later.clear()
        if self.failed is None:
            self.failed = Violation("the program is over")
        while self._parked:
            self._park(None, float("inf"))


def _stack_of(fiber: Fiber) -> str:
    """Say in which functions a thread waits, the innermost first."""
    names = []
    for frame, _ in traceback.walk_stack(sys._current_frames()[fiber.ident]):  # noqa: SLF001 - for people
        code = frame.f_code
        if "_simulation" not in code.co_filename and not code.co_filename.endswith("threading.py"):
            names.append(code.co_qualname)
    return " < ".join(names[:12])


class SimulatedClock(_timers.Clock):
    """Time as the world has it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        """Give the seconds since the epoch."""
        return EPOCH + self._world.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._world.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Let time pass; the loop has the thread meanwhile."""
        self._world.sleep(seconds)

    def timers(self) -> _timers.Timers:
        """Make timers that the world's time drives."""
        return SimulatedTimers(self._world)


class SimulatedTimers(_timers.Timers):
    """Functions that are called one after the other, as the one thread of real timers does."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._line = Line(world, "timers")

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after a delay."""
        self._world.later(seconds, lambda: self._call(function), "timers")

    def stop(self) -> None:
        """Forget what has not been called."""
        self._stopped = True

    def _call(self, function: Callable[[], object]) -> None:
        if not self._stopped:
            self._line.put(function)


class Line:
    """A thread that calls functions one after the other: while one of them waits, those behind it do, too."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._functions: deque[Callable[[], object]] = deque()
        self._busy = False

    def put(self, function: Callable[[], object]) -> None:
        """Call a function when those before it have returned."""
        self._functions.append(function)
        if not self._busy:
            self._busy = True
            self._world.soon(self._serve, self._name)

    def _serve(self) -> None:
        try:
            while self._functions:
                self._functions.popleft()()
                self._world.reached(self._name)
        finally:
            self._busy = False
            if self._functions:
                self._busy = True
                self._world.soon(self._serve, self._name)


def here() -> Any:
    """Give the world that this process is in, or None."""
    world = _world.world
    return world if isinstance(world, World) else None
