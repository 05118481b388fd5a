"""What travels to a worker: `TaskCall`, one attempt at a task run, and what the worker has to know of task and run.

A call runs the task's function once, wherever it is: in this thread, in another, in another process. All that the
function does ends in an `Outcome`: nothing is raised. Between processes a call travels as bytes which are made here, so
that what cannot be pickled is the failure of one run, with its name, and never of the executor that carries it.
"""

from __future__ import annotations

import os
import pickle
import time
from typing import TYPE_CHECKING, Any, Final

from riverrun import _async, _by_value, _inputs, _logging, _names
from riverrun._carried import Carried
from riverrun._execution import execute, execute_async, execute_within
from riverrun._outcomes import Outcome, cannot_return, packed_if_small, packed_outcome
from riverrun._surroundings import packed
from riverrun.exceptions import TaskSerializationError
from riverrun.states import State

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Sequence
    from contextvars import Context


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
        return _remade, (self._work, self.key, seen, self._timeout, self.resources or None,
                         self.runner_options or None, self._log_level, self._process, self.upstreams)  # fmt: skip

    def __call__(self) -> Outcome:
        if self._log_level is None:
            context = self._context
            return self._run() if context is None else context.run(self._run)
        return packed_outcome(self._recorded(()), self.name)

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
            outcome = packed_outcome(outcome, self.name)
            outcome.void = failed
            return outcome, None if failed else value.data
        if outcome.error is None:
            try:
                outcome.packed = packed_if_small(value, most)
                outcome.kept = outcome.packed is None
            except Exception as error:  # noqa: BLE001
                outcome.error = cannot_return(value, self.name, error)
            outcome.value = None
        if outcome.error is not None:
            return packed_outcome(outcome, self.name), None
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
        return execute_within(self._timeout, lambda: execute(self._scope, task.fn, args, kwargs))

    def _unpacked(self) -> Any:
        if isinstance(self._work, bytes):
            return _by_value.loads(self._work, was_packed_here=self._process == _this_process())
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


_PLAIN: Final = _inputs.ATOMIC - {type} | {_inputs.Slot}  # a class may have to travel with its code


def _remade(  # noqa: PLR0917 - the message, in its order
    work: bytes,
    key: str,
    seen: tuple[str, bool | None, dict[str, Any], bool, tuple[Any, ...]],
    timeout: float | None,
    resources: dict[str, Any] | None,
    runner_options: dict[str, Any] | None,
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
        resources=resources,
        runner_options=runner_options,
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
            f"Task run {name!r}: the task or its arguments cannot be rebuilt on worker {_this_worker()}: {error!r}."
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
