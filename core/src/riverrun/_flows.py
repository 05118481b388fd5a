"""`@flow`: a function in which calls of tasks become task runs."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from riverrun import _async, _names, _retries, _world
from riverrun._context import current_scope
from riverrun._drivers import run_async, run_sync
from riverrun._flow_runs import FlowRun
from riverrun._parameters import Parameters, check_function, is_async
from riverrun._tasks import Task, check_options, checked_hooks, found, is_found
from riverrun.exceptions import MissingContextError
from riverrun.states import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from riverrun._decorators import Async, FlowDecorator, FlowOptions, Futures
    from riverrun._futures import TaskFuture
    from riverrun._mapping import TaskFutureList
    from riverrun._pending_run import PendingRun
    from riverrun.abc import TaskRunner
    from riverrun.states import State

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_HOOKS = ("on_completion", "on_failure", "on_crashed", "on_cancellation")
_DEFAULTS: dict[str, Any] = {
    "name": None,
    "description": None,
    "version": None,
    "task_runner": None,
    "flow_run_name": None,
    "retries": 0,
    "retry_delay_seconds": None,
    "timeout_seconds": None,
    "validate_parameters": True,
    "log_prints": None,
    **dict.fromkeys(_HOOKS, ()),
}


class Flow(Generic[P, R_co]):
    """A function in which calls of tasks become task runs. Made by `@flow`.

    Attributes:
        fn: the function itself; `my_flow.fn(...)` calls it without a run (and then it can call no task).
    """

    def __init__(self, fn: Callable[P, R_co], **options: Any) -> None:
        check_function(fn, kind="flow")
        options = {**_DEFAULTS, **check_options(options, _DEFAULTS, owner="@flow")}
        self.fn = fn
        self._options = options
        self.name: str = options["name"] or _names.function_name(fn).replace("_", "-")
        owner = f"Flow {self.name!r}"
        self.description: str | None = options["description"] or getattr(fn, "__doc__", None)
        self.version: str | None = options["version"]
        self.task_runner: str | type[TaskRunner] | TaskRunner | None = options["task_runner"]
        self.flow_run_name = options["flow_run_name"]
        self.validate_parameters = bool(options["validate_parameters"])
        self.log_prints: bool | None = options["log_prints"]
        self.retries = _retries.check_retries(options["retries"], owner=owner)
        self._delays = _retries.delays_for(options["retry_delay_seconds"], self.retries, owner=owner)
        timeout = options["timeout_seconds"]
        self.timeout_seconds = (
            None if timeout is None else _retries.check_seconds("timeout_seconds", timeout, owner=owner, zero=False)
        )
        self._hooks = {kind: checked_hooks(kind, options[kind], owner) for kind in _HOOKS}
        self.is_async = is_async(fn)
        self.signature = Parameters(fn, owner)
        self.__name__ = getattr(fn, "__name__", self.name)
        self.__qualname__ = getattr(fn, "__qualname__", self.name)
        self.__module__ = getattr(fn, "__module__", "")
        self.__doc__ = getattr(fn, "__doc__", None)
        self.__wrapped__ = fn

    def retry_delay(self, attempt: int) -> float:
        """Give the delay in seconds after the given attempt (1 for the first)."""
        return _retries.next_delay(self._delays, attempt, 0)

    def hooks_for(self, state: State) -> tuple[Callable[..., object], ...]:
        """Give the hooks to call for a final state."""
        if state.is_completed():
            return self._hooks["on_completion"]
        if state.is_crashed():
            return self._hooks["on_crashed"]
        return self._hooks["on_cancellation"] if state.is_cancelled() else self._hooks["on_failure"]

    # First what only `return_state` fits; then flows that return futures, which give the values of them; the last one
    # takes futures in the places of values. A flow that is annotated with `Any`, or not at all, fits the first of each.
    @overload
    def __call__(
        self: Flow[Any, TaskFuture[Any]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Futures = ...,
        **kwargs: Any,
    ) -> State: ...
    @overload
    def __call__(
        self: Flow[Any, Async[Any]], *args: Any, return_state: Literal[True], wait_for: Futures = ..., **kwargs: Any
    ) -> Async[State]: ...
    @overload
    def __call__(self, *args: Any, return_state: Literal[True], wait_for: Futures = ..., **kwargs: Any) -> State: ...
    @overload
    def __call__(self: Flow[Any, TaskFuture[T]], *args: Any, wait_for: Futures = ..., **kwargs: Any) -> T: ...
    @overload
    def __call__(self: Flow[Any, TaskFutureList[T]], *args: Any, wait_for: Futures = ..., **kwargs: Any) -> list[T]: ...
    @overload
    def __call__(
        self: Flow[Any, Async[TaskFuture[T]]], *args: Any, wait_for: Futures = ..., **kwargs: Any
    ) -> Async[T]: ...
    @overload
    def __call__(
        self: Flow[Any, Async[TaskFutureList[T]]], *args: Any, wait_for: Futures = ..., **kwargs: Any
    ) -> Async[list[T]]: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, *args: Any, wait_for: Futures = ..., **kwargs: Any) -> R_co: ...
    def __call__(self, *args: Any, wait_for: Any = None, return_state: Any = False, **kwargs: Any) -> Any:
        """Run the flow to its end, and give its value with every future in it resolved.

        An async flow gives a coroutine; inside a sync flow or task, it runs to its end here.

        Args:
            *args: the flow's parameters; futures among them are waited for.
            wait_for: futures to wait for before the flow begins.
            return_state: give the final state instead of the value, and raise nothing.
            **kwargs: the flow's parameters by name.

        Raises:
            ParameterTypeError: the parameters do not fit.
            Exception: what the flow raised, or the first root failure among its runs.
        """
        if self.is_async:
            scope = current_scope.get()
            if scope is None or scope.awaits:
                coroutine: Any = self._run_async(args, kwargs, wait_for, return_state=return_state)
                coroutine.__qualname__ = self.__name__  # what Python's warning calls it, if nobody awaits it
                return coroutine
            return _async.run_to_end(lambda: self._run_async(args, kwargs, wait_for, return_state=return_state))
        flow_run = FlowRun(self, args, kwargs, wait_for=wait_for)
        state = run_sync(flow_run)
        return state if return_state else state.result()

    async def _run_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], wait_for: Iterable[Any] | None, *, return_state: bool
    ) -> Any:
        state = await run_async(FlowRun(self, args, kwargs, wait_for=wait_for))
        return state if return_state else state.result()

    @overload
    def submit(self: Flow[Any, TaskFuture[T]], *args: Any, wait_for: Futures = ..., **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    def submit(
        self: Flow[Any, TaskFutureList[T]], *args: Any, wait_for: Futures = ..., **kwargs: Any
    ) -> TaskFuture[list[T]]: ...
    @overload
    def submit(
        self: Flow[Any, Async[TaskFuture[T]]], *args: Any, wait_for: Futures = ..., **kwargs: Any
    ) -> TaskFuture[T]: ...
    @overload
    def submit(
        self: Flow[Any, Async[TaskFutureList[T]]], *args: Any, wait_for: Futures = ..., **kwargs: Any
    ) -> TaskFuture[list[T]]: ...
    @overload
    def submit(self: Flow[Any, Async[T]], *args: Any, wait_for: Futures = ..., **kwargs: Any) -> TaskFuture[T]: ...
    @overload
    def submit(self, *args: Any, wait_for: Futures = ..., **kwargs: Any) -> TaskFuture[R_co]: ...
    def submit(self, *args: Any, wait_for: Iterable[Any] | None = None, **kwargs: Any) -> TaskFuture[Any]:
        """Run the flow beside what the flow around it does, and give its future at once.

        Args:
            *args: the flow's parameters; futures among them are upstreams.
            wait_for: more upstreams.
            **kwargs: the flow's parameters by name.

        Raises:
            MissingContextError: no flow is running here.
        """
        scope = current_scope.get()
        if scope is None or not scope.is_flow:
            msg = (
                f"Flow {self.name!r} was submitted outside of a flow ({self.name}.submit(...)). Call it inside a "
                f"function with @flow, or run it to its end: {self.name}(...)."
            )
            raise MissingContextError(msg)
        beside = _Beside(self, scope)
        child: Task[..., Any] = Task(beside.run_async if self.is_async else beside.run, name=self.name)
        return scope.submit(child, args, kwargs, wait_for, launch=beside.start)  # type: ignore[no-any-return]

    def with_options(self, **options: Unpack[FlowOptions]) -> Flow[P, R_co]:
        """Give a copy of the flow with other options.

        Args:
            **options: the options of `@flow`, by name.

        Raises:
            ConfigurationError: an option does not exist, or its value is not possible.

        Example:
            >>> from riverrun import flow
            >>> @flow
            ... def hello():
            ...     return "hello"
            >>> hello.with_options(task_runner="sequential")()
            'hello'
        """
        check_options(options, _DEFAULTS, owner=f"{self.name}.with_options()")
        return type(self)(self.fn, **{**self._options, **options})

    @overload
    def __get__(self, instance: None, owner: type, /) -> Flow[P, R_co]: ...
    @overload
    def __get__(
        self: Flow[Concatenate[Any, Q], R_co], instance: object, owner: type | None = ..., /
    ) -> Flow[Q, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = ..., /) -> Flow[..., R_co]: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        if instance is None:
            return self
        return type(self)(cast("Any", MethodType(self.fn, instance)), **self._options)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if is_found(self, self.__module__, self.__qualname__):
            return found, (self.__module__, self.__qualname__)
        return _made, (self.fn, self._options)


def _made(fn: Callable[..., Any], options: dict[str, Any]) -> Flow[..., Any]:
    return Flow(fn, **options)


class _Beside:
    """Runs one submitted subflow on a thread of its own, or on the loop if both flows are async.

    It takes no slot of the task runner, so that subflows inside subflows cannot wait for each other's slots.
    """

    withdraws = False

    def __init__(self, flow: Flow[Any, Any], parent: FlowRun) -> None:
        self._flow = flow
        self._parent = parent
        self._child: FlowRun | None = None
        self._cancelled = False

    def start(self, job: PendingRun) -> None:
        """Start it; called when its upstreams are done."""
        job.stops_with = self
        loop = self._parent.loop
        if self._flow.is_async and loop is not None:
            loop.call(lambda: loop.start(job.run_async, job.context))
            return
        target: Any = job if not self._flow.is_async else lambda: job.context.run(_async.run_to_end, job.run_async)
        _world.start_thread(target, name=f"riverrun-subflow-{self._flow.name}")

    def is_running(self) -> bool:
        """Say that it has begun."""
        return True

    def cancel(self) -> bool:
        """Cancel what the subflow has submitted; its own code ends when it asks for a result."""
        self._cancelled = True
        if self._child is not None:
            self._child.cancelled = True
            self._child.overrun()
        return True

    def _made_child(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlowRun:
        current_scope.set(self._parent)  # the job's context is a copy of its own: nobody else sees this
        self._child = FlowRun(self._flow, args, kwargs, tracked=False)
        if self._cancelled:
            self._child.cancelled = True
            self._child.closed = Cancelled("Flow run was cancelled.")
        return self._child

    def run(self, *args: Any, **kwargs: Any) -> State:
        """Run a sync subflow to its end."""
        return run_sync(self._made_child(args, kwargs))

    async def run_async(self, *args: Any, **kwargs: Any) -> State:
        """Run an async subflow to its end."""
        return await run_async(self._made_child(args, kwargs))


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(**options: Unpack[FlowOptions]) -> FlowDecorator: ...
def flow(fn: Any = None, /, **options: Any) -> Any:  # noqa: D417 - the options are explained one by one
    """Make a flow of a function.

    Args:
        fn: the function, sync or async.
        name: by default the function's name, with `-` for `_`.
        description: by default its docstring.
        version: any text of yours.
        task_runner: where its tasks run: a name (`"dask"`), a class, or an instance; by default what the settings
            say, else `"concurrent"`.
        flow_run_name: the name of each run: a template with the parameters' names in braces, or a callable.
        retries: how often a failed run is tried again, all of it.
        retry_delay_seconds: the delay before each retry, in seconds, or a list of them.
        timeout_seconds: how long one attempt may take, in seconds.
        validate_parameters: check and coerce the parameters by their annotations, with pydantic.
        log_prints: log what the flow and its tasks print.
        on_completion: callables `(flow, flow_run, state)` for runs that complete.
        on_failure: the same for runs that fail.
        on_crashed: the same for runs that were interrupted.
        on_cancellation: the same for runs that were cancelled.

    Returns:
        A `Flow`, or a decorator if only options were given.

    Raises:
        ConfigurationError: the function cannot be a flow, or an option is not possible.
        ReservedArgumentError: the function has a parameter `wait_for` or `return_state`.

    Example:
        >>> from riverrun import flow
        >>> @flow(task_runner="sequential")
        ... def greeting(name: str = "world") -> str:
        ...     return f"Hello, {name}!"
        >>> greeting("Anna")
        'Hello, Anna!'
    """
    if fn is None:
        check_options(options, _DEFAULTS, owner="@flow")
        return lambda function: Flow(function, **options)
    return Flow(fn, **options)
