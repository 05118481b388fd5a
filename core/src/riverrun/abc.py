"""The whole contract between Riverrun and a task runner.

A *task runner* is a recipe: an immutable set of options. `start()` turns it into a *task executor* for one flow
run. An executor takes calls that are ready to run and gives a `concurrent.futures.Future` for each, so every
`concurrent.futures.Executor` is one. Dependencies, states, retries, timeouts and final states are the core's.

What an executor can do beyond `submit()` it declares by having the method of a capability below.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, dataclass_transform, runtime_checkable

from riverrun._context import current_scope
from riverrun._options import Options
from riverrun.exceptions import TaskRunnerError

if TYPE_CHECKING:
    # `x as x` tells type checkers that authors of runners may name it too.
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from contextvars import Context
    from logging import LogRecord

    from riverrun._calls import TaskCall as TaskCall  # noqa: PLC0414
    from riverrun._outcomes import Outcome as Outcome  # noqa: PLC0414
    from riverrun.exceptions import CrashedRun


def __getattr__(name: str) -> Any:
    """Give `Outcome` and `TaskCall` to those who make them; importing them takes longer than all of this module."""
    if name == "Outcome":
        from riverrun import _outcomes

        return _outcomes.Outcome
    if name == "TaskCall":
        from riverrun import _calls

        return _calls.TaskCall
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


API_VERSION = 1
"""The version of this contract. A runner whose `api_version` differs is refused with a text that says so."""


class Concurrency(enum.Enum):
    """How the calls given to one executor relate to each other."""

    SEQUENTIAL = "sequential"
    """`submit()` returns when the call has ended; it ran in the caller's thread."""
    CONCURRENT = "concurrent"
    """Calls overlap in this process: they share its memory, so nothing is pickled."""
    PARALLEL = "parallel"
    """Calls run in other processes: calls and outcomes are pickled (by the core, before `submit()` sees them)."""


class TaskExecutor(Protocol):
    """What `TaskRunner.start()` yields: it serves one flow run, and its calls may be submitted from any thread."""

    def submit(self, call: TaskCall, /) -> Future[Outcome]:
        """Run a call.

        Args:
            call: a callable without arguments. It returns an outcome and never raises, whatever the task does.

        Returns:
            A future of the outcome. If the call is lost (its worker died), the future gets an exception.
        """
        ...


@runtime_checkable
class LocalTaskExecutor(TaskExecutor, Protocol):
    """Capability: an executor in this process that takes jobs which report on their own, so that no future is made."""

    def spawn(self, job: Callable[[], object], /) -> None:
        """Run a job (it never raises) on one of the executor's slots; return without waiting for it."""
        ...

    def spawn_async(self, job: Callable[[], Coroutine[Any, Any, object]], context: Context, /) -> None:
        """Run the coroutine that the job makes (it never raises), in a context, on an event loop of the executor's."""
        ...


@runtime_checkable
class HelpableTaskExecutor(Protocol):
    """Capability: a thread that waits for a job may run it itself."""

    def help(self, job: Callable[[], object], /) -> bool:
        """Run a job in the calling thread if one of the executor's slots is free; say whether it was run."""
        ...


@runtime_checkable
class ReplacingTaskExecutor(Protocol):
    """Capability: a slot whose job overran its time limit can be given to others."""

    def abandon(self, job: Callable[[], object], /) -> None:
        """Stop counting on a job that is running: replace its slot, and do not wait for it when stopping."""
        ...


class TaskReport(Protocol):
    """What a `RemoteTaskExecutor` tells about a call that it was given; from any thread, in the order of events.

    A call ends once: what is told after `ended` or `lost` is dropped. Nothing here waits for anything, so the thread
    that tells may be the one that everything else of the executor needs.
    """

    @property
    def attempt(self) -> int:
        """Which attempt at the task run it is, from 1."""
        ...

    def retries(self, count: int, /) -> None:
        """Let the run have at least so many retries: where the cluster has a way of its own to ask for them."""
        ...

    def begun(self, start_time: float, /) -> None:
        """Say that the call has begun on a worker; `start_time` in seconds since the epoch. It may be left out."""
        ...

    def logged(self, records: list[LogRecord], worker: str, /) -> None:
        """Hand over log records that the call has made so far."""
        ...

    def ended(self, outcome: Outcome, handle: object, /) -> None:
        """Hand over the outcome; where it says `kept`, the value is behind the handle."""
        ...

    def lost(self, error: CrashedRun, /, *, begun: bool = True, final: bool = False) -> None:
        """Say that the call will not end.

        Args:
            error: what is known about it, for people.
            begun: false if it is certain that its code has not begun: then this was no attempt.
            final: true if there is nobody left who could run it again.
        """
        ...


@runtime_checkable
class RemoteTaskExecutor(Protocol):
    """Capability: values stay on the workers, and a call may be sent before its upstreams have ended.

    Such an executor has these methods in the place of `submit()`. A *handle* is whatever stands for a value that is
    on the cluster, or will be: a future of the cluster's own, a reference to an object.
    """

    max_worker_losses: int
    """How often a run may be lost with its worker, and be run again, before it is Crashed."""

    def send(self, call: TaskCall, report: TaskReport, /) -> object:
        """Have a worker call `call.run_keeping(values, ...)`, when the values behind `call.upstreams` are there.

        Args:
            call: as it is pickled, it needs nothing else to travel.
            report: to be told what becomes of it. If an upstream ends without a value, nothing need be told.

        Returns:
            The handle of its value. The value lives as long as somebody has the handle.
        """
        ...

    def fetch(self, handle: object, /) -> object:
        """Give the value behind a handle.

        Raises:
            WorkerLost: it is not there any more.
        """
        ...

    def holds(self, handle: object, /) -> bool:
        """Say whether the value behind a handle is there (or on its way), as far as that is known."""
        ...

    def put(self, value: object, /) -> object:
        """Bring a value to the cluster, for many calls to take; give its handle."""
        ...

    def cancel(self, handle: object, /) -> bool:
        """Withdraw the call that was to make the value; true only if it is certain that it has not begun.

        It is called from any thread, also for a call whose upstream was lost. Nothing is told any more of a call that
        was withdrawn.
        """
        ...


@runtime_checkable
class CancellingTaskExecutor(Protocol):
    """Capability of a `RemoteTaskExecutor`: many calls are withdrawn at once, when a flow run is stopped."""

    def cancel_together(self, handles: list[Any], /) -> list[Any]:
        """Withdraw calls; give the handles of those of which it is certain that they have not begun."""
        ...


@runtime_checkable
class ExactTaskExecutor(Protocol):
    """Capability of a `RemoteTaskExecutor`: it knows of each call whether it has begun, and tells what follows."""

    cancel_is_exact: bool
    """True: where `cancel()` says False, the call has begun or has ended, and news of it has come or will come.

    A call that was sent before its upstreams had ended is called back when one of them is lost: it is withdrawn, and
    sent anew later. Where an executor cannot say for certain, that may be while it is still running; where this is
    True, the core waits for the news."""


@dataclass_transform(frozen_default=True, kw_only_default=False)
class TaskRunner(Options, abc.ABC):
    """A recipe for a task executor: configuration only, immutable, comparable, picklable, usable by several flow runs.

    To write one, subclass it: annotated class fields with defaults are its options. They are checked against their
    annotations when a runner is made, and `validate()` may be overridden to check them together. A class that is
    decorated with `@dataclass(frozen=True)` serves as well.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> class PoolTaskRunner(TaskRunner):
        ...     concurrency = Concurrency.CONCURRENT
        ...     threads: int = 4
        ...
        ...     def start(self):
        ...         return ThreadPoolExecutor(self.threads)
        >>> PoolTaskRunner(threads=2)
        PoolTaskRunner(threads=2)
        >>> PoolTaskRunner(threads=2).with_options(threads=4) == PoolTaskRunner()
        True

    Raises:
        TaskRunnerOptionError: an option does not exist, or a value does not fit its annotation.
        TaskRunnerError: the class does not say its `concurrency`.
    """

    concurrency: ClassVar[Concurrency]
    """How the calls given to one executor relate to each other. Every class that can be started says this."""
    api_version: ClassVar[int] = API_VERSION
    """The version of this contract that the class was written for: write it as a number, `1`."""
    replaces_lost_workers: ClassVar[bool] = False
    """Whether a flow run whose worker died goes on with another one: what is called after that completes."""
    survives_lost_workers: ClassVar[bool] = False
    """Whether a worker that dies takes no run with it but its own: those on other workers go on."""

    @abc.abstractmethod
    def start(self) -> AbstractContextManager[TaskExecutor | RemoteTaskExecutor]:
        """Start what the calls of one flow run need; leaving the context stops all of it.

        Returns:
            A context manager whose value is the executor. It is entered once, and left in every case: success,
            failure, interrupt. What a failed start has begun, it stops before it raises.

        Raises:
            TaskRunnerStartError: it cannot be started; the text says what to do.
        """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "concurrency" in vars(cls):
            check_concurrency(cls)

    def __post_init__(self) -> None:
        check_concurrency(type(self))
        super().__post_init__()


class ExecutorTaskRunner(TaskRunner):
    """A task runner on any executor of the `concurrent.futures` kind: a subclass says how one is made.

    An executor that breaks (one that raises `concurrent.futures.BrokenExecutor`, as a pool does of which a process was
    killed) is replaced: the calls that it had are lost, and what is called after that finds the next one.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> class PoolTaskRunner(ExecutorTaskRunner):
        ...     concurrency = Concurrency.CONCURRENT
        ...     threads: int = 4
        ...
        ...     def executor(self):
        ...         return ThreadPoolExecutor(self.threads)
        >>> PoolTaskRunner()
        PoolTaskRunner()
    """

    replaces_lost_workers: ClassVar[bool] = True

    @abc.abstractmethod
    def executor(self) -> AbstractContextManager[TaskExecutor]:
        """Make an executor: at the start of a flow run, and in the place of one that broke.

        Returns:
            A context manager whose value has `submit()`, as every `concurrent.futures.Executor` is. Leaving it stops
            all that it has started. What ends the flow run, if that is an exception, it is given on leaving.
        """

    def lanes(self) -> int | None:
        """Say how many executors serve a flow run, each with one call at a time.

        Returns:
            None, unless a subclass overrides this: one executor takes all calls. With a number, each executor should
            have one worker: then one that dies takes one call with it (declare `survives_lost_workers`), and no call
            is on a worker before it runs.
        """
        return None

    def start(self) -> AbstractContextManager[TaskExecutor]:
        """Start the first executor; leaving the context stops all that were made."""
        from riverrun._executors import Lanes, Replaced

        lanes = self.lanes()
        return Replaced(self.executor) if lanes is None else Lanes(self.executor, lanes)


def current_executor() -> Any:
    """Give the executor of the flow run that the present code belongs to: for functions that a runner's package offers.

    Returns:
        What the runner's `start()` gave, in a flow and in what runs in its process; None elsewhere, as on a worker.
    """
    scope = current_scope.get()
    return getattr(getattr(scope, "home", scope), "executor", None)


def check_concurrency(runner: type[TaskRunner]) -> None:
    """Refuse a class that does not say how its calls relate to each other.

    Args:
        runner: a class that is to be started.

    Raises:
        TaskRunnerError: it has no `concurrency`, or one that is no `Concurrency`.
    """
    declared = getattr(runner, "concurrency", None)
    if not isinstance(declared, Concurrency):
        have = f"`{runner.__name__}.concurrency` is {declared!r}" if declared else f"`{runner.__name__}` lacks it"
        choice = ", ".join(f"Concurrency.{member.name}" for member in Concurrency)
        raise TaskRunnerError(f"A task runner class sets `concurrency` to one of {choice}; {have}.")
