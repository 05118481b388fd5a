"""States: what became of a run, as immutable values.

A state has a *type* (one of six, it decides what follows) and a *name* (for people; by default the type's own).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from riverrun.exceptions import CancelledError, CrashedRun, FailedRun, NotReadyError, UnfinishedRun

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AwaitingRetry",
    "Cached",
    "Cancelled",
    "Completed",
    "Crashed",
    "Failed",
    "NotReady",
    "Pending",
    "Retrying",
    "Running",
    "State",
    "StateType",
    "TimedOut",
    "aggregate",
]


class StateType(enum.StrEnum):
    """The six types of state."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"


class Elsewhere:
    """Stands for a value that has stayed on a worker, until somebody asks for it."""

    __slots__ = ()

    def fetch(self) -> Any:
        """Give the value itself; this may take a while."""
        raise NotImplementedError


_FINAL_TYPES: Final = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})


class State:
    """What became of a run.

    Two states are equal when type, name and message are; the value is not compared.

    Args:
        type: one of the six types, or its name.
        name: for people; by default the type's own (`Completed` for `COMPLETED`).
        message: one sentence more, if there is one.
        data: the value of a completed run, or the exception of one that did not complete.

    Example:
        >>> from riverrun.states import State
        >>> State("COMPLETED", message="All states completed.")
        Completed(message='All states completed.', type=COMPLETED)
    """

    __slots__ = ("_data", "_final", "message", "name", "type")
    __match_args__ = ("type", "name", "message")

    type: StateType
    name: str
    message: str | None
    _data: Any
    _final: bool

    def __init__(
        self,
        type: StateType | str,  # noqa: A002 - the field's standard name
        name: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        type = StateType(type)  # noqa: A001
        keep = object.__setattr__
        keep(self, "type", type)
        keep(self, "name", type.value.capitalize() if name is None else name)
        keep(self, "message", message)
        keep(self, "_data", data)
        # NotReady is of type PENDING, and yet the last state of its run.
        keep(self, "_final", type in _FINAL_TYPES or name == "NotReady")

    @property
    def data(self) -> Any:
        """The value, or the exception; a value that has stayed on a worker is fetched."""
        data = self._data
        return data.fetch() if isinstance(data, Elsewhere) else data

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"A State is immutable: cannot set {name!r}. Make another one, such as Completed(message=...)."
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"A State is immutable: cannot delete {name!r}."
        raise AttributeError(msg)

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return (self.type, self.name, self.message) == (other.type, other.name, other.message)

    def __hash__(self) -> int:
        return hash((self.type, self.name, self.message))

    def __reduce__(self) -> tuple[Any, ...]:
        return (State, (self.type.value, self.name, self.message, self.data))

    def is_pending(self) -> bool:
        """Say whether the type is `PENDING`."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Say whether the type is `RUNNING`."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Say whether the run ended well."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Say whether the run's code raised, or overran its time limit."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Say whether the infrastructure lost the run."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Say whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_not_ready(self) -> bool:
        """Say whether the run never started because an upstream did not complete."""
        return self.name == "NotReady"

    def is_final(self) -> bool:
        """Say whether this is the last state of its run."""
        return self._final

    def result(self, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002 - as in TaskFuture.result
        """Give the value of a completed run.

        Args:
            raise_on_failure: if false, the exception of a run that did not complete is returned, not raised.

        Raises:
            UnfinishedRun: the state is not final.
            Exception: what the run raised; or FailedRun, CrashedRun, CancelledError, NotReadyError.
        """
        if self.type is StateType.COMPLETED:
            return self.data
        if not self._final:
            msg = f"The run has no result yet: its state is {self!r}. Wait for it with `future.wait()`."
            raise UnfinishedRun(msg)
        error = self.exception()
        if raise_on_failure:
            raise error
        return error

    def exception(self) -> BaseException:
        """Give the exception that stands for a final state which is not `COMPLETED`."""
        if isinstance(self.data, BaseException) and not self.is_not_ready():
            return self.data
        kind = NotReadyError if self.is_not_ready() else _EXCEPTIONS[self.type]
        error = kind(self.message or f"The run ended in state {self!r}.")
        if isinstance(self.data, BaseException):
            error.__cause__ = self.data
        return error

    def with_data(self, data: Any) -> State:
        """Give the same state, with a value."""
        return State(self.type, self.name, self.message, data)


_EXCEPTIONS: Final = {
    StateType.FAILED: FailedRun,
    StateType.CRASHED: CrashedRun,
    StateType.CANCELLED: CancelledError,
    StateType.PENDING: UnfinishedRun,
    StateType.RUNNING: UnfinishedRun,
}


def Completed(message: str | None = None, data: Any = None) -> State:  # noqa: N802 - reads like the class it stands for, as do all below
    """Make the state of a run that ended well; `data` is its value."""
    return State(StateType.COMPLETED, None, message, data)


def Cached(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run whose value came from the cache."""
    return State(StateType.COMPLETED, "Cached", message, data)


def Failed(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run whose code raised; `data` is the exception, if there is one."""
    return State(StateType.FAILED, None, message, data)


def TimedOut(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run that exceeded its `timeout_seconds`."""
    return State(StateType.FAILED, "TimedOut", message, data)


def Crashed(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run that the infrastructure lost."""
    return State(StateType.CRASHED, None, message, data)


def Cancelled(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run that was cancelled."""
    return State(StateType.CANCELLED, None, message, data)


def Pending(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run that has not started."""
    return State(StateType.PENDING, None, message, data)


def NotReady(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the last state of a run whose upstream did not complete; `data` is the root failure."""
    return State(StateType.PENDING, "NotReady", message, data)


def Running(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run that has started."""
    return State(StateType.RUNNING, None, message, data)


def AwaitingRetry(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run that failed and waits for its next attempt."""
    return State(StateType.PENDING, "AwaitingRetry", message, data)


def Retrying(message: str | None = None, data: Any = None) -> State:  # noqa: N802
    """Make the state of a run in its second or a later attempt."""
    return State(StateType.RUNNING, "Retrying", message, data)


# Runs share these: a state without a message, an exception or a value says the same about each of them.
PENDING: Final = Pending()
RUNNING: Final = Running()
RETRYING: Final = Retrying()
COMPLETED: Final = Completed()
CACHED: Final = Cached()


def aggregate(states: Iterable[State]) -> State:
    """Give the one state that stands for many: failures first, then cancellations, then what is not final.

    Example:
        >>> from riverrun.states import Completed, Failed, aggregate
        >>> aggregate([Completed(), Failed("no disk"), Completed()])
        Failed(message='1/3 states failed.', type=FAILED)
    """
    states = list(states)
    total = len(states)
    completed = failed = cancelled = 0
    for state in states:
        if state.type is StateType.COMPLETED:
            completed += 1
        elif state.type is StateType.FAILED or state.type is StateType.CRASHED:
            failed += 1
        elif state.type is StateType.CANCELLED:
            cancelled += 1
    if completed == total:
        return Completed("All states completed.")
    if failed:
        return Failed(f"{failed}/{total} states failed.")
    if cancelled:
        return Cancelled(f"{cancelled}/{total} states cancelled.")
    return Failed(f"{total - completed}/{total} states are not final.")
