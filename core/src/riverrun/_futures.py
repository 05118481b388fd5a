"""Task futures: what users hold of a task run; and task runs: what the flow run remembers of it.

They are two objects so that a value lives exactly as long as somebody can ask for it: the flow run keeps the
`TaskRun` (scalars only), the user and pending dependents keep the `TaskFuture` (which has the value).
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar

from riverrun import _async, _names
from riverrun._context import current_scope
from riverrun._endings import call_user
from riverrun._inputs import Upstream
from riverrun._waits import acquire
from riverrun.exceptions import BlockingCallError, ResultTimeout
from riverrun.states import COMPLETED, PENDING, Elsewhere, State, StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

R_co = TypeVar("R_co", covariant=True)


class Home(Protocol):
    """What a future needs of the flow run it belongs to."""

    id: str
    loop: _async.Loop | None
    """The event loop of an async flow; None for a sync one."""
    live: Any
    """What is not final, by number."""
    finishing: set[Any]
    """What the end of the flow waits for besides."""
    closed: State | None
    """Once nothing more may be submitted: the state that says why."""

    def tell_if_idle(self) -> None:
        """Look whether this is the end."""
        ...

    def tell(self, function: Callable[[], object]) -> None:
        """Call what a user gave where it may call tasks and wait for them."""
        ...

    def help(self, pending: Any, *, run_it: bool) -> None:
        """Tell the executor that this thread is going to wait; run the task here if it has not started."""
        ...

    def cancel(self, pending: Any) -> bool:
        """Cancel a run; say whether that was possible."""
        ...


class Pending(Protocol):
    """What a future needs of the engine while its run is not final."""

    def present_state(self) -> State:
        """Give the state of a run that is not final."""
        ...


class NamedTask(Protocol):
    """What a task run needs of its task."""

    name: str
    tags: frozenset[str]

    @property
    def short_hash(self) -> str:
        """Eight digits that tell tasks of one name apart."""
        ...


LOCKS: Final = tuple(threading.Lock() for _ in range(64))
"""Shared by all runs, by number: one lock each would cost memory, and one for all would make threads wait."""


class TaskRun:
    """The record of one task run: scalars only, never its arguments or its value.

    Attributes:
        final: the final state, without the value, which only the future has; None before.
        start_time: when the first attempt began, in seconds since the epoch; None before.
        end_time: when the run became final, in seconds since the epoch; None before.
        run_count: how many attempts have begun.
    """

    __slots__ = ("_name", "end_time", "final", "flow_run", "index", "number", "run_count", "start_time", "task")

    def __init__(self, flow_run: Home, task: NamedTask, number: int, index: int, name: str | None = None) -> None:
        self.flow_run = flow_run
        self.task = task
        self.number = number
        self.index = index
        self.final: State | None = None
        self.run_count = 0
        self.start_time: float | None = None
        self.end_time: float | None = None
        self._name = name

    @property
    def state(self) -> State:
        """The present state; without the value, which only the future has."""
        final = self.final
        if final is None:
            job: Pending | None = self.flow_run.live.get(self.number)
            return self.final or (PENDING if job is None else job.present_state())
        return final

    @property
    def lock(self) -> threading.Lock:
        """Guards what happens to the run off the common way; never held while anything else is called."""
        return LOCKS[self.number & 63]

    @property
    def id(self) -> str:
        """The id: unique, in the form of a UUID; runs of one flow run share its beginning."""
        return _names.numbered_id(self.flow_run.id, self.number)

    @property
    def name(self) -> str:
        """The name: `task_run_name` if the task has one, else task, hash and index (`hello-a087a829-0`)."""
        return self._name or f"{self.task.name}-{self.task.short_hash}-{self.index}"

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.task.name

    @property
    def tags(self) -> frozenset[str]:
        """The tags of the task."""
        return self.task.tags

    def __repr__(self) -> str:
        return f"TaskRun({self.name!r}, {self.state!r})"


class TaskFuture(Upstream, Generic[R_co]):
    """The result of a task call that may not be there yet.

    Example:
        >>> from riverrun import flow, task
        >>> @task
        ... def add(a, b):
        ...     return a + b
        >>> @flow(task_runner="sequential")
        ... def total():
        ...     future = add(1, 2)
        ...     return future.result() + add(future, 4).result()
        >>> total()
        10
    """

    __slots__ = ("__weakref__", "_callbacks", "_job", "_run", "_value")

    def __init__(self, run: TaskRun, job: Pending | None = None) -> None:
        self._run = run
        self._job = job
        self._value: Any = None
        self._callbacks: Any = None
        """None, one callback, or a list of them: most futures have at most one."""

    @property
    def task_run_id(self) -> str:
        """The id of the task run."""
        return self._run.id

    @property
    def name(self) -> str:
        """The name of the task run."""
        return self._run.name

    @property
    def task_run(self) -> TaskRun:
        """The record of the task run: times, attempts, tags."""
        return self._run

    @property
    def state(self) -> State:
        """The present state; with the value, if the run has completed."""
        state = self._run.state
        return state.with_data(self._value) if state.type is StateType.COMPLETED else state

    def done(self) -> bool:
        """Say whether the run has reached a final state."""
        return self._run.final is not None

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R_co:  # noqa: FBT001, FBT002 - binding signature
        """Wait for the run, and give its value.

        Args:
            timeout: how long to wait, in seconds; None: as long as it takes.
            raise_on_failure: if false, the exception of a run that did not complete is returned, not raised.

        Raises:
            ResultTimeout: the time is over (a `TimeoutError`; one that the task raised is never of this class).
            BlockingCallError: called on the thread of the flow's running event loop; write `await future`.
            Exception: what the task raised; or CrashedRun, CancelledError, NotReadyError.
        """
        state = self._run.final
        if state is None:
            state = self._block(timeout, "result")
        if state is COMPLETED or state.type is StateType.COMPLETED:  # (the first alone is for speed)
            value = self._value
            return value.fetch() if isinstance(value, Elsewhere) else value  # type: ignore[no-any-return]
        return state.result(raise_on_failure)  # type: ignore[no-any-return]

    def wait(self, timeout: float | None = None) -> State | None:
        """Wait for the run, and give its final state; None if `timeout` (seconds) is over first."""
        if self._run.final is None:
            try:
                self._block(timeout, "wait")
            except ResultTimeout:
                return None
        return self.state

    def cancel(self) -> bool:
        """Cancel the run if it has not started, or if it can be stopped; say whether that was possible."""
        job = self._job
        return job is not None and self._run.flow_run.cancel(job)

    def add_done_callback(self, fn: Callable[[TaskFuture[R_co]], object]) -> None:
        """Call `fn(future)` when the run is final: here if it is, else soon, on a thread where it may wait.

        It sees the context variables of this call, so it may call tasks and wait for them; on the event loop of an
        async flow nothing may wait, so "here" is a thread there, too. An exception that it raises is logged and goes no
        further. The flow ends when it has been called.
        """
        home = self._run.flow_run
        context = copy_context()

        def call(future: TaskFuture[Any]) -> None:
            try:
                context.run(call_user, lambda: fn(future), "A done callback of task run %r raised.", future.name)
            finally:
                home.finishing.discard(call)
                home.tell_if_idle()

        home.finishing.add(call)  # the end of the flow waits for it
        if not self._add_callback(lambda future: home.tell(lambda: call(future))):
            if home.loop is not None and home.loop.is_here() and home.closed is None:
                home.tell(lambda: call(self))
            else:
                call(self)

    def _add_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> bool:
        """Register a callback; false if the run is final already, and then it is not called."""
        run = self._run
        with LOCKS[run.number & 63]:  # under which the run becomes final, and its callbacks are taken
            if run.final is not None:
                return False
            if self._callbacks is None:
                self._callbacks = fn
            elif type(self._callbacks) is list:
                self._callbacks.append(fn)
            else:
                self._callbacks = [self._callbacks, fn]
            return True

    def _remove_callback(self, fn: Callable[[TaskFuture[Any]], object]) -> bool:
        """Take a callback back; false if it is not there (any more)."""
        with self._run.lock:
            if self._callbacks == fn:
                self._callbacks = None
            elif isinstance(self._callbacks, list) and fn in self._callbacks:
                self._callbacks.remove(fn)
            else:
                return False
            return True

    def _block(self, timeout: float | None, method: str) -> State:
        check_may_block(self, f"future.{method}()", "await future")
        run, job = self._run, self._job
        if job is not None:
            run.flow_run.help(job, run_it=timeout is None)
            if run.final is not None:
                return run.final
        woken = threading.Lock()
        woken.acquire()

        def wake(_: object) -> None:
            woken.release()

        if self._add_callback(wake) and not acquire(woken, -1 if timeout is None else max(timeout, 0)):
            self._remove_callback(wake)
            msg = (
                f"Task run {self.name!r} was not finished after {timeout} seconds (state: {self.state!r}). It goes on; "
                f"call result() again, or future.cancel()."
            )
            raise ResultTimeout(msg)
        assert run.final is not None  # noqa: S101 - said to type checkers
        return run.final

    async def finished(self) -> None:
        """Wait for the run in a coroutine, whatever becomes of it."""
        waiter = (self._run.flow_run.loop or _async.current_loop()).waiter()

        def wake(_: object) -> None:
            waiter.wake()

        if self._add_callback(wake):
            try:
                await waiter.wait()
            except BaseException:
                self._remove_callback(wake)
                raise

    def __await__(self) -> Generator[Any, None, R_co]:
        if self._run.final is None:
            yield from self.finished().__await__()
        if isinstance(self._value, Elsewhere):
            return (yield from _async.in_thread(self.result).__await__())
        return self.result()

    def __repr__(self) -> str:
        return f"TaskFuture({self.name!r}, {self._run.state!r})"

    def _misused(self, action: str) -> NoReturn:
        msg = (
            f"A TaskFuture stands for the result of task run {self.name!r}; it is not the result, so it {action}. "
            f"Write future.result() (or, in an async flow, `await future`), or pass the future to another task."
        )
        raise TypeError(msg)

    if not TYPE_CHECKING:  # a type checker that finds no such method says so, long before the flow runs

        def __getattr__(self, name: str) -> NoReturn:
            msg = (
                f"A TaskFuture has no attribute {name!r}: it stands for the result of task run {self.name!r}. Write "
                f"future.result().{name} (or, in an async flow, `(await future).{name}`), or pass the future to a task."
            )
            raise AttributeError(msg, name=name, obj=self)

        def __bool__(self) -> bool:  # noqa: PLE0304 - it only raises, as do the others
            self._misused("has no truth value")

        def __iter__(self) -> NoReturn:
            self._misused("cannot be iterated")

        def __len__(self) -> int:  # noqa: PLE0303
            self._misused("has no length")

        def __getitem__(self, key: object) -> NoReturn:
            self._misused("cannot be indexed")

        def __contains__(self, item: object) -> bool:
            self._misused("cannot be searched with `in`")

        def __int__(self) -> int:
            self._misused("is no number")

        __float__ = __index__ = __int__

        def _arithmetic(self, *_: object) -> NoReturn:
            self._misused("cannot be used in arithmetic or compared by size")

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _arithmetic
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _arithmetic
        __neg__ = __pos__ = __abs__ = __invert__ = __lt__ = __le__ = __gt__ = __ge__ = _arithmetic
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _arithmetic

    def __reduce__(self) -> NoReturn:
        msg = (
            f"A TaskFuture cannot be pickled (task run {self.name!r}): it belongs to the process of its flow. Pass it "
            f"as an argument of a task, or pass future.result()."
        )
        raise TypeError(msg)


def check_may_block(future: TaskFuture[Any], blocking: str, instead: str) -> None:
    """Raise where waiting would stop what has to finish the run: the flow's event loop, or a slot of the runner."""
    loop = future._run.flow_run.loop  # noqa: SLF001
    if loop is not None and loop.is_here():
        msg = (
            f"`{blocking}` would block the event loop of the async flow, and task run {future.name!r} needs that loop "
            f"to finish. Write `{instead}`."
        )
        raise BlockingCallError(msg)
    scope = current_scope.get()
    if scope is not None and not scope.is_flow:
        also = f"Write `{instead}`, or pass" if scope.awaits else "Pass"
        msg = (
            f"`{blocking}` in the function of task run {scope.name!r} would keep a slot, or a loop, that task run "
            f"{future.name!r} may need. {also} the future as an argument: the task then starts when it is done."
        )
        raise BlockingCallError(msg)
