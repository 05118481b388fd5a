"""Telling observers what happens to a flow run and all that runs in it.

::

    a flow run, outermost --> `_observing.opened()` --> Observation; None without observers, and nobody asks for more
    subflow runs, task runs: the same one                    |
    something happens ----------------------> a queue for each observer that listens to it
                                                             |  on the observer's own thread
                                                             v
                                              the event is made, the hook is called
    the end of the flow --------------------> waits until each has been told everything, or hangs

An event is made where it is told, not where it happens: there, no more than a tuple is put into a queue.
"""

from __future__ import annotations

import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from riverrun import _logging
from riverrun._listeners import Listener, is_observing

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from riverrun._observer_loading import Observer
    from riverrun._surroundings import Surrounding
    from riverrun.states import State


class Observation:
    """What tells the observers of one outermost flow run."""

    def __init__(self, observers: list[Observer]) -> None:
        self._listeners = [Listener(one.name, one.label, one.hooks, copy_context()) for one in observers]
        self._of_tasks = self._listening_to("riverrun_task_run_state_changed")
        self._of_logs = self._listening_to("riverrun_log_record")
        self._around_flows = self._listening_to("riverrun_around_flow_run")
        self._around_tasks = self._listening_to("riverrun_around_task_run")
        self.surrounds_tasks = bool(self._around_tasks)
        """Whether an observer wants something to be around the functions of tasks."""
        self.is_about_tasks = bool(self._of_tasks) or self.surrounds_tasks
        """Whether the engine has anything to tell about task runs."""
        self._flow_runs: set[str] = set()
        self._handler: logging.Handler | None = None
        if self._of_logs:
            self._handler = _RecordHandler(self._log_record)
            _logging.root_logger.addHandler(self._handler)

    def _listening_to(self, hook: str) -> list[Listener]:
        return [listener for listener in self._listeners if hook in listener.hooks]

    def _tell(self, hook: str, make: Callable[..., object], *args: object) -> None:
        for listener in self._listening_to(hook):
            listener.tell(hook, make, *args)

    def flow_run_started(self, run: Any) -> None:
        """Tell that a flow run begins."""
        from riverrun import _events

        self._flow_runs.add(run.id)
        self._tell("riverrun_flow_run_started", _events.flow_run_started, run)

    def wait_for_the_start(self) -> None:
        """Wait until the start of a flow run has been told, and all before it: its function is called after that."""
        for listener in self._listening_to("riverrun_flow_run_started"):
            listener.wait()

    def flow_run_finished(self, run: Any, state: State) -> None:
        """Tell the final state of a flow run."""
        from riverrun import _events

        self._tell("riverrun_flow_run_finished", _events.flow_run_finished, run, state, run.end_time)

    def task_runner_started(self, run: Any, task_runner: str) -> None:
        """Tell that the task runner of a flow run has started."""
        from riverrun import _events

        self._tell("riverrun_task_runner_started", _events.task_runner_started, run, task_runner, time.time())

    def task_runner_stopped(self, run: Any, task_runner: str) -> None:
        """Tell that the task runner of a flow run has shut down."""
        from riverrun import _events

        self._tell("riverrun_task_runner_stopped", _events.task_runner_stopped, run, task_runner, time.time())

    def task_run_state_changed(self, run: Any, state: State, time: float) -> None:
        """Tell the new state of a task run; in the order of its states, so call it with the run's lock held."""
        for listener in self._of_tasks:
            listener.tell("riverrun_task_run_state_changed", _state_change, run, run.run_count, state, time)

    def _log_record(self, record: logging.LogRecord) -> None:
        run_id = getattr(record, "flow_run_id", None)
        if is_observing() or (run_id is not None and run_id not in self._flow_runs):
            return
        message = record.getMessage()  # now: what it is made of may change
        for listener in self._of_logs:
            listener.tell("riverrun_log_record", _log_event, record, message)

    def around_flow_run(self, run: Any) -> tuple[Surrounding, ...]:
        """Ask what is to be around a flow's function."""
        from riverrun import _events

        return self._asked(self._around_flows, "riverrun_around_flow_run", _events.flow_run_attempt, run)

    def around_task_run(self, run: Any, attempt: int) -> tuple[Surrounding, ...]:
        """Ask what is to be around a task's function, in the given attempt (from 1)."""
        from riverrun import _events

        make = partial(_events.task_run_attempt, attempt=attempt)
        return self._asked(self._around_tasks, "riverrun_around_task_run", make, run)

    def _asked(
        self, listeners: list[Listener], hook: str, make: Callable[[Any, float], object], run: Any
    ) -> tuple[Surrounding, ...]:
        if not listeners:
            return ()
        event = make(run, time.time())
        given = [(listener.name, listener.call_here(hook, event)) for listener in listeners]
        return tuple([(name, surrounding) for name, surrounding in given if surrounding is not None])

    def close(self) -> None:
        """Wait until every observer has been told everything, and end their threads."""
        if self._handler is not None:
            _logging.root_logger.removeHandler(self._handler)
        for listener in self._listeners:
            listener.stop()


def _state_change(*args: Any) -> object:
    from riverrun import _events

    return _events.task_run_state_changed(*args)


def _log_event(record: logging.LogRecord, message: str) -> object:
    from riverrun import _events

    return _events.log_record(record, message)


class _RecordHandler(_logging.SilentHandler):
    """Takes what is logged below `riverrun` while flow runs are observed."""

    def __init__(self, take: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._take(record)
        except Exception:  # noqa: BLE001 - a template that its arguments do not fit: told as every handler does
            self.handleError(record)
