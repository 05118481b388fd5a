"""How an attempt ended, and how that travels: `Outcome`, with the value or the error in it packed as bytes.

It is packed where the function ran, and unpacked in the flow's process. What cannot be pickled on one side, or rebuilt
on the other, is the failure of that one run, with its name.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from riverrun import _inputs
from riverrun.exceptions import RemoteTaskError, TaskSerializationError

if TYPE_CHECKING:
    import logging


class Outcome:
    """How one attempt ended: a value, or an error; and what a worker has to say about it.

    Attributes:
        value: what the function returned, if `error` is None.
        error: what it raised.
        start_time: when it began, in seconds since the epoch; None where the flow's process noted it itself.
        records: the log records that were made on a worker.
        worker: the host and the process that ran it, for people; empty in the flow's own process.
        packed: the value as bytes, on its way between processes.
        kept: whether the value has stayed where it was made.
        missing: the name of the module that the worker would have needed to begin; empty if it has all.
        void: whether the function returned a State that is not `COMPLETED`: nothing for those who take its value.
    """

    __slots__ = ("error", "kept", "missing", "packed", "records", "start_time", "value", "void", "worker")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error
        self.start_time: float | None = None
        self.records: list[logging.LogRecord] | None = None
        self.worker = ""
        self.packed: bytes | None = None
        self.kept = False
        self.void = False
        self.missing = ""


def packed_outcome(outcome: Outcome, name: str) -> Outcome:
    """Turn the value or the error into bytes; what cannot be pickled becomes an error that can."""
    import cloudpickle

    if outcome.error is None:
        try:
            outcome.packed = cloudpickle.dumps(outcome.value)
        except Exception as error:  # noqa: BLE001
            outcome.error = cannot_return(outcome.value, name, error)
    outcome.value = None
    if outcome.error is not None:
        outcome.packed = _packed_error(outcome.error)
        outcome.error = RemoteTaskError("The exception is in `packed`.")
    return outcome


def cannot_return(value: Any, name: str, error: Exception) -> TaskSerializationError:
    """Make the exception of a task run whose result cannot be pickled."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    msg = f"Task run {name!r}: its result (of type {kind}) cannot be pickled to travel back: {error}. Return "
    return TaskSerializationError(f"{msg}what it is made from.")


class _TooLarge(Exception):
    """No error: it ends the pickling of what is to stay here."""


class _Bounded:
    """A file that takes so many bytes, and no more."""

    def __init__(self, most: int) -> None:
        self.parts: list[bytes] = []
        self._room = most

    def write(self, part: Any) -> int:
        self.take(len(part))
        self.parts.append(bytes(part))
        return len(part)

    def take(self, size: int) -> bool:
        self._room -= size
        if self._room < 0:
            raise _TooLarge
        return True


def packed_if_small(value: Any, most: int) -> bytes | None:
    """Pickle a value if that takes no more than so many bytes.

    Args:
        value: anything; the buffers of arrays are not copied to find out how large they are.
        most: in bytes.

    Returns:
        The bytes; None if there would be more.

    Raises:
        Exception: it cannot be pickled (as far as that was looked at: what is too large is not looked at to its end).

    Example:
        >>> from riverrun._outcomes import packed_if_small
        >>> packed_if_small(b"." * 2000, most=1000) is None
        True
    """
    if type(value) in _inputs.ATOMIC and not (hasattr(value, "__len__") and len(value) > most):
        return pickle.dumps(value, protocol=5) if type(value) is not type else _cloudpickled(value)
    import cloudpickle

    file = _Bounded(most)
    try:
        cloudpickle.Pickler(file, protocol=5, buffer_callback=lambda buffer: file.take(buffer.raw().nbytes)).dump(value)
    except _TooLarge:
        return None
    return b"".join(file.parts)


def _cloudpickled(value: Any) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value))


def _packed_error(error: BaseException) -> bytes:
    """Pickle an exception with the text of its traceback; one that does not come back the same travels as text."""
    import traceback

    import cloudpickle

    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        packed = cloudpickle.dumps((error, text))
        again = cloudpickle.loads(packed)[0]
        if type(again) is type(error) and str(again) == str(error):
            return bytes(packed)
    except Exception:  # noqa: BLE001, S110 - whatever goes wrong in user classes here, the text below travels
        pass
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    text_of_it = text.rpartition("\n")[2].partition(": ")[2]  # `traceback` copes with a `__str__` that raises
    substitute = RemoteTaskError(
        f"{kind}: {text_of_it} (this exception cannot be pickled; its traceback is in the notes)"
    )
    return bytes(cloudpickle.dumps((substitute, text)))


def unpack(outcome: Outcome, name: str) -> Outcome:
    """Turn what came back from another process into a value or an exception, with the worker's traceback as a note."""
    if outcome.packed is None:
        return outcome
    import cloudpickle

    packed, outcome.packed = outcome.packed, None
    failed = outcome.error is not None
    try:
        content = cloudpickle.loads(packed)
    except Exception as error:  # noqa: BLE001
        msg = f"Task run {name!r}: what worker {outcome.worker} sent back cannot be rebuilt here: {error!r}."
        outcome.error = TaskSerializationError(msg)
        outcome.error.__cause__ = error
        return outcome
    if failed:
        outcome.error, text = content
        # Some libraries see to it that a traceback is pickled, too: then it is there, and need not be said twice.
        told = "." if outcome.error.__traceback__ is not None else f":\n{text}"
        outcome.error.add_note(f"On worker {outcome.worker}{told}")
    else:
        outcome.value = content
    return outcome
