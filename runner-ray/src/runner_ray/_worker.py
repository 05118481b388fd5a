"""What runs on a worker: one call of a task.

Its first return is the outcome, and its second the value, which stays in the object store. A call without a value
raises instead, with the outcome inside: so Ray runs none of those that were sent to take its value.
"""

from __future__ import annotations

import pickle
import signal
import threading
from typing import TYPE_CHECKING, Any

from runner_ray import _notes
from runner_ray._shared import Shared

if TYPE_CHECKING:
    from logging import LogRecord

    from riverrun.abc import Outcome, TaskCall
    from riverrun.workers import Parcel

INLINE = 10_000
"""Up to this size, in bytes, the pickle of a value travels to the flow's process with the outcome."""


class Reported(Exception):
    """The call has no value, and says why: those who take its value must not run.

    Args:
        key: the call's.
        outcome: the pickled outcome.
    """

    def __init__(self, key: str, outcome: bytes) -> None:
        super().__init__(key, outcome)
        self.key = key
        self.outcome = outcome

    def __str__(self) -> str:
        return f"{self.key} has no value"


def payload_of(call: TaskCall) -> bytes:
    """Pack a call: its key, readable without the rest, and its pickle; one argument, for each costs Ray its time.

    Args:
        call: the call.
    """
    return b"%b\n%b" % (call.key.encode(), pickle.dumps(call, protocol=5))


def run(payload: bytes, *values: Any) -> tuple[bytes, Any]:
    """Run one call.

    Args:
        payload: the call, packed.
        values: those of its upstreams.

    Returns:
        The outcome, pickled, and the value.

    Raises:
        Reported: there is no value.
        SystemExit: the process was told to end, and the run is lost with it.
    """
    _handle_signals()
    start, _, packed_call = payload.partition(b"\n")
    key = start.decode()
    journal = _notes.journal()
    journal.begin(key)
    records = Records(key, journal)
    try:
        call: TaskCall = pickle.loads(packed_call)  # noqa: S301 - the flow's process is trusted: it sends code
        packed = [value if isinstance(value, Shared) else Shared(value, []) for value in values]
        outcome, value = call.run_keeping(packed, INLINE, records)
        if _terminated is not None:
            raise _terminated
        kept = _for_others(outcome, value, call.name)
        outcome.records = [*records] or None
        told = pickle.dumps(outcome, protocol=5)
    finally:
        journal.end(key)
    if outcome.error is not None or outcome.void:
        raise Reported(key, told)
    return told, kept


def run_shipped(parcels: list[Parcel], payload: bytes, *values: Any) -> tuple[bytes, Any]:
    """Make shipped code importable, and do what `run` does."""
    from riverrun.workers import unpack

    unpack(parcels)
    return run(payload, *values)


def _for_others(outcome: Outcome, value: Any, name: str) -> Any:
    """Pack a value for those who take it; where that cannot be done, the outcome gets the error."""
    if outcome.error is not None or outcome.void:
        return None
    if type(value) in PLAIN and not outcome.kept:
        return pickle.dumps(value, protocol=5)
    try:
        return Shared.of(value)
    except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
        from riverrun.exceptions import TaskSerializationError

        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        outcome.error = TaskSerializationError(
            f"Task run {name!r}: its result (of type {kind}) cannot be pickled to leave its worker: {error}. Return "
            "what it is made from."
        )
        outcome.kept = False
        return None


PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class Records(list["LogRecord"]):
    """The log records of one call; each is also noted in a file that outlives the process."""

    def __init__(self, key: str, journal: Any) -> None:
        super().__init__()
        self._key = key
        self._journal = journal

    def append(self, record: LogRecord) -> None:
        """Keep a record."""
        super().append(record)
        self._journal.line(self._key, record.getMessage())


_handles_signals = False
_terminated: SystemExit | None = None
"""What Ray raised at SIGTERM, in whatever code ran: it is none of the task's exceptions."""


def _handle_signals() -> None:
    """See to it, once per process, that signals are not taken for what a task does.

    `ray.cancel()` is to withdraw what has not begun, and not to disturb what has: it interrupts the process. A task
    that handles interrupts on its own still can. A function, and not SIG_IGN, which subprocesses would inherit.
    """
    global _handles_signals  # noqa: PLW0603 - once per process
    if _handles_signals or threading.current_thread() is not threading.main_thread():
        return
    _handles_signals = True
    signal.signal(signal.SIGINT, lambda *_: None)
    of_ray = signal.getsignal(signal.SIGTERM)
    if callable(of_ray):

        def terminate(number: int, frame: Any) -> None:
            global _terminated  # noqa: PLW0603
            try:
                of_ray(number, frame)
            except SystemExit as error:
                _terminated = error
                raise

        signal.signal(signal.SIGTERM, terminate)
