"""What a plugin may implement: the hook that says which task runner it brings, and the hooks of observers.

**A task runner.** An entry point of the group `riverrun.task_runners` may name the task runner class, which needs none
of this, or a plugin: a module or an object with an implementation of the hook `riverrun_task_runner`::

    from riverrun import hookimpl


    @hookimpl
    def riverrun_task_runner():
        from runner_slurm.runner import SlurmTaskRunner  # imported when somebody asks for the runner

        return SlurmTaskRunner

**An observer** is told what happens to a run. An entry point of the group `riverrun.observers` names a class, of which
each flow run gets an object of its own, or an object or module. It implements whichever of the other hooks it likes::

    class Counter:
        @hookimpl
        def riverrun_task_run_state_changed(self, event):
            print(event.task_run_name, event.state.name)

Each hook of an observer is given one frozen record, `event` (its classes are in `riverrun.observers`). They are called
in the flow's process, one at a time and in the order of the events, on a thread that belongs to this observer; but for
the two hooks `riverrun_around_...`, which are called where the engine is at that moment: they have to return at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from riverrun import _events as events
    from riverrun.abc import TaskRunner

hookspec = pluggy.HookspecMarker("riverrun")
hookimpl = pluggy.HookimplMarker("riverrun")
"""Marks a function or method of a plugin as the implementation of the hook of that name."""


@hookspec(firstresult=True)
def riverrun_task_runner() -> type[TaskRunner]:
    """Tell which task runner the plugin brings.

    Returns:
        A subclass of `riverrun.abc.TaskRunner`: the class, no instance.
    """
    raise NotImplementedError  # a specification: only its signature counts


@hookspec
def riverrun_flow_run_started(event: events.FlowRunStarted) -> None:
    """Note that a flow run, or a subflow run, begins. Its function is called when this has returned."""


@hookspec
def riverrun_flow_run_finished(event: events.FlowRunFinished) -> None:
    """Note that a flow run has reached its final state."""


@hookspec
def riverrun_task_runner_started(event: events.TaskRunnerStarted) -> None:
    """Note that the task runner of a flow run has started."""


@hookspec
def riverrun_task_runner_stopped(event: events.TaskRunnerStopped) -> None:
    """Note that the task runner of a flow run has shut down."""


@hookspec
def riverrun_task_run_state_changed(event: events.TaskRunStateChanged) -> None:
    """Note that a task run is in a new state: first `Pending`, last one for which `event.state.is_final()`."""


@hookspec
def riverrun_log_record(event: events.LogRecord) -> None:
    """Note a log record of Riverrun's, of the level in the settings or above; also one that was made on a worker."""


@hookspec(firstresult=True)
def riverrun_around_flow_run(event: events.FlowRunAttempt) -> Callable[[], AbstractContextManager[object]] | None:
    """Give what makes a context manager to be around the flow's function, in the thread, or coroutine, that calls it.

    Called where the engine is: it has to return at once.
    """


@hookspec(firstresult=True)
def riverrun_around_task_run(event: events.TaskRunAttempt) -> Callable[[], AbstractContextManager[object]] | None:
    """Give what makes a context manager to be around the task's function, wherever that runs.

    For a worker in another process it is pickled: give a function of a module, or a `functools.partial` of one. What
    cannot be pickled, made or entered is told in the log, and the task runs without it. Called where the engine is: it
    has to return at once.
    """
