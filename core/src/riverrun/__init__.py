"""Riverrun: flows and tasks in plain Python, whose task runner is a plugin.

Every public name is here; each is loaded when it is first used, so that `import riverrun` costs next to nothing.

PYTEST_DONT_REWRITE (pytest looks for this: the plugin in `riverrun.testing` is no reason to look for assertions here)
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing it from `typing` would take 10 ms

if TYPE_CHECKING:
    # `x as x` tells type checkers that the name is meant for users.
    from riverrun import abc as abc
    from riverrun import exceptions as exceptions
    from riverrun import hookspecs as hookspecs
    from riverrun import observers as observers
    from riverrun import states as states
    from riverrun import task_runners as task_runners
    from riverrun import testing as testing
    from riverrun import workers as workers
    from riverrun._flow_runs import FlowRun as FlowRun
    from riverrun._flows import Flow as Flow
    from riverrun._flows import flow as flow
    from riverrun._futures import TaskFuture as TaskFuture
    from riverrun._futures import TaskRun as TaskRun
    from riverrun._inputs import allow_failure as allow_failure
    from riverrun._inputs import quote as quote
    from riverrun._inputs import unmapped as unmapped
    from riverrun._logging import get_run_logger as get_run_logger
    from riverrun._mapping import TaskFutureList as TaskFutureList
    from riverrun._retries import exponential_backoff as exponential_backoff
    from riverrun._tasks import Task as Task
    from riverrun._tasks import task as task
    from riverrun._waiting import as_completed as as_completed
    from riverrun._waiting import gather as gather
    from riverrun._waiting import wait as wait
    from riverrun.abc import Concurrency as Concurrency
    from riverrun.abc import TaskRunner as TaskRunner
    from riverrun.exceptions import BlockingCallError as BlockingCallError
    from riverrun.exceptions import CancelledError as CancelledError
    from riverrun.exceptions import ConfigurationError as ConfigurationError
    from riverrun.exceptions import CrashedRun as CrashedRun
    from riverrun.exceptions import FailedRun as FailedRun
    from riverrun.exceptions import IncompatibleTaskRunner as IncompatibleTaskRunner
    from riverrun.exceptions import MappingError as MappingError
    from riverrun.exceptions import MappingLengthMismatch as MappingLengthMismatch
    from riverrun.exceptions import MappingMissingIterable as MappingMissingIterable
    from riverrun.exceptions import MissingContextError as MissingContextError
    from riverrun.exceptions import NotReadyError as NotReadyError
    from riverrun.exceptions import ObserverConflict as ObserverConflict
    from riverrun.exceptions import ObserverError as ObserverError
    from riverrun.exceptions import ObserverLoadError as ObserverLoadError
    from riverrun.exceptions import ObserverNotFound as ObserverNotFound
    from riverrun.exceptions import ObserverNotInstalled as ObserverNotInstalled
    from riverrun.exceptions import ParameterTypeError as ParameterTypeError
    from riverrun.exceptions import RemoteTaskError as RemoteTaskError
    from riverrun.exceptions import ReservedArgumentError as ReservedArgumentError
    from riverrun.exceptions import ResultTimeout as ResultTimeout
    from riverrun.exceptions import RiverrunError as RiverrunError
    from riverrun.exceptions import RunError as RunError
    from riverrun.exceptions import RunTimeout as RunTimeout
    from riverrun.exceptions import SettingsError as SettingsError
    from riverrun.exceptions import TaskRunnerConflict as TaskRunnerConflict
    from riverrun.exceptions import TaskRunnerError as TaskRunnerError
    from riverrun.exceptions import TaskRunnerLoadError as TaskRunnerLoadError
    from riverrun.exceptions import TaskRunnerNotFound as TaskRunnerNotFound
    from riverrun.exceptions import TaskRunnerNotInstalled as TaskRunnerNotInstalled
    from riverrun.exceptions import TaskRunnerOptionError as TaskRunnerOptionError
    from riverrun.exceptions import TaskRunnerStartError as TaskRunnerStartError
    from riverrun.exceptions import TaskSerializationError as TaskSerializationError
    from riverrun.exceptions import UnfinishedRun as UnfinishedRun
    from riverrun.exceptions import WorkerLost as WorkerLost
    from riverrun.hookspecs import hookimpl as hookimpl
    from riverrun.states import State as State

    __version__: str

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
    "ObserverConflict",
    "ObserverError",
    "ObserverLoadError",
    "ObserverNotFound",
    "ObserverNotInstalled",
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
_MODULES = ("abc", "exceptions", "hookspecs", "observers", "states", "task_runners", "workers", "testing")

__all__ = [*_HOMES, *_MODULES[:-1]]  # noqa: PLE0604 - all are texts; without `testing`, which needs pytest

if not TYPE_CHECKING:  # to a type checker, what is not listed above does not exist

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
