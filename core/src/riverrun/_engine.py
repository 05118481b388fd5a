"""Where task runs belong, and how they get there.

::

    home.submit(task, args)                        a flow run, or a task run in whose body a task is called
        TaskRun, TaskFuture, Submission            record, what the user holds, what the engine works on
        upstreams pending?  --- yes ---> counted; the last upstream's callback goes on
               | no                                        |
        Submission.ready  <--------------------------------+
               |  an upstream did not complete -> NotReady        value in the cache -> Cached
               v
        home.dispatch(submission)                  the one place that knows the executor (`_dispatch`)
               v
        claim -> execute -> end                    in whatever thread, loop or process
               |  failed, and may be tried again -> timer -> dispatch
               v
        finish: final state -> callbacks of the future -> dependents become ready

Nobody waits here: each step is called by the one before, on the thread where that one ended.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from riverrun import _inputs, _logging, _names, _timers
from riverrun._futures import TaskRun
from riverrun._submissions import Submission
from riverrun.exceptions import CancelledError, MissingContextError, ParameterTypeError
from riverrun.states import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun import _async
    from riverrun._futures import TaskFuture
    from riverrun._mapping import Source
    from riverrun._observation import Observation
    from riverrun._remote import Remote
    from riverrun._submissions import Gate
    from riverrun._tasks import Task
    from riverrun._timers import Timers
    from riverrun.states import State


class Home:
    """Where task runs belong: a flow run, or a task run in whose body tasks are called."""

    dispatch: Callable[[Submission], None]
    """Hands a ready submission to the executor."""
    retries_in_place = False
    """True where a run is tried again before the call returns: one at a time, in the order of the calls."""
    remote: Remote | None = None
    """What hands submissions to an executor that keeps values; None for all others."""
    loop: _async.Loop | None = None
    helper: Callable[[Callable[[], object]], object] | None = None
    """Runs a submission in the calling thread if a slot is free; None where nobody may help."""
    helps = True
    """Whether a thread that waits may run a task itself: not where a time limit or a cancellation has to wake it."""
    observed: Observation | None = None
    """What tells observers what happens to its task runs; None where nobody listens to that."""
    abandon: Callable[[Callable[[], object]], object]
    """Tells the executor to stop counting on a submission that is running."""

    def __init__(self, log_prints: bool | None, depth: int) -> None:  # noqa: FBT001 - True or None, as for `execute`
        self.depth = depth
        """How many flow runs are around it."""
        self.id = _names.new_id()
        self.log_prints = log_prints
        self.is_plain = log_prints is None
        """Whether nothing is around the functions of its tasks."""
        self.runs: list[Any] = []
        """The records of all runs, in the order of submission."""
        self.live: dict[int, Submission] = {}
        """The submissions whose end has not been told to everybody, by number."""
        self.open: dict[int, Submission] = {}
        """Those that have not reached a final state. Who pops one may end it."""
        self.queued: dict[int, Submission] = {}
        """Those that were handed to the executor and have not begun. Who pops one may begin it."""
        self.finishing: set[object] = set()
        """What the end of the flow waits for besides: callbacks of users."""
        self.interrupt: BaseException | None = None
        """What interrupted a task that had the thread of the flow's event loop."""
        self.unread: list[Source] = []
        """Generators of maps that have not been read to their end."""
        self.closed: State | None = None
        """Once nothing more may be submitted: the state that says why."""
        self.when_idle_then: Callable[[], object] | None = None
        self.logs_info = _logging.task_logger.isEnabledFor(logging.INFO)
        self._numbers = itertools.count(1)
        self._indexes: dict[str, itertools.count[int]] = {}
        self._lock = threading.Lock()
        self._timers: Timers | None = None

    @property
    def label(self) -> str:
        """What to call it in an error."""
        raise NotImplementedError

    def log_fields(self) -> dict[str, Any]:
        """Give what log records of its task runs say of it."""
        raise NotImplementedError

    def submit(
        self,
        task: Task[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        gate: Gate | None = None,
    ) -> TaskFuture[Any]:
        """Take a call of a task: give its future at once, and see that it runs when its upstreams are done."""
        if kwargs or not task.least_arguments <= len(args) <= task.most_arguments:
            task.signature.bind(args, kwargs)
        # Looked for before anything is noted down: what a user's own container raises here concerns nobody else.
        given = (*args, *kwargs.values()) if kwargs else args
        found = _inputs.find(given) if given else None
        waits = None if wait_for is None else _inputs.find(checked_wait_for(wait_for, task))
        indexes = self._indexes.get(task.run_key)
        if indexes is None:
            indexes = self._indexes.setdefault(task.run_key, itertools.count())
        number = next(self._numbers)
        run = TaskRun(self, task, number, next(indexes))
        job = Submission(self, task, run, args, kwargs)
        future = job.future
        self.open[number] = self.live[number] = job
        if self.closed is not None:  # looked at now, so that the end of the flow sees the run, or the run sees the end
            if self.open.pop(number, None) is not None:  # else `leave_running` has ended it
                self.live.pop(number, None)
            raise self._refusal(task)
        self.runs.append(run)
        if self.observed is not None:
            self.observed.task_run_state_changed(run, PENDING, time.time())
        if gate is not None:
            job.gate = gate
            job.waiting = True
        if found is not None:
            job.annotated = True
        if found is not None or waits is not None:
            upstreams = found.upstreams if found else []
            job.await_upstreams([*upstreams, *waits.upstreams] if waits else upstreams, early=not waits)
        elif gate is None and not task.needs_parameters:
            job.dispatch()
        else:
            job.ready()
        return future

    def _refusal(self, task: Task[Any, Any]) -> Exception:
        if self.closed is not None and self.closed.is_cancelled():
            return CancelledError(f"Task {task.name!r} was called in {self.label}, which is being cancelled.")
        msg = (
            f"Task {task.name!r} was called in {self.label}, which has ended. Call it while the flow runs, or "
            f"`{task.name}.fn(...)`."
        )
        return MissingContextError(msg)

    @property
    def timers(self) -> Timers:
        """The delays and deadlines of its runs."""
        with self._lock:
            if self._timers is None:
                self._timers = _timers.clock.timers()
            return self._timers

    def stop_timers(self) -> None:
        """End the timers' thread, if there is one."""
        if self._timers is not None:
            self._timers.stop()

    def when_idle(self, then: Callable[[], object]) -> None:
        """Call `then` once, when every run is final and its hooks and callbacks have been called: now, perhaps."""
        self.when_idle_then = then
        self.tell_if_idle()

    def tell_if_idle(self) -> None:
        """Call what waits for the end, if this is the end."""
        if not self.live and not self.finishing:
            with self._lock:
                then, self.when_idle_then = self.when_idle_then, None
            if then is not None:
                then()


def checked_wait_for(wait_for: Any, task: Task[Any, Any]) -> Iterable[Any]:
    """Give the upstreams of `wait_for=`, or say what is wrong with it."""
    if isinstance(wait_for, (_inputs.Upstream, _inputs.Annotation)) or not isinstance(wait_for, Iterable):
        given = type(wait_for).__name__
        hint = "It takes futures in a list: wait_for=[future]."
        msg = f"Task {task.name!r} was called with wait_for= of type {given}. {hint}"
        raise ParameterTypeError(msg)
    return wait_for


class NestedHome(Home):
    """Where the runs belong of tasks that are called in the body of a task: they run in place, one by one."""

    def __init__(self, scope: Any) -> None:
        super().__init__(scope.log_prints, getattr(getattr(scope, "home", None), "depth", 0))
        self._scope = scope

    @property
    def label(self) -> str:
        """What to call it in an error."""
        return f"task run {self._scope.name!r}"

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the run around it; its own runs put theirs over them."""
        return dict(self._scope.log_fields())

    def close(self) -> None:
        """Run what the body has left to be run: the elements of maps that nobody looked into."""
        for source in list(self.unread):
            source.read_all()
        self.stop_timers()


def nested_home(scope: Any) -> Home:
    """Give the home for tasks that are called in the body of a task run."""
    if scope.nested is None:
        from riverrun._dispatch import connect_in_place

        scope.nested = NestedHome(scope)
        connect_in_place(scope.nested)
    home: Home = scope.nested
    return home
