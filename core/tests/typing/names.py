"""Every public name is there for type checkers too, and meant for users: mypy's strict mode wants that explicit."""

# ruff: noqa: PLC0414

from __future__ import annotations

# `x as x` is how a type checker is told that an import is not forgotten.
from riverrun import (
    BlockingCallError as BlockingCallError,
)
from riverrun import (
    CancelledError as CancelledError,
)
from riverrun import (
    Concurrency as Concurrency,
)
from riverrun import (
    ConfigurationError as ConfigurationError,
)
from riverrun import (
    CrashedRun as CrashedRun,
)
from riverrun import (
    FailedRun as FailedRun,
)
from riverrun import (
    Flow as Flow,
)
from riverrun import (
    FlowRun as FlowRun,
)
from riverrun import (
    IncompatibleTaskRunner as IncompatibleTaskRunner,
)
from riverrun import (
    MappingError as MappingError,
)
from riverrun import (
    MappingLengthMismatch as MappingLengthMismatch,
)
from riverrun import (
    MappingMissingIterable as MappingMissingIterable,
)
from riverrun import (
    MissingContextError as MissingContextError,
)
from riverrun import (
    NotReadyError as NotReadyError,
)
from riverrun import (
    ObserverConflict as ObserverConflict,
)
from riverrun import (
    ObserverError as ObserverError,
)
from riverrun import (
    ObserverLoadError as ObserverLoadError,
)
from riverrun import (
    ObserverNotFound as ObserverNotFound,
)
from riverrun import (
    ObserverNotInstalled as ObserverNotInstalled,
)
from riverrun import (
    ParameterTypeError as ParameterTypeError,
)
from riverrun import (
    RemoteTaskError as RemoteTaskError,
)
from riverrun import (
    ReservedArgumentError as ReservedArgumentError,
)
from riverrun import (
    ResultTimeout as ResultTimeout,
)
from riverrun import (
    RiverrunError as RiverrunError,
)
from riverrun import (
    RunError as RunError,
)
from riverrun import (
    RunTimeout as RunTimeout,
)
from riverrun import (
    SettingsError as SettingsError,
)
from riverrun import (
    State as State,
)
from riverrun import (
    Task as Task,
)
from riverrun import (
    TaskFuture as TaskFuture,
)
from riverrun import (
    TaskFutureList as TaskFutureList,
)
from riverrun import (
    TaskRun as TaskRun,
)
from riverrun import (
    TaskRunner as TaskRunner,
)
from riverrun import (
    TaskRunnerConflict as TaskRunnerConflict,
)
from riverrun import (
    TaskRunnerError as TaskRunnerError,
)
from riverrun import (
    TaskRunnerLoadError as TaskRunnerLoadError,
)
from riverrun import (
    TaskRunnerNotFound as TaskRunnerNotFound,
)
from riverrun import (
    TaskRunnerNotInstalled as TaskRunnerNotInstalled,
)
from riverrun import (
    TaskRunnerOptionError as TaskRunnerOptionError,
)
from riverrun import (
    TaskRunnerStartError as TaskRunnerStartError,
)
from riverrun import (
    TaskSerializationError as TaskSerializationError,
)
from riverrun import (
    UnfinishedRun as UnfinishedRun,
)
from riverrun import (
    WorkerLost as WorkerLost,
)
from riverrun import (
    abc as abc,
)
from riverrun import (
    allow_failure as allow_failure,
)
from riverrun import (
    as_completed as as_completed,
)
from riverrun import (
    exceptions as exceptions,
)
from riverrun import (
    exponential_backoff as exponential_backoff,
)
from riverrun import (
    flow as flow,
)
from riverrun import (
    gather as gather,
)
from riverrun import (
    get_run_logger as get_run_logger,
)
from riverrun import (
    hookimpl as hookimpl,
)
from riverrun import (
    hookspecs as hookspecs,
)
from riverrun import (
    observers as observers,
)
from riverrun import (
    quote as quote,
)
from riverrun import (
    states as states,
)
from riverrun import (
    task as task,
)
from riverrun import (
    task_runners as task_runners,
)
from riverrun import (
    testing as testing,
)
from riverrun import (
    unmapped as unmapped,
)
from riverrun import (
    wait as wait,
)
