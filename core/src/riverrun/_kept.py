"""Values that have stayed on a worker, and how one that is lost with its worker is made again."""

from __future__ import annotations

import hashlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from riverrun import _inputs, _logging
from riverrun._outcomes import unpack
from riverrun._waits import wait
from riverrun.exceptions import MissingContextError, WorkerLost
from riverrun.states import Elsewhere

if TYPE_CHECKING:
    from contextvars import Context
    from logging import LogRecord

    from riverrun._calls import TaskCall
    from riverrun._futures import TaskRun
    from riverrun._outcomes import Outcome
    from riverrun.abc import RemoteTaskExecutor
    from riverrun.exceptions import CrashedRun

LARGE: Final = 1_000_000
"""An argument whose pickle is larger than this, in bytes, is brought to the cluster once for a flow run."""

MAX_SENDINGS: Final = 20
"""How often a call is sent anew because it was lost before it began, until that counts as a loss."""


class Kept(Elsewhere):
    """A value that has stayed on a worker; it lives there as long as this object does here."""

    __slots__ = ("__weakref__", "executor", "handle", "recipe")

    def __init__(self, executor: RemoteTaskExecutor, handle: Any, recipe: Recipe) -> None:
        self.executor = executor
        self.handle = handle
        self.recipe = recipe
        recipe.kept = weakref.ref(self)

    def is_there(self) -> bool:
        """Say whether it is not known to be lost."""
        return self.handle is not None and self.executor.holds(self.handle)

    def fetch(self) -> Any:
        """Give the value itself; one that is gone with its worker is made again.

        Raises:
            MissingContextError: the flow run is over, and has left the cluster.
        """
        self.recipe.check_flow_run()
        while True:
            if self.is_there():
                try:
                    return self.executor.fetch(self.handle)
                except WorkerLost:
                    if self.is_there():
                        raise
            self.recipe.restore(self)


class Recipe:
    """How a kept value was made: the call, and where its own upstreams come from. It holds no value."""

    def __init__(
        self,
        executor: RemoteTaskExecutor,
        call: TaskCall,
        sources: list[Any],
        *,
        run: TaskRun,
        losses: int,
        context: Context,
    ) -> None:
        self._executor = executor
        self._call = call
        self._key = call.key
        self._sources = sources
        self._run = run
        self._losses = losses
        self._sendings = 0
        self._context = context
        self.kept: weakref.ref[Kept] | None = None
        self._lock = threading.Lock()

    def check_flow_run(self) -> None:
        """Refuse what has no place to be any more: a flow run that is over has left its cluster."""
        home: Any = self._run.flow_run
        if home.closed is not None:
            msg = (
                f"The value of task run {self._run.name!r} stayed on the cluster, and {home.label} is over: it is not "
                f"there any more. Return it from the flow, or call result() while the flow runs."
            )
            raise MissingContextError(msg)

    def value(self) -> Kept:
        """Give the value as it is on the cluster; it is made again where it is gone."""
        kept = None if self.kept is None else self.kept()
        if kept is None:
            kept = Kept(self._executor, None, self)
        self.restore(kept)
        return kept

    def restore(self, kept: Kept) -> None:
        """See that the value is on the cluster; this waits for it.

        Raises:
            WorkerLost: it was lost too often.
            Exception: what the function raised this time.
        """
        with self._lock:
            began, sent = True, 0
            while not kept.is_there():
                if began or sent > MAX_SENDINGS:
                    self._count_the_loss()
                sources = [source.value() for source in self._sources]  # held until the call has ended
                sent += 1
                self._run.run_count += 1
                self._sendings += 1
                self._call.key = f"{self._key}-again-{self._sendings}"
                self._call.upstreams = tuple([source.handle for source in sources])
                again = _Again(self._run.run_count)
                handle = self._context.copy().run(self._executor.send, self._call, again)
                if again.ended_well():
                    kept.handle = handle
                elif not (began := again.began):  # something it takes was lost before it began, perhaps
                    self._run.run_count -= 1

    def _count_the_loss(self) -> None:
        self._losses += 1
        most = self._executor.max_worker_losses
        if self._losses > most:
            msg = (
                f"The value of task run {self._run.name!r} is gone with the worker that had it, and the run was lost "
                f"{self._losses} times: it is not run again (max_worker_losses is {most})."
            )
            raise WorkerLost(msg)
        _logging.task_logger.warning(
            "The value of task run %r is gone with the worker that had it: it is run again (loss %d of %d).",
            self._run.name, self._losses, most,
        )  # fmt: skip


class _Again:
    """The report of a call that only makes a value again: the state of its run is final already."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._ended = threading.Event()
        self._lost = False
        self.began = True
        self._error: BaseException | None = None

    def retries(self, count: int, /) -> None:
        pass

    def begun(self, start_time: float, /) -> None:
        pass

    def logged(self, records: list[LogRecord], worker: str, /) -> None:
        _logging.replay(records, {"worker": worker})

    def ended(self, outcome: Outcome, _: object, /) -> None:
        self.logged(outcome.records or [], outcome.worker)
        if outcome.error is not None:
            self._error = unpack(outcome, "").error
        self._ended.set()

    def lost(self, error: CrashedRun, /, *, begun: bool = True, final: bool = False) -> None:
        self._lost = True
        self.began = begun
        self._error = error if final else None
        self._ended.set()

    def ended_well(self) -> bool:
        """Wait for the end; false if the call was lost, too."""
        wait(self._ended)
        if self._error is not None:
            raise self._error
        return not self._lost


class Put:
    """A value of this process that is brought to the cluster once, for many calls."""

    def __init__(self, executor: RemoteTaskExecutor, value: Any, digest: bytes | None = None) -> None:
        self._executor = executor
        self._argument = value
        self._digest = digest
        self._handle: Any = None
        self._lock = threading.Lock()

    def value(self) -> Put:
        """Give what has the handle, as a recipe does."""
        return self

    @property
    def handle(self) -> Any:
        """The handle. The value is brought to the cluster at first, and when it is gone from there.

        Raises:
            WorkerLost: it is gone, and was changed here meanwhile.
        """
        with self._lock:
            if self._handle is not None and not self._executor.holds(self._handle):
                if self._digest is not None and digest_if_large(self._argument) != self._digest:
                    kind = type(self._argument).__name__
                    msg = (
                        f"An argument (of type {kind}) is gone with the worker that had it, and it was changed in the "
                        f"flow's process since the call: it cannot be sent again as it was."
                    )
                    raise WorkerLost(msg)
                self._handle = None
            if self._handle is None:
                self._handle = self._executor.put(self._argument)
            return self._handle


def size_of(value: Any) -> int | None:
    """Say how large a value is, in bytes, where that costs nothing to know; else None."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if type(value) in _inputs.ATOMIC:
        return 0
    try:
        size = getattr(value, "nbytes", None)
    except Exception:  # noqa: BLE001 - a property of a class of somebody's: lazy data frames have one that raises
        return None
    return size if type(size) is int else None


def digest_if_large(value: Any) -> bytes | None:
    """Give a digest of the pickle of a value if that is large; else None.

    The content decides, not the object: one that was changed between two calls is another argument. Buffers of arrays
    are read where they are, not copied.

    Raises:
        Exception: it cannot be pickled.
    """
    import cloudpickle

    size = size_of(value)
    if size is not None and size <= LARGE:
        return None
    buffers: list[Any] = []
    packed = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    if len(packed) + sum(view.nbytes for view in views) <= LARGE:
        return None
    digest = hashlib.blake2b(packed, digest_size=32)
    for view in views:
        digest.update(view)
    return digest.digest()
