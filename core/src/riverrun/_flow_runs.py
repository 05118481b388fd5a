"""The life of a flow run: parameters, task runner, body, the wait for all that was submitted, the final state.

What is here is plain code; `_drivers` has the two doors, for sync and for async flows.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from riverrun import _event_log, _inputs, _logging, _names, _observing, _settings, _steps
from riverrun._context import current_scope
from riverrun._dispatch import connected
from riverrun._endings import run_hook
from riverrun._engine import Home
from riverrun._futures import TaskFuture
from riverrun._parameters import Validator
from riverrun.exceptions import CrashedRun, RunTimeout, TaskRunnerError, TaskRunnerStartError
from riverrun.states import COMPLETED, PENDING, RUNNING, Cancelled, Crashed, State, TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun._flows import Flow
    from riverrun._observation import Observation
    from riverrun.abc import TaskRunner

MAX_DEPTH: Final = 50
"""How many flow runs may be inside each other: a flow that calls itself without end gets a clear error, early enough
that the interpreter's own stack is not used up first."""


class FlowRun(Home):
    """One run of a flow.

    Attributes:
        id: unique, in the form of a UUID.
        name: `flow_run_name` if the flow has one, else two random words.
        parameters: the parameters by name.
        state: the present state.
        start_time: when it began, in seconds since the epoch.
        end_time: when it ended, in seconds since the epoch; None before.
        run_count: how many attempts have begun.
        runs: the records of its task runs and subflow runs, in the order of submission.
    """

    is_flow = True
    surroundings: tuple[Any, ...] = ()
    """What observers want to be around the flow's function."""
    observation: Observation | None = None
    """What tells observers what happens to it; None where there are none."""
    parent_task_run_id: str | None = None
    """Of a flow that was called in a task: that task's run."""

    def __init__(
        self,
        flow: Flow[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        wait_for: Any = None,
        tracked: bool = True,
    ) -> None:
        scope = current_scope.get()
        around = getattr(scope, "home", scope)
        logs_around = getattr(around, "log_prints", None)
        logs = logs_around if flow.log_prints is None else flow.log_prints
        super().__init__(True if logs else (False if logs_around else None), getattr(around, "depth", 0) + 1)
        self.flow = flow
        self.helps = tracked and flow.timeout_seconds is None
        self.parent: FlowRun | None = scope if scope is not None and scope.is_flow else None
        self.parameters: dict[str, Any] = {}
        self.state: State = PENDING
        self.start_time = time.time()
        self.end_time: float | None = None
        self.run_count = 0
        self.nested = None
        self.executor: Any = None
        """What the task runner has started."""
        self.cancelled = False
        """Whether the flow around it has given it up: then it is not tried again."""
        self.observation_to_close: Observation | None = None
        """Of an outermost flow run with observers: it lasts as long as the run."""
        self._told_that_it_started = False
        self._event_log: str | None = getattr(around, "_event_log", None)
        """Where its events are written when it ends."""
        self.first_run = 0
        """Where the runs of the present attempt begin in `runs`."""
        self._args, self._kwargs, self._wait_for = args, kwargs, wait_for
        self._name: str | None = None
        if self.depth > MAX_DEPTH:
            msg = f"Flow {flow.name!r} was called {MAX_DEPTH} flow runs deep. Does it call itself without end?"
            raise RecursionError(msg)
        if scope is None:
            settings = _settings.load()
            self._event_log = settings.event_log
            _logging.configure(settings.log_level)
            self.logs_info = _logging.flow_logger.isEnabledFor(logging.INFO)
            self.is_quiet = not self.logs_info
            if settings.observers or _observing.registered:
                self._observe(_observing.opened(settings))
                self.observation_to_close = self.observation
        elif getattr(around, "observation", None) is not None:
            self._observe(around.observation)
            if around is not scope:
                self.parent_task_run_id = scope.run.id
        if self.parent is not None and tracked:
            self.parent.runs.append(self)

    def _observe(self, observation: Observation | None) -> None:
        self.observation = observation
        if observation is not None and observation.is_about_tasks:
            self.observed, self.is_watched = observation, True
            self.is_plain = self.is_plain and not observation.surrounds_tasks

    @property
    def name(self) -> str:
        """The name of the flow run."""
        if self._name is None:
            with self._lock:  # observers ask on threads of their own
                if self._name is None:
                    self._name = _names.random_name()
        return self._name

    @property
    def flow_name(self) -> str:
        """The name of the flow."""
        return self.flow.name

    @property
    def awaits(self) -> bool:
        """Say whether the code inside is a coroutine."""
        return self.flow.is_async

    @property
    def label(self) -> str:
        """What to call it in an error."""
        return f"flow run {self.name!r}"

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the log records of the run and of its task runs."""
        return {"flow_run_name": self.name, "flow_run_id": self.id, "flow_name": self.flow.name}

    def log_identity(self) -> tuple[str, str, dict[str, Any]]:
        """Give what log records say of the run."""
        return "Flow run", self.name, self.log_fields()

    def _log(self, level: int, text: str, *args: object) -> None:
        if _logging.flow_logger.isEnabledFor(level):
            _logging.flow_logger.log(level, text, *args, extra=self.log_fields())

    # -- before the body

    def futures_among_arguments(self) -> list[TaskFuture[Any]]:
        """Give the futures that have to be final before the flow can begin."""
        found = _inputs.upstreams_in([*self._args, *self._kwargs.values(), self._wait_for])
        return [upstream for upstream in found if isinstance(upstream, TaskFuture)]

    def prepare(self) -> None:
        """Make the parameters, and the name, from the arguments; every future among them is final.

        Raises:
            ParameterTypeError: they do not fit the flow.
        """

        def value_of(future: Any, may_fail: bool) -> Any:  # noqa: FBT001
            return future.result(raise_on_failure=not may_fail)

        flow = self.flow
        args = tuple([_inputs.replace(value, value_of) for value in self._args])
        kwargs = {name: _inputs.replace(value, value_of) for name, value in self._kwargs.items()}
        self._args, self._kwargs = (), {}
        self.parameters = flow.signature.bind(args, kwargs)
        if flow.validate_parameters:
            self.parameters = Validator(flow.signature, f"Flow {flow.name!r}").validate(self.parameters)
        self._name = _names.render(flow.flow_run_name, self.parameters, option="flow_run_name") or self._name

    def begin(self) -> None:
        """Say that the run begins; observers are told soon."""
        self.state = RUNNING
        if self.observation is not None:
            self.observation.flow_run_started(self)

    def log_the_beginning(self) -> None:
        """Log that the run begins; observers have been told."""
        kind = "flow run" if self.parent is None else "subflow run"
        if self.logs_info:
            self._log(logging.INFO, f"Beginning {kind} %r for flow %r...", self.name, self.flow.name)

    @contextmanager
    def task_runner_started(self, runner: TaskRunner) -> Iterator[None]:
        """Keep a task runner started around the body; stop it in every case."""
        name = type(runner).__name__
        if self.logs_info:
            self._log(logging.INFO, "Starting task runner `%s`...", name)
        with ExitStack() as stack:
            stack.callback(self._tell_that_it_stopped, name)
            try:
                self.executor = stack.enter_context(runner.start())
                self.dispatch = connected(self, runner.concurrency, self.executor)
                self.is_quiet = self.dispatch.is_local and not self.logs_info
            except TaskRunnerError:
                raise
            except Exception as error:
                msg = f"Task runner `{name}` did not start for {self.label} of flow {self.flow.name!r}: {error}"
                raise TaskRunnerStartError(msg) from error
            stack.callback(self.stop_timers)
            stack.enter_context(_event_log.noted(self, self._event_log))
            if self.observation is not None:
                self.observation.task_runner_started(self, name)
                self._told_that_it_started = True
            try:
                yield
            finally:
                self.closed = self.closed or COMPLETED  # before the executor is gone: what comes later is refused
                self.leave_running()
                if self.logs_info:
                    self._log(logging.INFO, "Shutting down task runner `%s`...", name)

    def _tell_that_it_stopped(self, name: str) -> None:
        if self.observation is not None and self._told_that_it_started:
            self.observation.task_runner_stopped(self, name)

    # -- around one attempt at the body

    def attempt(self) -> None:
        """Begin an attempt: only its own runs count for its final state."""
        self.run_count += 1
        self.first_run = len(self.runs)
        if not self.cancelled:
            self.closed = None  # an attempt that overran the time limit takes no more calls; this one does
        if self.observation is not None:
            self.surroundings = self.observation.around_flow_run(self)

    def delay_before_retry(self, state: State) -> float | None:
        """Give the delay in seconds before the next attempt; None if there is none."""
        if self.cancelled or not (state.is_failed() or state.is_crashed()) or self.run_count > self.flow.retries:
            return None
        delay = self.flow.retry_delay(self.run_count)
        self._log(
            logging.WARNING, "Flow run %r failed in attempt %d of %d and is tried again in %.3g seconds: %s",
            self.name, self.run_count, self.flow.retries + 1, delay, state.message,
        )  # fmt: skip
        return delay

    def timed_out(self) -> State:
        """Give the state of a flow run that exceeded its time limit."""
        message = f"Flow run exceeded timeout of {float(self.flow.timeout_seconds or 0)} seconds"
        return TimedOut(message, RunTimeout(message))

    def stop_taking(self, state: State) -> None:
        """Take no more calls, cancel what has not started, and ask what can be stopped to stop."""
        self.closed = state
        for run in self.runs[self.first_run :]:
            if isinstance(run, FlowRun) and not run.state.is_final():  # a subflow that the body is in
                run.cancelled = True
                run.overrun()
        for job in reversed(list(self.live.values())):  # dependents first: they are cancelled, too, and not "not ready"
            _steps.cancel(job)

    def leave_running(self) -> None:
        """End what is still running: it takes a final state now, whatever its code does later."""
        for job in list(self.live.values()):
            text = f"{self.label.capitalize()} ended while this task run was running."
            _steps.abort(job, Crashed(text, CrashedRun(text)))

    def overrun(self) -> None:
        """Give everything up at the deadline of the flow."""
        self.stop_taking(Cancelled("The flow run exceeded its timeout."))
        self.leave_running()

    # -- after the body

    def end(self, state: State) -> None:
        """Take the final state, and tell everybody."""
        if self.observation is not None and self.state is PENDING:  # it could not even begin
            self.observation.flow_run_started(self)
        self.end_time = time.time()
        self.closed = self.closed or COMPLETED
        self.state = state
        level = logging.INFO if state.is_completed() else logging.WARNING if state.is_cancelled() else logging.ERROR
        kind = "Flow run" if self.parent is None else "Subflow run"
        if _logging.flow_logger.isEnabledFor(level):  # the name is not made for nobody
            self._log(level, f"{kind} %r finished in state %s", self.name, repr(state))  # a kept record keeps no value
        if self.observation is not None:
            self.observation.flow_run_finished(self, state)
        for hook in self.flow.hooks_for(state):
            run_hook(hook, self.flow, self, state)
        if state.is_completed():
            self.state = state.with_data(None)  # the record keeps no value
        if self.parent is not None:
            self.parameters = {}  # nor what was passed, as long as the flow around it runs
