"""The life of one task run, from its call to its final state: what happened goes in, what is to be done comes out.

::

                 upstreams ended              a slot, a thread, a loop        its function has begun
    WAITING ----------------------> READY ---------> QUEUED --------------------------> RUNNING --+--> FINAL
       ^  ^                                            |  an executor that takes calls     ^      |
       |  |                                            +-------> PACKING ----> SENT -------+   ENDING
       |  +--- called back: it was sent early, and its upstream came to nothing ---+              |
       +------------------ an upstream is run again ------------------ DELAYED <-- tried again ---+

Each method is one event. It may come from any thread, in any order, late and twice: under the lock of the run it looks
whether the event fits the phase, makes the transition, and answers what is to be done. It calls nothing, waits for
nothing and knows no clock, so what is done (`_steps`) is done outside of the lock, and what is local and what is on a
cluster goes the same way. The table of all transitions is in `docs/transitions.md`; a test compares it with this class.

An attempt has a number. It rises when an attempt begins and when one is over: what comes with another number comes too
late. It is counted (`run_count`) when it is known that the function has begun.
"""

from __future__ import annotations

import time
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from riverrun._futures import LOCKS, TaskFuture
from riverrun.states import COMPLETED, PENDING, RETRYING, RUNNING, AwaitingRetry, Cancelled, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from riverrun._engine import Home
    from riverrun._futures import TaskRun
    from riverrun._outcomes import Outcome
    from riverrun._tasks import Task

MAX_LOSSES_BEFORE_IT_BEGAN: Final = 20
"""How often a run may be sent anew because its worker was gone before it began; more often, something is wrong."""

NOTHING: Final[tuple[Any, ...]] = ()
NO_KEYWORDS: Final[dict[str, Any]] = {}


class Phase(Enum):
    """Where a task run is on its way."""

    WAITING = "waiting"
    """For upstreams that are not final."""
    READY = "ready"
    """They are: it gets its name, looks into the cache, waits for a place in its window."""
    QUEUED = "queued"
    """Handed to what runs it."""
    PACKING = "packing"
    """An attempt for an executor that takes calls: its arguments are put together."""
    SENT = "sent"
    """The executor has it; it is not known to have begun."""
    RUNNING = "running"
    ENDING = "ending"
    """An attempt is over without success, and it is being decided whether there is another."""
    DELAYED = "delayed"
    """Another attempt is due later."""
    FINAL = "final"


WAITING, READY, QUEUED, PACKING, SENT, RUNS, ENDING, DELAYED, FINAL = Phase
IN_EXECUTOR: Final = (SENT, RUNS)


class Do(Enum):
    """What is to be done now, outside of the lock, by who brought the event."""

    NOTHING = "-"
    LATE = "late"
    """Nothing: the event does not fit, and is dropped."""
    PREPARE = "prepare"
    """Look at the upstreams, make the name, look into the cache, then dispatch it."""
    SEND = "send"
    """Hand the call to the executor."""
    WITHDRAW = "withdraw"
    """Ask the executor to withdraw the call, and say what it answered (`recalled`)."""
    STOP = "stop"
    """Ask what runs it to stop, and say what it answered (`stop_answered`)."""
    RELEASE = "release"
    """Stop the attempt if that can be done, else let the executor stop counting on it; then decide."""
    DECIDE = "decide"
    """Find out whether it is tried again: `retry`, or a final state."""
    AGAIN = "again"
    """It was lost, which costs no retry: tell it, then `retry`."""
    RESEND = "resend"
    """It was lost before it began, which was no attempt: `resend`, if it was not cancelled meanwhile."""
    PARK = "park"
    """Nothing yet: it is decided when what was asked to stop has answered."""
    TELL = "tell"
    """It is final: release what it holds, and tell those who wait."""


class Cancellable(Protocol):
    """What can be asked to stop an attempt."""

    def cancel(self) -> bool:
        """Stop it; false if that is not possible (any more)."""
        ...

    def is_running(self) -> bool:
        """Whether it is known to have begun."""
        ...

    @property
    def withdraws(self) -> bool:
        """Whether nothing more is heard of what it has stopped: then the run is Cancelled at once."""
        ...


class Limiter(Protocol):
    """Decides when a task run is dispatched."""

    def acquire(self, run: PendingRun) -> None:
        """Take a run that is ready, and dispatch it now or later."""
        ...

    def release(self, run: PendingRun) -> None:
        """Note that a run is final."""
        ...


TOO_LATE: Final = object()
"""In the place of the callbacks of a run that has become final: it had ended before, or the attempt is over."""


class Doubt(Enum):
    """Of a run that waits again for upstreams, because one came to nothing after the run was sent early."""

    NONE = "none"
    ASKED = "asked"
    """The executor was asked to withdraw the call, and has not answered."""
    BEGUN = "begun"
    """It says that the call has begun: there will be news of it, and until then it is not sent anew."""
    OPEN = "open"
    """It could not say: whatever comes first, news or the upstreams, decides."""


class RemoteState:
    """What matters only where values stay on workers: losses, and what was sent before its upstreams had ended."""

    __slots__ = ("doubt", "losses", "losses_before_it_began", "presubmitted", "uncounted")

    def __init__(self) -> None:
        self.losses = 0
        """How often it was lost with its worker."""
        self.losses_before_it_began = 0
        self.presubmitted: list[PendingRun] = []
        """Those that were sent with the handle of the present attempt."""
        self.doubt = Doubt.NONE
        self.uncounted: set[int] = set()
        """Attempts that were replaced while it was not known whether they had begun."""


class PendingRun:
    """A task run that is not final; also the scope in which the task's code runs in this process."""

    is_flow = False
    # What most runs never change stands here once, instead of in each of them.
    upstreams: tuple[tuple[Any, bool], ...] | list[tuple[Any, bool]] = ()
    """Futures and States that have to be final first, each with "may it fail?"."""
    missing = 0
    """How many of them are not final."""
    failures = 0
    """How many attempts were over without success, but for losses that cost no retry."""
    more_retries = 0
    """How often it may be tried again at least, as somebody else than the task says."""
    handle: Cancellable | None = None
    stopping = 0
    """How many have asked what runs it to stop, and have no answer."""
    parked: tuple[Do, Outcome] | None = None
    """What is to be done when somebody has such an answer: the attempt has ended meanwhile."""
    cancelled = False
    """Whether somebody was told that it is stopped: it is not tried again."""
    remote: RemoteState | None = None
    has_place = False
    launch: Callable[[PendingRun], object] | None = None
    """What runs it in the place of the task runner."""
    stops_with: Cancellable | None = None
    """What stops it, where that is not what runs it."""
    is_prepared = False
    """Whether it has its name, and was looked for in the cache."""
    cache_key: tuple[str, str] | None = None
    surroundings: tuple[Any, ...] = ()
    """What observers want to be around the function."""

    def __init__(  # noqa: PLR0917 - what a call has, in its order
        self,
        home: Home,
        task: Task[Any, Any],
        run: TaskRun,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        phase: Phase,
        annotated: bool = False,  # noqa: FBT001, FBT002 - without a name it is quicker
        limiter: Limiter | None = None,
    ) -> None:
        self.home = home
        self.task = task
        self.run = run
        self.lock = LOCKS[run.number & 63]
        self.args = args
        self.kwargs = kwargs or NO_KEYWORDS
        self.phase = phase
        self.future: TaskFuture[Any] = TaskFuture(run, self)
        self.context: Context = copy_context()
        self.state: State = PENDING
        """The present state; the final one is the record's."""
        self.attempt = 0
        self.annotated = annotated
        """Whether there are futures or annotations among the arguments."""
        self.limiter = limiter
        self.nested: Home | None = None
        """Where the runs belong of tasks that its code calls."""

    if TYPE_CHECKING:  # every run is made as a `Job` (in `_running`), which has them

        def __call__(self) -> None:
            """Run the task in this thread, if nobody has."""

        async def run_async(self) -> None:
            """Run the task on this loop, if nobody has."""

    # -- the scope of its code

    @property
    def name(self) -> str:
        """The name of the task run."""
        return self.run.name

    @property
    def awaits(self) -> bool:
        """Whether the code inside is a coroutine."""
        return self.task.is_async

    @property
    def log_prints(self) -> bool | None:
        """What to do with prints: log them, or let them through; None where the flow does not log them either."""
        around = self.home.log_prints
        wanted = around if self.task.log_prints is None else self.task.log_prints
        return True if wanted else (False if around else None)

    def log_identity(self) -> tuple[str, str, dict[str, Any]]:
        """Return what log records say of the run."""
        return "Task run", self.run.name, self.log_fields()

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of the run's log records."""
        run = self.run
        return {**self.home.log_fields(), "task_run_name": run.name, "task_run_id": run.id, "task_name": run.task_name}

    # -- before an attempt

    def upstream_ended(self, *, with_value: bool = True) -> Do:
        """One upstream is final. If it has no value, a call that was sent early to take it will never begin."""
        lock = self.lock
        lock.acquire()  # as in `try_start`
        try:
            self.missing -= 1
            if self.phase is not WAITING:
                if not with_value and self.phase in (PACKING, SENT):
                    self._to_waiting()
                else:
                    return Do.NOTHING
            if self.missing or self.stopping or self.home.is_watched or self.remote is not None:
                return self._note("upstream ended", self._prepared())
            self.phase = READY
            return Do.PREPARE
        finally:
            lock.release()

    def _to_waiting(self) -> None:
        self._forget_attempt()
        self.phase = WAITING
        self.state = PENDING

    def _forget_attempt(self) -> None:
        self.attempt += 1
        self.handle = None
        if self.remote is not None:
            self.remote.doubt = Doubt.NONE

    def _prepared(self) -> Do:
        """Go on if nothing is missing, no earlier attempt may be running, and nobody asks it to stop."""
        if self.missing or self.stopping or self._doubt is Doubt.ASKED or self._doubt is Doubt.BEGUN:
            return Do.NOTHING
        self.phase = READY
        return Do.PREPARE

    def presubmit(self) -> int:
        """It is about to be sent before its upstreams have ended: return the number of the attempt, or 0."""
        with self.lock:
            if self.phase is not WAITING or self._doubt is not Doubt.NONE:
                return 0
            self.attempt += 1
            self.phase = PACKING
            self._note("presubmitted", Do.NOTHING)
            return self.attempt

    def not_presubmitted(self, attempt: int) -> None:
        """It is not sent early after all."""
        with self.lock:
            if self.attempt == attempt and self.phase is PACKING:
                self._to_waiting()

    def lend(self, dependent: PendingRun) -> Cancellable | None:
        """Return the handle of an attempt that is on its way, and remember who is sent with it; or None."""
        with self.lock:
            if self.phase not in IN_EXECUTOR or self.handle is None or self.remote is None:
                return None
            self.remote.presubmitted.append(dependent)
            return self.handle

    def queued(self) -> bool:
        """It is handed to what runs it: whether it is still to be run."""
        lock = self.lock
        lock.acquire()  # as in `try_start`
        try:
            if self.phase is not READY:
                return False
            self.phase = QUEUED
            if self.home.is_watched:
                self._note("dispatched", Do.NOTHING)
            return True
        finally:
            lock.release()

    # -- an attempt

    def try_start(self, handle: Cancellable | None = None) -> int:
        """Whoever calls this runs it here: return the number of the attempt; 0 if somebody else has, or it is final.

        Args:
            handle: what stops the attempt.
        """
        run, lock = self.run, self.lock
        lock.acquire()  # half of what `with` takes, and this is for every task
        try:
            if self.phase is not QUEUED:
                return 0
            self.phase = RUNS
            self.attempt = attempt = self.attempt + 1
            if handle is not None:
                self.handle = handle
            if run.run_count or self.home.is_watched:
                self._count(time.time())
                self._note("started", Do.NOTHING)
            else:  # what `_count` does, for most
                run.run_count = 1
                run.start_time = time.time()
                self.state = RUNNING
            return attempt
        finally:
            lock.release()

    def try_pack(self) -> int:
        """Whoever calls this is to send it to an executor: return the number of the attempt, or 0."""
        with self.lock:
            if self.phase is not QUEUED:
                return 0
            self.phase = PACKING
            if self.remote is not None and self.remote.doubt is Doubt.OPEN:
                self.remote.uncounted.add(self.attempt)
                self.remote.doubt = Doubt.NONE
            self.attempt += 1
            self.handle = None  # that of an attempt that was called back, if there is one: nobody may be sent with it
            self._note("packing", Do.NOTHING)
            return self.attempt

    def packed(self, attempt: int) -> Do:
        """Its call is put together, and goes to the executor, if it still may."""
        with self.lock:
            if attempt != self.attempt or self.phase is not PACKING:
                return self._note("packed", Do.LATE)
            self.phase = SENT
            return self._note("packed", Do.SEND)

    def sent(self, attempt: int, handle: Cancellable) -> Do:
        """The executor has taken the call."""
        with self.lock:
            if attempt != self.attempt:
                return self._note("sent", Do.LATE)
            if self.phase is WAITING and self._doubt is Doubt.ASKED:
                self.handle = handle
                return self._note("sent", Do.WITHDRAW)
            if self.phase not in IN_EXECUTOR:
                return self._note("sent", Do.LATE)
            self.handle = handle
            return self._note("sent", Do.NOTHING)

    @property
    def _doubt(self) -> Doubt:
        return Doubt.NONE if self.remote is None else self.remote.doubt

    def _is_present(self, attempt: int) -> bool:
        """Whether it is the present attempt, and under way; one that was called back comes to life again by news."""
        if attempt != self.attempt:
            return False
        if self.phase is WAITING and self._doubt is not Doubt.NONE:
            assert self.remote is not None  # noqa: S101 - said to type checkers
            self.remote.doubt = Doubt.NONE
            self.phase = SENT
        return self.phase in IN_EXECUTOR

    def _count(self, start_time: float) -> None:
        run = self.run
        run.run_count += 1
        if run.run_count == 1:
            run.start_time = start_time
            self.state = RUNNING
        else:
            self.state = RETRYING
        if self.home.observed is not None:
            self.home.observed.task_run_state_changed(run, self.state, start_time)

    def begun(self, attempt: int, start_time: float) -> Do:
        """The function has begun, as the executor or the worker says."""
        with self.lock:
            if not self._is_present(attempt):
                return self._late("begun", attempt)
            if self.phase is RUNS:
                return self._note("begun", Do.LATE)
            self.phase = RUNS
            self._count(start_time)
            return self._note("begun", Do.NOTHING)

    def _late(self, event: str, attempt: int, *, begun: bool = True) -> Do:
        """Drop what comes too late; an attempt that was executed is counted all the same."""
        if begun and self.remote is not None and attempt in self.remote.uncounted:
            self.remote.uncounted.discard(attempt)
            self.run.run_count += 1
        return self._note(event, Do.LATE)

    # -- after an attempt

    def attempt_failed(self, attempt: int, outcome: Outcome, *, begun: bool = True) -> Do:
        """An attempt is over without success.

        Args:
            attempt: its number.
            outcome: what it ended with.
            begun: whether the function was called.
        """
        with self.lock:
            present = self._is_present(attempt) or (attempt == self.attempt and self.phase is PACKING)
            if not present:
                return self._late("attempt failed", attempt, begun=begun)
            if begun and self.phase is not RUNS:
                self._count(outcome.start_time or time.time())
            return self._note("attempt failed", self._ending(outcome))

    def _ending(self, outcome: Outcome, do: Do = Do.DECIDE) -> Do:
        self.phase = ENDING
        self.handle = None
        if self.stopping and not self.home.dispatch.in_place:  # else the caller goes on, and cannot wait
            self.parked = do, outcome
            return Do.PARK
        return do

    def lost(self, attempt: int, outcome: Outcome, *, begun: bool, most: int) -> Do:
        """The executor has lost the call, and there are others that could run it.

        Args:
            attempt: its number.
            outcome: with the exception.
            begun: whether the function may have begun.
            most: how often it may be lost.
        """
        with self.lock:
            remote = self.remote
            if remote is None or not self._is_present(attempt):
                return self._late("lost", attempt, begun=begun)
            if begun and self.phase is not RUNS:
                self._count(time.time())
            begun = begun or self.phase is RUNS
            if not begun and self.stopping:
                return self._note("lost", self._ending(outcome, Do.RESEND))
            if not begun and not self.cancelled:
                if self.missing:  # an upstream of it was lost: that says nothing about the run itself
                    self._to_waiting()
                    return self._note("lost", Do.NOTHING)
                if remote.losses_before_it_began < MAX_LOSSES_BEFORE_IT_BEGAN:
                    remote.losses_before_it_began += 1
                    self._to_waiting()
                    return self._note("lost", self._prepared())
            remote.losses += 1
            return self._note("lost", self._ending(outcome, Do.AGAIN if remote.losses <= most else Do.DECIDE))

    def resend(self) -> Do:
        """What was asked to stop does not, and the call was lost before it began: that was no attempt."""
        with self.lock:
            if self.phase is not ENDING:
                return self._note("resend", Do.LATE)
            self._to_waiting()
            return self._note("resend", self._prepared())

    def retry(self, state: State, *, in_place: bool, failure: bool = True) -> bool:
        """It is tried again: whether it is, for somebody may have ended it meanwhile.

        Args:
            state: how the attempt has ended.
            in_place: whether the caller makes the next attempt itself.
            failure: whether that costs a retry.
        """
        with self.lock:
            if self.phase is not ENDING:
                return False
            self.phase = QUEUED if in_place else DELAYED
            self._forget_attempt()
            self.failures += failure
            self.state = AwaitingRetry(state.message, state.data)
            self.context = self.context.copy()  # the attempt that has failed may still be inside the old one
            if self.home.observed is not None:
                self.home.observed.task_run_state_changed(self.run, self.state, time.time())
            self._note("retry", Do.NOTHING)
            return True

    def retry_due(self) -> Do:
        """The delay is over."""
        with self.lock:
            if self.phase is not DELAYED:
                return self._note("retry due", Do.LATE)
            if self.missing:
                self.phase = WAITING
                return self._note("retry due", Do.NOTHING)
            self.phase = READY
            return self._note("retry due", Do.PREPARE)

    def deadline(self, attempt: int, outcome: Outcome) -> tuple[Do, Cancellable | None]:
        """The time limit of an attempt is over: return also what stops it."""
        with self.lock:
            if attempt != self.attempt or self.phase not in IN_EXECUTOR:
                return self._note("deadline", Do.LATE), None
            if self.phase is SENT:
                self._count(time.time())
            handle = self.handle
            self._forget_attempt()
            self.context = self.context.copy()  # the old one may be in use as long as the old attempt's thread is
            what = self._ending(outcome)
            return self._note("deadline", Do.RELEASE if what is Do.DECIDE else what), handle

    # -- what was sent early

    def take_presubmitted(self) -> list[PendingRun]:
        """Return, and forget, those that were sent with the handle of an attempt that came to nothing."""
        if self.remote is None:
            return []
        with self.lock:
            taken, self.remote.presubmitted = self.remote.presubmitted, []
            return taken

    def recall(self) -> tuple[Do, int, Cancellable | None]:
        """An upstream came to nothing, and is run again: return also the attempt, and what withdraws it."""
        with self.lock:
            if self.missing and self.phase is PACKING:
                self._to_waiting()
            elif self.missing and self.phase is SENT:
                assert self.remote is not None  # noqa: S101 - said to type checkers
                self.phase = WAITING
                self.remote.doubt = Doubt.ASKED
                if self.handle is not None:  # else `sent` is going to say it
                    return self._note("recalled", Do.WITHDRAW), self.attempt, self.handle
            else:
                return self._note("recalled", Do.LATE), 0, None
            return self._note("recalled", Do.NOTHING), 0, None

    def recall_answered(self, attempt: int, *, certain: bool, exact: bool) -> Do:
        """The executor has said whether it has withdrawn the call, so that it will not begin.

        Args:
            attempt: its number.
            certain: whether it has.
            exact: whether news of the call is certain if it has not.
        """
        with self.lock:
            if attempt != self.attempt or self.phase is not WAITING or self._doubt is not Doubt.ASKED:
                return self._note("recall answered", Do.LATE)
            assert self.remote is not None  # noqa: S101 - said to type checkers
            if certain:
                self._to_waiting()
            else:
                self.remote.doubt = Doubt.BEGUN if exact else Doubt.OPEN
            return self._note("recall answered", self._prepared())

    # -- the end

    def cancel(self) -> tuple[Do, Any]:
        """Somebody wants to cancel it: return also what stops it, or what was taken off it."""
        with self.lock:
            if self.phase is FINAL:
                return self._note("cancel", Do.LATE), None
            if self.phase in IN_EXECUTOR or (self.phase is WAITING and self._doubt is not Doubt.NONE):
                handle = self.stops_with or self.handle
                if handle is None:
                    return self._note("cancel", Do.NOTHING), None
                self.stopping += 1
                self.cancelled = self.cancelled or self.home.dispatch.in_place
                return self._note("cancel", Do.STOP), handle
            if self.parked is not None:  # who has asked before decides
                return self._note("cancel", Do.NOTHING), None
            return Do.TELL, self._final(Cancelled("Task run was cancelled."), None)

    def stop_answered(self, *, stopped: bool) -> tuple[Do, Outcome | None]:
        """What runs it has said whether it stops: return what had to wait for that."""
        with self.lock:
            self.stopping -= 1
            self.cancelled = stopped or (self.cancelled and not self.home.dispatch.in_place)
            if self.stopping:
                return self._note("stop answered", Do.NOTHING), None
            if self.parked is not None and self.phase is ENDING:
                parked, self.parked = self.parked, None
                self._note("stop answered", parked[0])
                return parked
            held = self.phase is WAITING and not stopped
            return self._note("stop answered", self._prepared() if held else Do.NOTHING), None

    def decided(self, state: State) -> Any:
        """It is not tried again: return the callbacks of its future; or `TOO_LATE`, if somebody has ended it."""
        with self.lock:
            if self.phase is not ENDING:
                self._note("decided", Do.LATE)
                return TOO_LATE
            return self._final(state, None)

    def completed(self, value: Any, attempt: int) -> Any:
        """An attempt in this process has ended with a value: returns as `set_final` does, which this is for most."""
        run, future, lock = self.run, self.future, self.lock
        lock.acquire()
        try:
            if self.phase is not RUNS or attempt != self.attempt or self.home.is_watched:
                return self._ended(COMPLETED, value, attempt)
            self.phase = FINAL
            future._value = value  # noqa: SLF001
            run.end_time = time.time()
            run.final = COMPLETED
            callbacks = future._callbacks  # noqa: SLF001
            future._callbacks = future._job = None  # noqa: SLF001
            return callbacks
        finally:
            lock.release()

    def set_final(self, state: State, value: Any = None, attempt: int | None = None, *, begun: bool = True) -> Any:
        """It ends with a state: return the callbacks of its future; or `TOO_LATE`.

        Args:
            state: the final state.
            value: of a run that has completed.
            attempt: the number of the attempt that ends in this state; None if that does not matter.
            begun: whether the function was called in it.
        """
        with self.lock:
            return self._ended(state, value, attempt, begun=begun)

    def _ended(self, state: State, value: Any, attempt: int | None, *, begun: bool = True) -> Any:
        if self.phase is FINAL or (attempt is not None and not self._is_present(attempt)):
            self._late("final", attempt or 0, begun=begun)
            return TOO_LATE
        if attempt is not None and begun and self.phase is not RUNS:
            self._count(time.time())
        return self._final(state, value)

    def abort(self, state: State) -> tuple[Any, Cancellable | None]:
        """It ends now: return also what stops the attempt."""
        with self.lock:
            handle = self.stops_with or self.handle
            return (TOO_LATE if self.phase is FINAL else self._final(state, None)), handle

    def _final(self, state: State, value: Any) -> Any:
        run, future = self.run, self.future
        self.phase = FINAL
        self.handle = None
        future._value = value  # noqa: SLF001 - two halves of one thing
        run.end_time = time.time()
        run.final = state
        future._job = None  # noqa: SLF001
        if self.home.is_watched:
            if self.home.observed is not None:
                self.home.observed.task_run_state_changed(run, state, run.end_time)
            self._note("final", Do.TELL)
        callbacks = future._callbacks  # noqa: SLF001
        if callbacks is not None:
            future._callbacks = None  # noqa: SLF001
        return callbacks

    def forget(self) -> None:
        """Keep nothing alive: a timer, or a pool's queue, may hold on to this object for long."""
        self.args = NOTHING
        self.kwargs = NO_KEYWORDS
        self.context = self.future = None  # type: ignore[assignment]
        if self.annotated or self.upstreams:
            self.upstreams = NOTHING
        if self.surroundings:
            self.surroundings = NOTHING
        if self.remote is not None:
            self.remote = None

    # -- looking at it

    def present_state(self) -> State:
        """Return the state of a run that is not final."""
        if self.state is PENDING and self.handle is not None and self.handle.is_running():
            return RUNNING
        return self.state

    def _note(self, event: str, do: Do) -> Do:
        events = self.home.events
        if events is not None:
            events.append((time.monotonic(), self.run.number, event, self.phase, self.attempt, do))
        return do
