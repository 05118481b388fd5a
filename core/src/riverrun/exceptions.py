"""All exceptions of Riverrun.

The tree::

    RiverrunError
    ├── ConfigurationError (ValueError)      a flow, a task or a setting was written in a way that cannot work
    │   ├── ReservedArgumentError            a user function has a parameter that Riverrun needs for itself
    │   └── SettingsError                    an environment variable or `[tool.riverrun]` has a bad value
    ├── ParameterTypeError (TypeError)       a flow was called with parameters that do not fit its signature
    ├── MissingContextError (RuntimeError)   a task was called where no flow is running
    ├── BlockingCallError (RuntimeError)     a call would block the event loop that has to do the work
    ├── MappingError (ValueError)
    │   ├── MappingLengthMismatch            iterables of different lengths were given to `.map()`
    │   └── MappingMissingIterable           nothing that can be mapped was given to `.map()`
    ├── TaskRunnerError                      a task runner cannot be used; the subclasses say why
    │   ├── TaskRunnerNotFound (LookupError)        no distribution offers a runner of that name
    │   │   └── TaskRunnerNotInstalled              one of ours, and its package is not installed
    │   ├── TaskRunnerConflict (LookupError)        two distributions offer one name
    │   ├── TaskRunnerLoadError                     the plugin is there and cannot be loaded
    │   ├── IncompatibleTaskRunner                  it was written for another version of the contract
    │   ├── TaskRunnerOptionError (TypeError)       an option that does not exist, or a value of the wrong type
    │   └── TaskRunnerStartError                    it did not start
    ├── ObserverError                        an observer cannot be used; the subclasses say why
    │   ├── ObserverNotFound (LookupError)          no distribution offers an observer of that name
    │   │   └── ObserverNotInstalled                one does, and the extra that it needs is not installed
    │   ├── ObserverConflict (LookupError)          two distributions offer one name
    │   └── ObserverLoadError                       the plugin is there and cannot be loaded
    └── RunError                             what `result()` raises where no exception of the user's is at hand
        ├── FailedRun                        the run failed and has no exception of its own
        ├── CrashedRun                       the infrastructure lost the run
        │   └── WorkerLost                   ... with the worker it was on
        ├── CancelledError (concurrent.futures.CancelledError)  the run was cancelled
        ├── NotReadyError                    an upstream did not complete, so the run never started
        ├── UnfinishedRun                    the run has no final state
        ├── RunTimeout (TimeoutError)        the run exceeded its own `timeout_seconds`
        ├── ResultTimeout (TimeoutError)     `result(timeout=...)` waited long enough; the run goes on
        ├── TaskSerializationError           an argument or a result cannot travel to or from a worker
        └── RemoteTaskError                  an exception that could not travel: its text does

Every one of them takes one message, so that each can be pickled.
"""

from __future__ import annotations

from concurrent.futures import CancelledError as _FutureCancelledError


class RiverrunError(Exception):
    """The base of every exception that Riverrun itself raises."""


class ConfigurationError(RiverrunError, ValueError):
    """A flow, a task or a setting was written in a way that cannot work."""


class ReservedArgumentError(ConfigurationError):
    """A user function has a parameter whose name Riverrun needs for itself (`wait_for`, `return_state`)."""


class SettingsError(ConfigurationError):
    """An environment variable or `[tool.riverrun]` has a value that cannot be used."""


class ParameterTypeError(RiverrunError, TypeError):
    """A flow was called with parameters that do not fit its signature; the text names all of them."""


class MissingContextError(RiverrunError, RuntimeError):
    """A task was called where no flow is running."""


class BlockingCallError(RiverrunError, RuntimeError):
    """A call would block the event loop whose tasks it waits for."""


class MappingError(RiverrunError, ValueError):
    """The arguments of `.map()` cannot be mapped."""


class MappingLengthMismatch(MappingError):
    """Iterables of different lengths were given to `.map()`."""


class MappingMissingIterable(MappingError):
    """Nothing that can be mapped was given to `.map()`."""


class TaskRunnerError(RiverrunError):
    """A task runner cannot be used."""


class TaskRunnerNotFound(TaskRunnerError, LookupError):
    """No installed distribution offers a task runner of that name."""


class TaskRunnerNotInstalled(TaskRunnerNotFound):
    """The task runner is one of Riverrun's own, and its package is not installed."""


class TaskRunnerConflict(TaskRunnerError, LookupError):
    """Two distributions offer a task runner of one name."""


class TaskRunnerLoadError(TaskRunnerError):
    """The plugin was found and cannot be loaded; the text has its distribution, version and traceback."""


class IncompatibleTaskRunner(TaskRunnerError):
    """The task runner was written for another version of the contract in `riverrun.abc`."""


class TaskRunnerOptionError(TaskRunnerError, TypeError):
    """An option that the task runner does not have, or a value that does not fit the option."""


class TaskRunnerStartError(TaskRunnerError):
    """The task runner did not start."""


class ObserverError(RiverrunError):
    """An observer cannot be used."""


class ObserverNotFound(ObserverError, LookupError):
    """No installed distribution offers an observer of that name."""


class ObserverNotInstalled(ObserverNotFound):
    """The observer is there, and the extra of its distribution that it needs is not installed."""


class ObserverConflict(ObserverError, LookupError):
    """Two distributions offer an observer of one name."""


class ObserverLoadError(ObserverError):
    """The plugin was found and cannot be loaded, or the class of an observer cannot be called; the text says why."""


class RunError(RiverrunError):
    """Raised by `result()` where no exception of the user's own code is at hand."""


class FailedRun(RunError):
    """The run failed and has no exception of its own."""


class CrashedRun(RunError):
    """The infrastructure lost the run: a dead worker, a lost scheduler, an interrupt."""


class WorkerLost(CrashedRun):
    """The worker that a task run was on is gone."""


class CancelledError(RunError, _FutureCancelledError):
    """The run was cancelled."""


class NotReadyError(RunError):
    """An upstream did not complete, so the run never started. `__cause__` is the root failure."""


class UnfinishedRun(RunError):
    """The run has no final state, so it has no result."""


class RunTimeout(RunError, TimeoutError):
    """The run exceeded its own `timeout_seconds`."""


class ResultTimeout(RunError, TimeoutError):
    """`result(timeout=...)` has waited long enough; the run itself goes on."""


class TaskSerializationError(RunError):
    """An argument, a result or an exception cannot travel to or from a worker."""


class RemoteTaskError(RunError):
    """Stands for an exception of a worker that could not travel; its text holds the original traceback."""
