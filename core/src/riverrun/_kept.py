"""Values that have stayed on a worker, and how one that is lost with its worker is made again."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from riverrun import _inputs, _logging
from riverrun._endings import describe
from riverrun._outcomes import unpack
from riverrun._waits import Countdown, wait
from riverrun.exceptions import CrashedRun, MissingContextError, WorkerLost
from riverrun.states import Elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context
    from logging import LogRecord

    from riverrun._calls import TaskCall
    from riverrun._futures import TaskRun
    from riverrun._outcomes import Outcome
    from riverrun.abc import RemoteTaskExecutor

    Then = Callable[[Exception | None], object]

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
        """Whether it is not known to be lost."""
        return self.handle is not None and self.executor.holds(self.handle)

    def ensure(self, then: Then) -> None:
        """See that it is there: see `Recipe.ensure`."""
        self.recipe.ensure(then)

    def fetch(self) -> Any:
        """Return the value itself; one that is gone with its worker is made again.

        Raises:
            MissingContextError: the flow run is over, and has left the cluster.
            WorkerLost: it was lost too often.
        """
        self.recipe.check_flow_run()
        while True:
            handle = self.handle
            if self.is_there():
                try:
                    return self.executor.fetch(handle)
                except WorkerLost:
                    # Somebody else may have found that before, and it is there again, behind another handle.
                    if self.handle is handle and self.is_there():
                        raise
            self._wait_for_it()

    def _wait_for_it(self) -> None:
        there = threading.Event()
        errors: list[Exception] = []

        def ensured(error: Exception | None) -> None:
            if error is not None:
                errors.append(error)
            there.set()

        self.ensure(ensured)
        wait(there)
        if errors:
            raise errors[0]


class Recipe:
    """How a kept value was made: the call, and where its own upstreams come from. It holds no value.

    Nobody waits here for a value that is made again: who brings the news of one goes on with what needs it.
    """

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
        self._waiting: list[Then] = []
        self._making: Kept | None = None
        """The value, while it is made again."""
        self._holding: list[Any] = []
        """What must not be released meanwhile: the values that the call takes, and the call's own handle."""
        self._is_a_loss = True
        self._sent = 0

    def check_flow_run(self) -> None:
        """Refuse what has no place to be any more: a flow run that is over has left its cluster."""
        home: Any = self._run.flow_run
        if home.closed is not None:
            msg = (
                f"The value of task run {self._run.name!r} stayed on the cluster, and {home.label} is over: it is not "
                f"there any more. Return it from the flow, or call result() while the flow runs."
            )
            raise MissingContextError(msg)

    @property
    def handle(self) -> Any:
        """The handle of the value; ask when it is ensured."""
        kept = self.held()
        return None if kept is None else kept.handle

    def held(self) -> Kept | None:
        """Return what keeps the value alive."""
        return self._making or (None if self.kept is None else self.kept())

    def ensure(self, then: Then) -> None:
        """See that the value is on the cluster.

        Args:
            then: called when it is, with None, or with the reason why it cannot be: now, or on the thread that brings
                the news. `held()` is to be asked for while it is called.
        """
        with self._lock:
            self._waiting.append(then)
            if self._making is not None:
                return
            self._making = (None if self.kept is None else self.kept()) or Kept(self._executor, None, self)
            self._is_a_loss, self._sent = True, 0
        _flat(self._step)

    def _step(self) -> None:
        kept = self._making
        if kept is None or kept.is_there():
            self._done(None)
            return
        if self._is_a_loss or self._sent > MAX_SENDINGS:
            error = self._count_the_loss()
            if error is not None:
                self._done(error)
                return
        when_all_there(self._sources, self._send)

    def _send(self, error: Exception | None) -> None:
        if error is not None:
            self._done(error)
            return
        held = [source.held() for source in self._sources]
        self._holding = held
        self._sent += 1
        self._sendings += 1
        self._call.key = f"{self._key}-again-{self._sendings}"
        self._call.upstreams = tuple([one.handle for one in held])
        again = _Again(self, self._run)
        try:
            handle = self._context.copy().run(self._executor.send, self._call, again)
        except Exception as raised:  # noqa: BLE001 - the cluster is gone, or refuses it
            if again.take():
                msg = f"The value of task run {self._run.name!r} cannot be made again: {describe(raised)}"
                refused = CrashedRun(msg)
                refused.__cause__ = raised
                self._done(raised if isinstance(raised, CrashedRun) else refused)
            return
        if not again.is_told:
            held.append(handle)

    def made(self, handle: object) -> None:
        """Take that the call has ended well."""
        if self._making is not None:
            self._making.handle = handle
        self._is_a_loss = True  # if it is gone by now, it was lost once more
        _flat(self._step)

    def lost(self, *, begun: bool) -> None:
        """Take that the call was lost; where it had not begun, something that it takes was, perhaps."""
        self._is_a_loss = begun
        _flat(self._step)

    def failed(self, error: Exception) -> None:
        """Take that the call has ended without a value."""
        self._done(error)

    def _done(self, error: Exception | None) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(error)
        with self._lock:
            self._making, self._holding = None, []
            late = bool(self._waiting)
            waiting, self._waiting = self._waiting, []
        if late:
            for then in waiting:
                self.ensure(then)

    def _count_the_loss(self) -> WorkerLost | None:
        self._losses += 1
        most = self._executor.max_worker_losses
        if self._losses > most:
            msg = (
                f"The value of task run {self._run.name!r} is gone with the worker that had it, and the run was lost "
                f"{self._losses} times: it is not run again (max_worker_losses is {most})."
            )
            return WorkerLost(msg)
        text = "The value of task run %r is gone with the worker that had it: it is run again (loss %d of %d)."
        losses, name = self._losses, self._run.name
        self._run.flow_run.tell(lambda: _logging.task_logger.warning(text, name, losses, most))
        return None


class _Again:
    """The report of a call that only makes a value again: the state of its run is final already."""

    def __init__(self, recipe: Recipe, run: TaskRun) -> None:
        self.attempt = run.run_count + 1
        self.is_told = False
        self._recipe = recipe
        self._run = run
        self._counted = False

    def take(self) -> bool:
        """Whether nobody has told how the call ended."""
        with self._run.lock:
            told, self.is_told = self.is_told, True
            return not told

    def _count(self) -> None:
        with self._run.lock:
            self._run.run_count += not self._counted
            self._counted = True

    def retries(self, count: int, /) -> None:
        pass

    def begun(self, start_time: float, /) -> None:  # noqa: ARG002 - the contract's
        self._count()

    def logged(self, records: list[LogRecord], worker: str, /) -> None:
        self._run.flow_run.tell(lambda: _logging.replay(records, {"worker": worker}))

    def ended(self, outcome: Outcome, handle: object, /) -> None:
        if not self.take():
            return
        self._count()
        self.logged(outcome.records or [], outcome.worker)
        if outcome.error is None:
            self._recipe.made(handle)
            return
        error = unpack(outcome, "").error
        self._recipe.failed(error if isinstance(error, Exception) else WorkerLost(f"It was interrupted: {error!r}."))

    def lost(self, error: CrashedRun, /, *, begun: bool = True, final: bool = False) -> None:
        if not self.take():
            return
        if begun:
            self._count()
        if final:
            self._recipe.failed(error)
        else:
            self._recipe.lost(begun=begun or self._counted)


def when_all_there(sources: Sequence[Any], then: Then) -> None:
    """Call `then` when all values are on the cluster, or with the first reason why one cannot be."""
    countdown = Countdown(len(sources) + 1)  # one more than there are: nobody is the last before all are asked for
    errors: list[Exception] = []

    def one(error: Exception | None) -> None:
        if error is not None:
            errors.append(error)
        if countdown.is_over():
            then(errors[0] if errors else None)

    for source in sources:
        source.ensure(one)
    one(None)


class _Steps(threading.local):
    """The steps that are due on this thread; None where none is being taken."""

    due: deque[Callable[[], object]] | None = None


_steps: Final = _Steps()


def _flat(step: Callable[[], object]) -> None:
    """Take a step; one that comes out of another is taken after it: a long chain of values needs no deep stack."""
    if _steps.due is not None:
        _steps.due.append(step)
        return
    _steps.due = deque([step])
    try:
        while _steps.due:
            _steps.due.popleft()()
    finally:
        _steps.due = None


class Put:
    """A value of this process that is brought to the cluster once, for many calls."""

    def __init__(self, executor: RemoteTaskExecutor, value: Any, digest: bytes | None = None) -> None:
        self._executor = executor
        self._argument = value
        self._digest = digest
        self._handle: Any = None
        self._lock = threading.Lock()

    def held(self) -> Put:
        """Return what keeps the value alive, as a recipe does."""
        return self

    def ensure(self, then: Then) -> None:
        """Bring the value to the cluster, if it is not there."""
        error: Exception | None = None
        try:
            _ = self.handle
        except Exception as raised:  # noqa: BLE001 - the cluster is gone, or the value was changed
            error = raised
        then(error)

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
