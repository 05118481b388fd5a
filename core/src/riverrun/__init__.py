"""Riverrun: flows and tasks in plain Python, whose task runner is a plugin.

Every public name is here; each is loaded when it is first used, so that `import riverrun` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riverrun._flow_runs import FlowRun
    from riverrun._flows import Flow, flow
    from riverrun._futures import TaskFuture, TaskRun
    from riverrun._inputs import allow_failure, quote, unmapped
    from riverrun._logging import get_run_logger
    from riverrun._mapping import TaskFutureList
    from riverrun._retries import exponential_backoff
    from riverrun._tasks import Task, task
    from riverrun._waiting import as_completed, gather, wait
    from riverrun.abc import Concurrency, TaskRunner
    from riverrun.exceptions import *  # noqa: F403 - each is listed below
    from riverrun.hookspecs import hookimpl
    from riverrun.states import State

_EXCEPTIONS = (
    "BlockingCallError",
    "CancelledError",
    "ConfigurationError",
    "CrashedRun",
    "FailedRun",
    "IncompatibleTaskRunner",
    "MappingError",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "NotReadyError",
    "ParameterTypeError",
    "RemoteTaskError",
    "ReservedArgumentError",
    "ResultTimeout",
    "RiverrunError",
    "RunError",
    "RunTimeout",
    "SettingsError",
    "TaskRunnerConflict",
    "TaskRunnerError",
    "TaskRunnerLoadError",
    "TaskRunnerNotFound",
    "TaskRunnerNotInstalled",
    "TaskRunnerOptionError",
    "TaskRunnerStartError",
    "TaskSerializationError",
    "UnfinishedRun",
    "WorkerLost",
)
_HOMES = {
    **dict.fromkeys(_EXCEPTIONS, "exceptions"),
    "Concurrency": "abc",
    "Flow": "_flows",
    "FlowRun": "_flow_runs",
    "State": "states",
    "Task": "_tasks",
    "TaskFuture": "_futures",
    "TaskFutureList": "_mapping",
    "TaskRun": "_futures",
    "TaskRunner": "abc",
    "allow_failure": "_inputs",
    "as_completed": "_waiting",
    "exponential_backoff": "_retries",
    "flow": "_flows",
    "gather": "_waiting",
    "get_run_logger": "_logging",
    "hookimpl": "hookspecs",
    "quote": "_inputs",
    "task": "_tasks",
    "unmapped": "_inputs",
    "wait": "_waiting",
}
_MODULES = ("abc", "exceptions", "hookspecs", "states", "task_runners", "testing")

__all__ = [*_HOMES, *_MODULES]  # noqa: PLE0604 - every one of them is a str


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"riverrun.{name}")
    if name == "__version__":
        from importlib_metadata import version

        return version("core")
    home = _HOMES.get(name)
    if home is None:
        msg = f"module 'riverrun' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"riverrun.{home}"), name)
    globals()[name] = value  # found at once the next time
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
