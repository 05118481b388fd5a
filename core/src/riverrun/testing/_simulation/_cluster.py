"""Simulated executors, for both contracts of `riverrun.abc`, and what they are allowed to do to a call.

A call on the cluster: waiting (for its upstreams) -> queued (on a worker) -> running -> done. It may end otherwise:
failed, withdrawn, lost, or dropped: when an upstream ended without a value, and nobody need be told.
"""

from __future__ import annotations

import pickle
import random
from collections import deque
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from riverrun.abc import Concurrency, TaskRunner
from riverrun.exceptions import WorkerLost
from riverrun.testing._simulation._bodies import executing
from riverrun.testing._simulation._world import Line, here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from riverrun.abc import TaskCall, TaskReport
    from riverrun.testing._simulation._world import World

MOST: Final = 200
"""Values whose pickle is larger than this, in bytes, stay on the workers."""


@dataclass
class Plan:
    """What an executor may do, and how likely; drawn from the seed of a world.

    Attributes:
        contract: `remote`, `submit` (other processes), `threads` (`submit` in this process).
        max_worker_losses: as in `RemoteTaskExecutor`.
        exact: whether `cancel()` says False only of what has begun or is over.
        tells: whether calls are told as lost, too, when an upstream ends without a value.
        reporters: whether reports come from one thread, or each call's from its own.
        faults: how many faults there are, until the second phase.
        loss: how likely a call is lost, when one may be.
        value_loss: how likely a value is lost as soon as it is there.
        fetch_loss: how likely it is lost when it is asked for.
        twice: how likely something is told again, late.
        refusal: how likely a call is refused.
        slow: how likely a call takes its time before it begins.
        whole: how likely a loss is that of a worker, with all that it has, and not of one call.
        slow_answers: how likely the executor itself takes its time, in each of its methods.
    """

    contract: str = "remote"
    workers: int = 2
    max_worker_losses: int = 2
    exact: bool = True
    tells: bool = True
    reporters: str = "many"
    faults: int = 0
    loss: float = 0.0
    value_loss: float = 0.0
    fetch_loss: float = 0.0
    twice: float = 0.0
    refusal: float = 0.0
    slow: float = 0.3
    slow_answers: float = 0.0
    whole: float = 0.5


def drawn_plan(seed: int, contract: str | None = None, *, faults: bool | None = None) -> Plan:
    """Draw what the executors of a world do."""
    draw = random.Random(f"plan {seed}")  # noqa: S311 - it draws lots
    kind = contract or draw.choice(["remote", "remote", "remote", "submit", "threads"])
    wanted = draw.random() < 0.8 if faults is None else faults
    plan = Plan(
        contract=kind,
        workers=draw.randint(1, 3),
        max_worker_losses=draw.choice([0, 1, 1, 2, 5]),
        exact=draw.random() < 0.5,
        tells=draw.random() < 0.5,
        reporters=draw.choice(["one", "many", "many"]),
        slow=draw.choice([0.0, 0.3, 0.8]),
        slow_answers=draw.choice([0.0, 0.0, 0.1, 0.4]),
    )
    if wanted:
        plan.faults = draw.choice([1, 3, 10, 30])
        plan.loss = draw.choice([0.0, 0.1, 0.5, 0.9])
        plan.value_loss = draw.choice([0.0, 0.1, 0.5, 0.9])
        plan.fetch_loss = draw.choice([0.0, 0.0, 0.3])
        plan.twice = draw.choice([0.0, 0.0, 0.3])
        plan.refusal = draw.choice([0.0, 0.0, 0.0, 0.1])
        storm = draw.random()
        if storm < 0.15:
            plan.workers, plan.max_worker_losses, plan.faults, plan.whole = 1, 1, 10, 1.0
            plan.loss, plan.value_loss = 0.3, 0.1
        elif storm < 0.3:
            plan.max_worker_losses, plan.faults, plan.slow_answers = 5, 10, 0.3
            plan.loss, plan.value_loss, plan.fetch_loss = 0.0, 0.1, 0.6
    return plan


@dataclass
class Attempt:
    """What the journal knows of one call that was handed over."""

    name: str
    key: str
    number: int = 0
    """Which call for this task run it is; with the name, the same in each run of a seed."""
    begun: float | None = None
    ended: float | None = None
    killed: bool = False
    seen: list[Any] = field(default_factory=list)
    """What the body was called with, each time that it was: as it describes it."""

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.name}#{self.number}"

    @property
    def is_over(self) -> bool:
        """Say whether nothing of it is being executed any more."""
        return self.begun is None or self.ended is not None or self.killed


class Journal:
    """What was really executed: the truth that the engine's records are compared with."""

    def __init__(self) -> None:
        self.attempts: dict[str, list[Attempt]] = {}
        """By the name of the task run."""
        self.losses: dict[str, int] = {}
        """How often each was lost after it had begun, or its value was lost, by name."""
        self.losses_before: dict[str, int] = {}
        self.refusals: dict[str, int] = {}

    def add(self, attempt: Attempt) -> None:
        """Note a call that was handed over."""
        attempts = self.attempts.setdefault(attempt.name, [])
        attempts.append(attempt)
        attempt.number = len(attempts)

    def executed(self, name: str) -> int:
        """Say how many attempts at a task run have begun."""
        return sum(attempt.begun is not None for attempt in self.attempts.get(name, ()))

    def count(self, counts: dict[str, int], name: str) -> None:
        """Add one."""
        counts[name] = counts.get(name, 0) + 1


class Faults:
    """Draws faults until there were enough: then the second phase begins, without any."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._left = plan.faults

    def happens(self, probability: float) -> bool:
        """Say whether a fault happens now."""
        if not self._left or not probability or not self._world.chance(probability):
            return False
        self._left -= 1
        return True

    def stop(self) -> None:
        """Begin the second phase."""
        self._left = 0


def _pause(world: World, plan: Plan, point: str) -> None:
    """Let others go on meanwhile, perhaps for some time."""
    world.reached(point)
    if plan.contract == "threads" or world.quiet or world.failed is not None:
        return  # in this process time limits count meanwhile
    if plan.slow_answers and world.chance(plan.slow_answers):
        world.note(f"takes its time at {point}")
        world.sleep(world.random.choice([0.001, 0.1, 3.0]))


@dataclass(eq=False)
class Handle:
    """A call on the cluster, and its value."""

    attempt: Attempt
    call: Any = None
    report: Any = None
    upstreams: tuple[Handle, ...] = ()
    state: str = "waiting"
    worker: int = -1
    value: Any = None
    has_value: bool = False
    tellings: deque[Callable[[], object]] = field(default_factory=deque)
    telling: bool = False


class SimulatedCluster:
    """A `RemoteTaskExecutor` in a simulated world."""

    def __init__(self, world: World, plan: Plan, journal: Journal, faults: Faults) -> None:
        self.world = world
        self.plan = plan
        self.journal = journal
        self.faults = faults
        self.max_worker_losses = plan.max_worker_losses
        if plan.exact:
            self.cancel_is_exact = True
        self._handles: list[Handle] = []
        self._reporter = Line(world, "reporter")
        self._next_worker = plan.workers
        self._workers = list(range(plan.workers))
        self._closed = False

    # -- the contract

    def send(self, call: TaskCall, report: TaskReport, /) -> Handle:
        """Take a call."""
        _pause(self.world, self.plan, "send: before")
        if self.faults.happens(self.plan.refusal):
            self.journal.count(self.journal.refusals, call.name)
            self.world.note(f"refuses {call.name}")
            raise RuntimeError(f"{call.name} is refused")
        attempt = Attempt(call.name, call.key)
        handle = Handle(attempt, travelled(call), report, tuple(call.upstreams))
        self.journal.add(attempt)
        self._handles.append(handle)
        self.world.note(f"takes {attempt.label} ({len(handle.upstreams)} upstreams)")
        self._look_at(handle)
        _pause(self.world, self.plan, "send: after")
        return handle

    def fetch(self, handle: Handle, /) -> Any:
        """Give a value."""
        _pause(self.world, self.plan, "fetch: before")
        self._maybe_lose(handle, self.plan.fetch_loss)
        there = handle.has_value
        value = pickle.loads(pickle.dumps(handle.value)) if there else None  # noqa: S301 - our own
        self.world.note(f"fetch {handle.attempt.label}: {there}")
        _pause(self.world, self.plan, "fetch: after")
        if not there:
            raise WorkerLost(f"the value of {handle.attempt.name} is gone")
        return value

    def holds(self, handle: Handle, /) -> bool:
        """Say whether a value is there, or on its way."""
        _pause(self.world, self.plan, "holds: before")
        there = handle.has_value or handle.state in {"waiting", "queued", "running"}
        _pause(self.world, self.plan, "holds: after")
        return there

    def put(self, value: Any, /) -> Handle:
        """Take a value."""
        _pause(self.world, self.plan, "put: before")
        copy = pickle.loads(pickle.dumps(value))  # noqa: S301
        handle = Handle(Attempt("put", "put"), state="done", value=copy, has_value=True, worker=self._any_worker())
        self._handles.append(handle)
        _pause(self.world, self.plan, "put: after")
        return handle

    def cancel(self, handle: Handle, /) -> bool:
        """Withdraw a call."""
        _pause(self.world, self.plan, "cancel: before")
        possible = handle.state in {"waiting", "queued", "dropped"}
        if possible and not self.plan.exact and self.world.chance(0.3):
            possible = False
        if possible:
            handle.state = "withdrawn"
            self._cut_off(handle)
        self.world.note(f"cancel {handle.attempt.label}: {possible}")
        _pause(self.world, self.plan, "cancel: after")
        return possible

    # -- faults, also for tests that want them at a certain moment

    def lose_worker(self, of: str | None = None) -> None:
        """Let a worker die: any, or that of a task run."""
        known = [handle.worker for handle in self._handles if handle.attempt.name == of]
        self._lose_worker(known[-1] if known and known[-1] in self._workers else self._any_worker())

    def _lose_worker(self, lost: int) -> None:
        """Let a worker die, with all that it runs, is to run and keeps; another one takes its place."""
        self._workers[self._workers.index(lost)] = self._next_worker
        self._next_worker += 1
        self.world.note(f"worker {lost} dies")
        mine = [handle for handle in self._handles if handle.worker == lost]
        self.world.random.shuffle(mine)
        for handle in mine:
            self._lose(handle)

    def lose_value(self, handle: Handle) -> None:
        """Let a value be lost, as if its worker had died."""
        if handle.has_value:
            self._lose(handle)

    def lose_value_of(self, name: str) -> None:
        """Let the value of a task run be lost."""
        for handle in self._handles:
            if handle.attempt.name == name:
                self.lose_value(handle)

    def _lose(self, handle: Handle) -> None:
        begun = handle.state == "running"
        if begun or handle.state == "queued":
            handle.state = "lost"
            handle.attempt.killed = begun
            counts = self.journal.losses if begun else self.journal.losses_before
            self.journal.count(counts, handle.attempt.name)
            self._tell_lost(handle, begun=begun)
        elif handle.has_value:
            handle.has_value, handle.value = False, None
            self.journal.count(self.journal.losses, handle.attempt.name)
            self.world.note(f"value of {handle.attempt.label} is lost")
        else:
            return
        self._cut_off(handle, always_told=handle.state == "done")

    def _cut_off(self, handle: Handle, *, always_told: bool = False) -> None:
        """Deal with calls that were to take a value which will not be there."""
        for other in self._handles:
            if handle in other.upstreams and other.state in {"waiting", "queued"}:
                told = always_told or self.plan.tells
                other.state = "lost" if told else "dropped"
                self.world.note(f"{other.attempt.label} is {other.state}")
                if told:
                    self.journal.count(self.journal.losses_before, other.attempt.name)
                    self._tell_lost(other, begun=False)
                self._cut_off(other)

    # -- calls on their way

    def _any_worker(self) -> int:
        return int(self.world.random.choice(self._workers))

    def _look_at(self, handle: Handle) -> None:
        """Queue a call whose upstreams have their values; drop one for which they never will be there."""
        if handle.state != "waiting":
            return
        for upstream in handle.upstreams:
            if upstream.has_value:
                continue
            if upstream.state not in {"waiting", "queued", "running"}:
                if upstream.state == "done" or self.plan.tells:
                    handle.state = "lost"
                    self.journal.count(self.journal.losses_before, handle.attempt.name)
                    self._tell_lost(handle, begun=False)
                else:
                    handle.state = "dropped"
                self._cut_off(handle)
            return
        handle.state = "queued"
        handle.worker = self._any_worker()
        delay = self.world.random.choice([0.01, 0.5, 3.0]) if self.world.chance(self.plan.slow) else 0.0
        execute = lambda: self._execute(handle)  # noqa: E731
        if delay:
            self.world.later(delay, execute, f"worker {handle.worker}")
        else:
            self.world.soon(execute, f"worker {handle.worker}")

    def _execute(self, handle: Handle) -> None:
        if handle.state != "queued" or self._closed:
            return
        if self.faults.happens(self.plan.loss / 2):  # it dies before this call has begun
            self._die(handle)
            return
        handle.state = "running"
        handle.attempt.begun = self.world.now
        self._check_alone(handle.attempt)
        self.world.note(f"{handle.attempt.label} begins")
        dies = self.faults.happens(self.plan.loss / 2)
        if self.world.chance(0.5):
            self._tell(handle, lambda: handle.report.begun(self.world.now))
        if dies and self.world.chance(0.5):
            self.world.soon(lambda: self._die(handle), "death")
        values = [upstream.value for upstream in handle.upstreams]
        self.world.reached("body: before")
        with executing(handle.attempt):
            outcome, value = handle.call.run_keeping(values, MOST)
        self.world.reached("body: after")
        if dies:
            self._die(handle)
        if handle.state != "running" or self._closed:
            return  # who ran it is dead
        handle.attempt.ended = self.world.now
        self._done(handle, pickle.loads(pickle.dumps(outcome)), value)  # noqa: S301

    def _done(self, handle: Handle, outcome: Any, value: Any) -> None:
        failed = outcome.error is not None or outcome.void
        handle.state = "failed" if failed else "done"
        handle.has_value, handle.value = not failed, value
        self.world.note(f"{handle.attempt.label} is {handle.state}")
        self._tell(handle, lambda: handle.report.ended(pickle.loads(pickle.dumps(outcome)), handle))  # noqa: S301
        if failed:
            self._cut_off(handle)
        for other in list(self._handles):
            if handle in other.upstreams:
                self._look_at(other)
        self._maybe_lose(handle, self.plan.value_loss)

    def _die(self, handle: Handle) -> None:
        if handle.state not in {"queued", "running"}:
            return
        if self.world.chance(self.plan.whole):
            self._lose_worker(handle.worker)
        else:
            self._lose(handle)

    def _maybe_lose(self, handle: Handle, probability: float) -> None:
        if handle.has_value and self.faults.happens(probability):
            if handle.worker in self._workers and self.world.chance(self.plan.whole):
                self._lose_worker(handle.worker)
            else:
                self.lose_value(handle)

    def _check_alone(self, attempt: Attempt) -> None:
        others = [one for one in self.journal.attempts[attempt.name] if one is not attempt and not one.is_over]
        if others:
            self.world.violate(f"overlap: {attempt.label} begins while {others[0].label} is running")

    # -- telling

    def _tell_lost(self, handle: Handle, *, begun: bool) -> None:
        error = WorkerLost(f"{handle.attempt.name} is lost")
        self._tell(handle, lambda: handle.report.lost(error, begun=begun))

    def _tell(self, handle: Handle, telling: Callable[[], object]) -> None:
        """Tell something about a call: after what was told of it before; of others, in any order."""
        if self._closed:
            return
        self._put(handle, telling)
        if self.faults.happens(self.plan.twice):
            self.world.later(self.world.random.choice([0.0, 1.0]), lambda: self._put(handle, telling), "reporter")

    def _put(self, handle: Handle, telling: Callable[[], object]) -> None:
        if self.plan.reporters == "one":
            self._reporter.put(lambda: self._say(handle, telling))
            return
        handle.tellings.append(telling)
        if not handle.telling:
            handle.telling = True
            self.world.soon(lambda: self._say_all(handle), "reporter")

    def _say_all(self, handle: Handle) -> None:
        while handle.tellings:
            self._say(handle, handle.tellings.popleft())
        handle.telling = False

    def _say(self, handle: Handle, telling: Callable[[], object]) -> None:
        if self._closed:
            return
        self.world.note(f"tells of {handle.attempt.label} ({handle.state})")
        try:
            telling()
        except Exception as error:  # noqa: BLE001
            self.world.violate(f"a report about {handle.attempt.label} raised {error!r}")

    def close(self) -> None:
        """Stop."""
        self._closed = True


class SimulatedPool:
    """A `TaskExecutor`: it gives futures, of an executor of processes or of threads."""

    def __init__(self, world: World, plan: Plan, journal: Journal, faults: Faults) -> None:
        self.world = world
        self.plan = plan
        self.journal = journal
        self.faults = faults
        self.max_worker_losses = 0
        self._reporter = Line(world, "reporter")
        self._running: list[tuple[Attempt, Future[Any]]] = []
        self._closed = False

    def submit(self, call: TaskCall, /) -> Future[Any]:
        """Take a call."""
        _pause(self.world, self.plan, "submit: before")
        if self.faults.happens(self.plan.refusal):
            self.journal.count(self.journal.refusals, call.name)
            raise RuntimeError(f"{call.name} is refused")
        attempt = Attempt(call.name, call.key)
        self.journal.add(attempt)
        work = travelled(call) if self.plan.contract == "submit" else call
        future: Future[Any] = Future()
        execute = lambda: self._execute(attempt, work, future)  # noqa: E731
        if self.world.chance(self.plan.slow):
            self.world.later(self.world.random.choice([0.01, 0.5, 3.0]), execute, "worker")
        else:
            self.world.soon(execute, "worker")
        self.world.reached("submit: after")  # no time passes here: the future is not known yet, and a limit may count
        return future

    def lose_worker(self, of: str | None = None) -> None:
        """Let a worker die with what it runs: any, or that of a task run."""
        running = [one for one in self._running if of in {None, one[0].name}]
        if running:
            self._lose(*self.world.random.choice(running))

    def _lose(self, attempt: Attempt, future: Future[Any]) -> None:
        if attempt.killed or attempt.ended is not None or future.done():
            return
        attempt.killed = True
        self.journal.count(self.journal.losses, attempt.name)
        self._end(lambda: future.set_exception(BrokenExecutor(f"{attempt.name} is lost")))

    def _execute(self, attempt: Attempt, call: Any, future: Future[Any]) -> None:
        if self._closed:
            return
        if not future.running() and not future.set_running_or_notify_cancel():
            self.world.note(f"{attempt.label} was cancelled")
            return
        if self.plan.contract == "submit" and self.faults.happens(self.plan.loss / 2):
            self._lose(attempt, future)
            return
        attempt.begun = self.world.now
        self.world.note(f"{attempt.label} begins")
        self._running.append((attempt, future))
        if self.plan.contract == "submit" and self.faults.happens(self.plan.loss / 2):
            self.world.soon(lambda: self._lose(attempt, future), "death")
        self.world.reached("body: before")
        with executing(attempt):
            outcome = call()
        self.world.reached("body: after")
        self._running.remove((attempt, future))
        if attempt.killed:
            return
        attempt.ended = self.world.now
        self.world.note(f"{attempt.label} ends")
        self._end(lambda: future.set_result(outcome))

    def _end(self, telling: Callable[[], object]) -> None:
        if self._closed:
            return
        if self.plan.reporters == "one":
            self._reporter.put(telling)
        else:
            self.world.soon(telling, "reporter")

    def close(self) -> None:
        """Stop."""
        self._closed = True


def travelled(call: Any) -> Any:
    """Give the call as it arrives on a worker."""
    upstreams, call.upstreams = call.upstreams, ()
    try:
        return pickle.loads(pickle.dumps(call))  # noqa: S301
    finally:
        call.upstreams = upstreams


class Simulated:
    """What the runners of a world share: its plan, its journal, and the executors that were made."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.journal = Journal()
        self.faults = Faults(world, plan)
        self.executors: list[Any] = []

    def executor(self) -> Any:
        """Make an executor."""
        kind = SimulatedCluster if self.plan.contract == "remote" else SimulatedPool
        made = kind(self.world, self.plan, self.journal, self.faults)
        self.executors.append(made)
        return made

    def runner(self) -> TaskRunner:
        """Give a task runner whose executors are in this world."""
        return InThreads() if self.plan.contract == "threads" else InProcesses()


class _SimulatedRunner(TaskRunner):
    api_version: ClassVar[int] = 1

    @contextmanager
    def start(self) -> Iterator[Any]:
        """Give an executor of the present world."""
        executor = here().simulated.executor()
        try:
            yield executor
        finally:
            executor.close()


class InProcesses(_SimulatedRunner):
    """A runner whose calls travel."""

    concurrency = Concurrency.PARALLEL


class InThreads(_SimulatedRunner):
    """A runner whose calls share this process."""

    concurrency = Concurrency.CONCURRENT
