"""What travels to a worker and what comes back: `TaskCall` and `Outcome`.

A call runs the task's function once, wherever it is: in this thread, in another, in another process. All that the
function does ends in an `Outcome`: nothing is raised. Between processes both travel as bytes which are made here, so
that what cannot be pickled is the failure of one run, with its name, and never of the executor that carries it.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from riverrun import _async, _by_value, _inputs, _logging, _names
from riverrun._carried import Carried
from riverrun._context import current_scope
from riverrun._deadlines import interrupted_after
from riverrun._surroundings import Surrounded, packed
from riverrun.exceptions import RemoteTaskError, RunTimeout, TaskSerializationError
from riverrun.states import State

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Sequence
    from contextvars import Context


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


def call_in_scope(scope: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function inside a scope, in a context that is not used for anything else."""
    current_scope.set(scope)
    value = function(*args, **kwargs)
    if scope.nested is not None:
        scope.nested.close()
    return value


def execute(scope: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call a function inside a scope; whatever it raises is in the outcome, its traceback beginning in its own code."""
    token = current_scope.set(scope)
    try:
        if scope.surroundings:
            with Surrounded(scope):
                return _with_prints(scope, function, args, kwargs)
        return _with_prints(scope, function, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - an outcome is a value; the engine knows what to do with each kind
        return Outcome(None, from_user_code(error))
    finally:
        current_scope.reset(token)


def _with_prints(scope: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    if scope.log_prints is None:
        return Outcome(call_in_scope(scope, function, args, kwargs))
    with _logging.prints_logged(scope, wanted=scope.log_prints):
        return Outcome(call_in_scope(scope, function, args, kwargs))


async def execute_async(
    scope: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timeout: float | None,  # noqa: ASYNC109 - its end is an outcome
) -> Outcome:
    """Do what `execute` does with a coroutine function; at its deadline the coroutine is cancelled."""
    token = current_scope.set(scope)
    try:
        if scope.surroundings:
            with Surrounded(scope):
                return await _with_prints_async(scope, function, args, kwargs, timeout)
        return await _with_prints_async(scope, function, args, kwargs, timeout)
    except BaseException as error:  # noqa: BLE001
        return Outcome(None, from_user_code(error))
    finally:
        current_scope.reset(token)


async def _with_prints_async(
    scope: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timeout: float | None,  # noqa: ASYNC109
) -> Outcome:
    if timeout is None and scope.log_prints is None:
        return Outcome(await function(*args, **kwargs))
    with _logging.prints_logged(scope, wanted=bool(scope.log_prints)):
        if timeout is None:
            return Outcome(await function(*args, **kwargs))
        return await _within(timeout, function, args, kwargs)


async def _within(
    timeout: float,  # noqa: ASYNC109
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Outcome:
    import anyio

    value = None
    with anyio.move_on_after(timeout) as deadline:
        value = await function(*args, **kwargs)
    # Only our own deadline counts: a TimeoutError of the user's code is an exception like others. Code that swallows
    # the cancellation, or blocks the loop until after the deadline, has overrun it all the same.
    late = deadline.cancel_called or anyio.current_time() >= deadline.deadline
    return Outcome(None, timed_out(timeout)) if late else Outcome(value)


def timed_out(timeout: float) -> RunTimeout:
    """Make the exception of a task run that exceeded its time limit."""
    return RunTimeout(f"Task run exceeded timeout of {float(timeout)} seconds")


def from_user_code(error: BaseException) -> BaseException:
    """Let an exception's traceback begin in the code of the user: our frames at its top say nothing."""
    traceback = error.__traceback__
    while (
        traceback is not None
        and traceback.tb_next is not None
        and traceback.tb_frame.f_globals.get("__package__") == "riverrun"
    ):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def _execute_within(timeout: float, body: Callable[[], Outcome]) -> Outcome:
    """Execute on a worker: at the deadline the code is interrupted in its main thread, and left behind in any other."""
    if threading.current_thread() is threading.main_thread():
        with interrupted_after(timeout) as deadline:
            outcome = body()
        return Outcome(None, timed_out(timeout)) if deadline.passed else outcome
    outcomes: list[Outcome] = []
    context = copy_context()
    thread = threading.Thread(target=lambda: outcomes.append(context.run(body)), name="riverrun-limited", daemon=True)
    thread.start()
    thread.join(timeout)
    return outcomes[0] if outcomes else Outcome(None, timed_out(timeout))


class Body:
    """What a worker needs of a task that it cannot find by name: the function. Hooks and the like stay at home."""

    def __init__(self, fn: Callable[..., Any], name: str, *, is_async: bool) -> None:
        self.fn = fn
        self.name = name
        self.is_async = is_async


class TaskScope:
    """One attempt at a task run, as the code inside it sees it on a worker."""

    is_flow = False
    surroundings: tuple[Any, ...] = ()
    """What observers want to be around the function."""

    def __init__(self, name: str, log_prints: bool | None, fields: dict[str, Any], *, awaits: bool) -> None:  # noqa: FBT001
        self.name = name
        self.log_prints = log_prints
        self.awaits = awaits
        self.nested: Any = None
        self._fields = fields

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the run's log records."""
        return self._fields

    def log_identity(self) -> tuple[str, str, dict[str, Any]]:
        """Give what log records say of the run."""
        return "Task run", self.name, self._fields


class TaskCall:
    """One attempt at a task run, ready to run: a callable without arguments that returns an `Outcome`.

    Attributes:
        name: the name of the task run.
        key: a text that is unique to this attempt, beginning with the task's name: for executors that want one.
        resources: what the run needs on a cluster, as the task says it: `{"cpu": 1, "memory": "4GiB"}`.
        runner_options: the task's options for single task runners, by the runner's name.
        upstreams: for a `RemoteTaskExecutor`: the handles of the values that the call takes on the worker.
    """

    upstreams: tuple[Any, ...] = ()

    def __init__(
        self,
        *,
        body: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        scope: TaskScope,
        key: str,
        timeout: float | None = None,
        context: Context | None = None,
        resources: dict[str, Any] | None = None,
        runner_options: dict[str, Any] | None = None,
    ) -> None:
        self.name = scope.name
        self.key = key
        self.resources = resources or {}
        self.runner_options = runner_options or {}
        self._work: Any = (body, args, kwargs)
        self._scope = scope
        self._timeout = timeout
        self._context = context
        self._log_level: int | None = None
        self._process = ""
        self._when_started: Callable[[], object] | None = None

    def when_started(self, then: Callable[[], object]) -> None:
        """Call `then` in the thread that runs the call, when it begins; for executors in this process."""
        self._when_started = then

    def __repr__(self) -> str:
        return f"TaskCall({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what a worker needs, without names of attributes: thousands of these do."""
        scope = self._scope
        seen = scope.name, scope.log_prints, scope.log_fields(), scope.awaits, scope.surroundings
        asked_for = self.resources or None, self.runner_options or None
        return _remade, (self._work, self.key, seen, self._timeout, asked_for, self._log_level, self._process,
                         self.upstreams)  # fmt: skip

    def __call__(self) -> Outcome:
        if self._log_level is None:
            context = self._context
            return self._run() if context is None else context.run(self._run)
        return _packed_outcome(self._recorded(()), self.name)

    def run_keeping(
        self, values: Sequence[Any], most: int, records: list[logging.LogRecord] | None = None
    ) -> tuple[Outcome, Any]:
        """Run the call on a worker that keeps values for others; for a `RemoteTaskExecutor`.

        Args:
            values: what is behind the handles in `upstreams`, in their order; what is `Carried` is opened.
            most: how large a pickled value may be, in bytes, to travel back with the outcome.
            records: where log records are collected; what is taken out of it meanwhile does not come with the outcome.

        Returns:
            The outcome, which is to be sent back; and the value, which is to be kept for those who take it as an
            upstream. Where `outcome.error` or `outcome.void` is set there is no value, and nobody may take it.
        """
        outcome = self._recorded(values, records)
        value = outcome.value
        if isinstance(value, State):  # it says itself what became of the run: those who take the value get no State
            failed = not value.is_completed()
            outcome = _packed_outcome(outcome, self.name)
            outcome.void = failed
            return outcome, None if failed else value.data
        if outcome.error is None:
            try:
                outcome.packed = packed_if_small(value, most)
                outcome.kept = outcome.packed is None
            except Exception as error:  # noqa: BLE001
                outcome.error = _cannot_return(value, self.name, error)
            outcome.value = None
        if outcome.error is not None:
            return _packed_outcome(outcome, self.name), None
        return outcome, value

    def _recorded(self, values: Sequence[Any], records: list[logging.LogRecord] | None = None) -> Outcome:
        start = time.time()
        if self._process == _this_process():  # a worker that is a thread: what it logs comes out here anyway
            kept: list[logging.LogRecord] = []
            outcome = self._run(values)
        else:
            with _logging.records_kept(self._log_level or 0, records) as kept:
                outcome = self._run(values)
        outcome.start_time = start
        outcome.records = kept or None
        outcome.worker = _this_worker()
        return outcome

    def _run(self, values: Sequence[Any] = ()) -> Outcome:
        if self._when_started is not None:
            self._when_started()
        try:
            task, args, kwargs = self._unpacked()
            if values:
                values = [value.opened() if isinstance(value, Carried) else value for value in values]
                args = tuple([_inputs.fill(arg, values) for arg in args])
                kwargs = {name: _inputs.fill(arg, values) for name, arg in kwargs.items()}
        except Exception as error:  # noqa: BLE001 - the worker lacks a module, or an argument cannot be rebuilt
            outcome = Outcome(None, _not_loaded(error, self.name))
            outcome.missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
            return outcome
        if task.is_async:
            return _async.run_to_end(lambda: execute_async(self._scope, task.fn, args, kwargs, self._timeout))
        if self._timeout is None or self._log_level is None:  # in this process, the flow run's own timers see to it
            return execute(self._scope, task.fn, args, kwargs)
        return _execute_within(self._timeout, lambda: execute(self._scope, task.fn, args, kwargs))

    def _unpacked(self) -> Any:
        if isinstance(self._work, bytes):
            import cloudpickle

            return cloudpickle.loads(self._work)
        return self._work

    @property
    def packed_size(self) -> int:
        """How large the packed task and arguments are, in bytes."""
        return len(self._work)

    def pack(self, log_level: int) -> None:
        """Turn the task and its arguments into bytes, to travel to another process.

        Args:
            log_level: the least level of the log records that are to come back.

        Raises:
            TaskSerializationError: something cannot be pickled; the text names the argument and its type.
        """
        self._context = None
        self._log_level = log_level
        self._process = _this_process()
        others_by_value = _by_value.tell_cloudpickle()
        if self._scope.surroundings:
            self._scope.surroundings = packed(self._scope)
        body, args, kwargs = self._work
        body, by_name = body.for_worker()
        self._work = body, args, kwargs
        try:
            if by_name and not others_by_value and _are_plain(args) and (not kwargs or _are_plain(kwargs.values())):
                self._work = pickle.dumps(self._work, protocol=5)
            else:
                self._work = _by_value.dumps(self._work)
        except Exception as error:
            raise _cannot_pack(self._work, self.name, error) from error


def _are_plain(values: Iterable[Any]) -> bool:
    """Say whether values contain no code: then plain pickle writes what cloudpickle would, in a third of its time."""
    return all(type(value) in _PLAIN for value in values)


_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, _inputs.Slot})


def _remade(  # noqa: PLR0917 - the message, in its order
    work: bytes,
    key: str,
    seen: tuple[str, bool | None, dict[str, Any], bool, tuple[Any, ...]],
    timeout: float | None,
    asked_for: tuple[dict[str, Any] | None, dict[str, Any] | None],
    log_level: int | None,
    process: str,
    upstreams: tuple[Any, ...],
) -> TaskCall:
    """Make a call again where it has arrived."""
    name, log_prints, fields, awaits, surroundings = seen
    scope = TaskScope(name, log_prints, fields, awaits=awaits)
    if surroundings:
        scope.surroundings = surroundings
    call = TaskCall(
        body=None,
        args=(),
        kwargs={},
        scope=scope,
        key=key,
        timeout=timeout,
        resources=asked_for[0],
        runner_options=asked_for[1],
    )
    call._work, call._log_level, call._process = work, log_level, process  # noqa: SLF001
    if upstreams:
        call.upstreams = upstreams
    return call


def _cannot_pack(work: Any, name: str, error: Exception) -> TaskSerializationError:
    """Find which argument it was."""
    import cloudpickle

    function, args, kwargs = work
    for label, value in [
        *((f"argument {i + 1}", arg) for i, arg in enumerate(args)),
        *((f"argument {k!r}", v) for k, v in kwargs.items()),
    ]:
        try:
            cloudpickle.dumps(value)
        except Exception as reason:  # noqa: BLE001
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            msg = (
                f"Task run {name!r}: {label} (of type {kind}) cannot be pickled to travel to a worker: {reason}. Pass "
                f"what it is made from and make it inside the task, or use a runner that stays in this process."
            )
            return TaskSerializationError(msg)
    msg = f"Task run {name!r}: the function of task {function.name!r} cannot be pickled to travel to a worker: {error}."
    return TaskSerializationError(msg)


def _not_loaded(error: Exception, name: str) -> Exception:
    if isinstance(error, ModuleNotFoundError):
        msg = (
            f"Task run {name!r} needs the module {error.name!r}, which worker {_this_worker()} does not have. Install "
            f"it there, or send it along if the task runner has an option for that (ship=[...])."
        )
        raised: Exception = ModuleNotFoundError(msg, name=error.name)
    else:
        raised = TaskSerializationError(
            f"Task run {name!r}: its arguments cannot be rebuilt on worker {_this_worker()}: {error!r}."
        )
    raised.__cause__ = error
    return raised


_process_name = (0, "")


def _this_process() -> str:
    """Give a text that no other process has, on whatever machine; a process that was forked gets its own."""
    global _process_name  # noqa: PLW0603 - there is one process
    pid = os.getpid()
    if _process_name[0] != pid:
        _process_name = pid, _names.new_id()
    return _process_name[1]


def _this_worker() -> str:
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"


def _packed_outcome(outcome: Outcome, name: str) -> Outcome:
    """Turn the value or the error into bytes; what cannot be pickled becomes an error that can."""
    import cloudpickle

    if outcome.error is None:
        try:
            outcome.packed = cloudpickle.dumps(outcome.value)
        except Exception as error:  # noqa: BLE001
            outcome.error = _cannot_return(outcome.value, name, error)
    outcome.value = None
    if outcome.error is not None:
        outcome.packed = _packed_error(outcome.error)
        outcome.error = RemoteTaskError("The exception is in `packed`.")
    return outcome


def _cannot_return(value: Any, name: str, error: Exception) -> TaskSerializationError:
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
        >>> from riverrun._calls import packed_if_small
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
