"""`@task`: a function whose calls, inside a flow, become task runs."""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from riverrun import _by_value, _names, _retries
from riverrun._calls import Body
from riverrun._context import current_scope
from riverrun._engine import nested_home
from riverrun._parameters import Parameters, check_function, is_async
from riverrun.exceptions import ConfigurationError, MissingContextError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from riverrun._caching import Cache
    from riverrun._decorators import Futures, TaskDecorator, TaskOptions
    from riverrun._futures import TaskFuture
    from riverrun._mapping import TaskFutureList
    from riverrun.states import State

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_DEFAULTS: dict[str, Any] = {
    "name": None,
    "description": None,
    "version": None,
    "tags": (),
    "task_run_name": None,
    "retries": 0,
    "retry_delay_seconds": None,
    "retry_jitter_factor": None,
    "retry_condition_fn": None,
    "timeout_seconds": None,
    "cache_key_fn": None,
    "cache_expiration": None,
    "persist_result": False,
    "log_prints": None,
    "resources": None,
    "runner_options": None,
    "on_completion": (),
    "on_failure": (),
    "batch_size": None,
    "max_in_flight": None,
}


class Task(Generic[P, R_co]):
    """A function whose calls, inside a flow, become task runs. Made by `@task`.

    Attributes:
        fn: the function itself; `my_task.fn(...)` calls it at once, without a run.
    """

    def __init__(self, fn: Callable[P, Any], **options: Any) -> None:
        check_function(fn, kind="task")
        options = {**_DEFAULTS, **check_options(options, _DEFAULTS, owner="@task")}
        self.fn = fn
        self._options = options
        self._origin: tuple[Any, ...] | None = None
        self.name: str = options["name"] or _names.function_name(fn)
        owner = f"Task {self.name!r}"
        self.description: str | None = options["description"] or getattr(fn, "__doc__", None)
        self.version: str | None = options["version"]
        self.tags: frozenset[str] = frozenset(
            [options["tags"]] if isinstance(options["tags"], str) else options["tags"]
        )
        self.task_run_name = options["task_run_name"]
        self.log_prints: bool | None = options["log_prints"]
        self.is_async = is_async(fn)
        self.signature = Parameters(fn, owner)
        self.least_arguments, self.most_arguments = self.signature.bounds
        self._read_retries(owner)
        timeout = options["timeout_seconds"]
        self.timeout_seconds = (
            None if timeout is None else _retries.check_seconds("timeout_seconds", timeout, owner=owner, zero=False)
        )
        self.cache = self._made_cache(owner)
        self.is_plain = (
            self.timeout_seconds is None and not self.retries and self.cache is None and self.log_prints is None
        )
        """Whether an attempt is no more than a call of the function."""
        self.needs_parameters = self.task_run_name is not None or self.cache is not None
        self.resources = checked_mapping("resources", options["resources"], owner)
        self.runner_options = checked_mapping("runner_options", options["runner_options"], owner)
        self.batch_size = _checked_count("batch_size", options["batch_size"], owner, word="auto")
        self.max_in_flight: int | None = _checked_count("max_in_flight", options["max_in_flight"], owner)
        self._hooks = {kind: checked_hooks(kind, options[kind], owner) for kind in ("on_completion", "on_failure")}
        self.has_hooks = any(self._hooks.values())
        module, qualname = getattr(fn, "__module__", None) or "", getattr(fn, "__qualname__", self.name)
        self.short_hash = _names.short_hash(f"{module}.{qualname}")
        self.run_key = f"{self.name}-{self.short_hash}"
        self.__name__ = getattr(fn, "__name__", self.name)
        self.__qualname__ = qualname
        self.__module__ = module
        self.__doc__ = getattr(fn, "__doc__", None)
        self.__wrapped__ = fn

    def _read_retries(self, owner: str) -> None:
        options = self._options
        self.retries = _retries.check_retries(options["retries"], owner=owner)
        self._delays = _retries.delays_for(options["retry_delay_seconds"], self.retries, owner=owner)
        jitter = options["retry_jitter_factor"]
        self._jitter = 0.0 if jitter is None else _retries.check_seconds("retry_jitter_factor", jitter, owner=owner)
        self.retry_condition_fn = options["retry_condition_fn"]
        if self.retry_condition_fn is not None and not callable(self.retry_condition_fn):
            given = self.retry_condition_fn
            msg = f"{owner}: retry_condition_fn must be a callable (task, task_run, state), not {given!r}."
            raise ConfigurationError(msg)

    def _made_cache(self, owner: str) -> Cache | None:
        key_fn, expiration = self._options["cache_key_fn"], self._options["cache_expiration"]
        if key_fn is None:
            if self._options["persist_result"] or expiration is not None:
                msg = (
                    f"{owner}: persist_result and cache_expiration need cache_key_fn=, which says under which key a "
                    f"result is kept."
                )
                raise ConfigurationError(msg)
            return None
        if not callable(key_fn):
            msg = f"{owner}: cache_key_fn must be a callable (context, parameters), not {key_fn!r}."
            raise ConfigurationError(msg)
        from riverrun._caching import Cache

        if isinstance(expiration, timedelta):
            expiration = expiration.total_seconds()
        if expiration is not None:
            _retries.check_seconds("cache_expiration", expiration, owner=owner)
        return Cache(key_fn, expiration, persist=bool(self._options["persist_result"]))

    def retry_delay(self, attempt: int) -> float:
        """Give the delay in seconds after the given attempt (1 for the first)."""
        return _retries.next_delay(self._delays, attempt, self._jitter)

    def hooks_for(self, state: State) -> tuple[Callable[..., object], ...]:
        """Give the hooks to call for a final state."""
        if state.is_completed():
            return self._hooks["on_completion"]
        return self._hooks["on_failure"] if state.is_failed() or state.is_crashed() else ()

    def parameters(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Give the arguments of a call by the parameters' names, defaults included."""
        return self.signature.bind(args, kwargs)

    # The last of them takes futures in the places of values; the first one is no other's, for no task has a parameter
    # `return_state`.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, *args: Any, return_state: Literal[True], wait_for: Futures = ..., **kwargs: Any
    ) -> State: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R_co]: ...
    @overload
    def __call__(self, *args: Any, wait_for: Futures = ..., **kwargs: Any) -> TaskFuture[R_co]: ...
    def __call__(self, *args: Any, wait_for: Any = None, return_state: Any = False, **kwargs: Any) -> Any:
        """Submit a run of the task, and give its future at once.

        Args:
            *args: the task's arguments; a future anywhere inside is an upstream, and its value takes its place.
            wait_for: more upstreams: futures whose values are not needed.
            return_state: wait for the run, and give its final state instead of the future.
            **kwargs: the task's arguments by name.

        Raises:
            MissingContextError: no flow is running here.
            ParameterTypeError: the arguments do not fit the function.
        """
        scope = current_scope.get()
        if scope is None:
            self._refuse_outside("")
        home = scope if scope.is_flow else nested_home(scope)
        future = home.submit(self, args, kwargs, wait_for)
        return future.wait() if return_state else future

    submit = __call__

    def map(self, *args: Any, wait_for: Iterable[Any] | None = None, **kwargs: Any) -> TaskFutureList[R_co]:
        """Submit one run for each element of the iterables among the arguments.

        Lists, tuples, sets, ranges, arrays, generators and the futures of another map are mapped over, element by
        element; text, dicts, numbers and `unmapped(x)` are repeated. Generators are read as the result is.

        Args:
            *args: the task's arguments, or iterables of them.
            wait_for: upstreams of every one of the runs.
            **kwargs: the same by name.

        Raises:
            MappingMissingIterable: there is nothing to map over.
            MappingLengthMismatch: the iterables have different lengths.
            MissingContextError: no flow is running here.
        """
        scope = current_scope.get()
        if scope is None:
            self._refuse_outside(".map")
        from riverrun._mapping import map_task

        return map_task(scope if scope.is_flow else nested_home(scope), self, args, kwargs, wait_for)

    def _refuse_outside(self, method: str) -> None:
        msg = (
            f"Task {self.name!r} was called outside of a flow ({self.name}{method}(...)). Call it inside a function "
            f"with @flow, or call the plain function: {self.name}.fn(...)."
        )
        raise MissingContextError(msg)

    def with_options(self, **options: Unpack[TaskOptions]) -> Task[P, R_co]:
        """Give a copy of the task with other options.

        Args:
            **options: the options of `@task`, by name.

        Raises:
            ConfigurationError: an option does not exist, or its value is not possible.

        Example:
            >>> from riverrun import task
            >>> @task
            ... def load(path): ...
            >>> load.with_options(retries=3, name="load-again").name
            'load-again'
        """
        check_options(options, _DEFAULTS, owner=f"{self.name}.with_options()")
        copy: Task[P, R_co] = type(self)(self.fn, **{**self._options, **options})
        copy._origin = (self, "with_options", options)
        return copy

    @overload
    def __get__(self, instance: None, owner: type, /) -> Task[P, R_co]: ...
    @overload
    def __get__(
        self: Task[Concatenate[Any, Q], R_co], instance: object, owner: type | None = ..., /
    ) -> Task[Q, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = ..., /) -> Task[..., R_co]: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        if instance is None:
            return self
        bound: Task[..., R_co] = type(self)(cast("Any", MethodType(self.fn, instance)), **self._options)
        bound._origin = (self, "__get__", instance)
        return bound

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"

    def for_worker(self) -> tuple[Any, bool]:
        """Give what a worker needs to call the function: hooks, key functions and the like stay in this process.

        Returns:
            It, and whether it travels by its name alone.
        """
        if self._origin is not None:
            base, method, _ = self._origin
            return base.for_worker() if method == "with_options" else (self, False)
        if is_found(self, self.__module__, self.__qualname__):
            return self, True
        fn = self.fn
        by_name = is_found(fn, getattr(fn, "__module__", ""), getattr(fn, "__qualname__", ""))
        return Body(fn, self.name, is_async=self.is_async), by_name

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel by name where that name leads back to this very object, else with the function's code."""
        if self._origin is not None:
            base, method, argument = self._origin
            return _derived, (base, method, argument)
        module, qualname = self.__module__, self.__qualname__
        if is_found(self, module, qualname):
            return found, (module, qualname)
        return _made, (self.fn, self._options)


def is_found(thing: object, module: str, qualname: str) -> bool:
    """Say whether a name leads to this very object, also in another process."""
    if not module or _by_value.travels_by_value(module):
        return False
    try:
        # No import of what is there: a flow that runs while its module is imported would wait for that for ever.
        return _reached(sys.modules.get(module) or import_module(module), qualname) is thing
    except (ImportError, AttributeError):  # a module that was loaded from a file, under a name of its own
        return False


def found(module: str, qualname: str) -> Any:
    """Find what a name leads to on a worker."""
    try:
        return _reached(_by_value.module_of(module), qualname)
    except AttributeError as error:
        msg = f"the module {module!r} that is there has no {qualname!r}; is it another version of it?"
        raise AttributeError(msg) from error


def _reached(thing: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        thing = getattr(thing, part)
    return thing


def _made(fn: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
    return Task(fn, **options)


def _derived(base: Task[..., Any], method: str, argument: Any) -> Any:
    return base.with_options(**argument) if method == "with_options" else base.__get__(argument)


def check_options(options: Mapping[str, Any], known: Mapping[str, Any], *, owner: str) -> Mapping[str, Any]:
    """Refuse options that do not exist, with a near match."""
    unknown = [name for name in options if name not in known]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"{owner} has no option {unknown[0]!r}.{hint} The options are: {', '.join(known)}."
        raise ConfigurationError(msg)
    return options


def checked_hooks(option: str, hooks: Any, owner: str) -> tuple[Callable[..., object], ...]:
    """Give hooks as a tuple, or say what is wrong with them."""
    if hooks is None:
        return ()
    if not isinstance(hooks, (list, tuple, set, frozenset)) or not all(callable(hook) for hook in hooks):
        msg = f"{owner}: {option} must be a list of callables, such as {option}=[notify], not {hooks!r}."
        raise ConfigurationError(msg)
    return tuple(hooks)


def checked_mapping(option: str, value: Any, owner: str) -> dict[str, Any]:
    """Give a dict of options, or say what is wrong with it."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        msg = f"{owner}: {option} must be a dict with names as its keys, not {value!r}."
        raise ConfigurationError(msg)
    return dict(value)


def _checked_count(option: str, value: Any, owner: str, word: str | None = None) -> Any:
    if value is None or (word is not None and value == word):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        also = f" or {word!r}" if word else ""
        msg = f"{owner}: {option} must be a whole number, 1 or more{also}, not {value!r}."
        raise ConfigurationError(msg)
    return value


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> TaskDecorator: ...
def task(fn: Any = None, /, **options: Any) -> Any:  # noqa: D417 - the options are explained one by one
    """Make a task of a function.

    Args:
        fn: the function, sync or async.
        name: by default the function's name.
        description: by default its docstring.
        version: any text of yours.
        tags: texts to find its runs by.
        task_run_name: the name of each run: a template with the parameters' names in braces, or a callable.
        retries: how often a failed run is tried again.
        retry_delay_seconds: the delay before each retry, in seconds: one for all, a list, or `fn(retries)` that makes
            one, such as `exponential_backoff(10)`.
        retry_jitter_factor: lengthens each delay at random by up to this factor of it.
        retry_condition_fn: `fn(task, task_run, state)` says whether a failed run is worth another attempt.
        timeout_seconds: how long one attempt may take, in seconds.
        cache_key_fn: `fn(context, parameters)` gives a key; a run with a known key takes the value of the earlier one.
        cache_expiration: how long a cached value serves, in seconds or as a timedelta.
        persist_result: keep cached values in files below `RIVERRUN_HOME`, for other processes.
        log_prints: log what the task prints; by default, what the flow says.
        resources: what a run needs on a cluster: `{"cpu": 1, "gpu": 1, "memory": "4GiB"}`.
        runner_options: options for single task runners, by name: `{"dask": {"priority": 10}}`.
        on_completion: callables `(task, task_run, state)` for runs that complete.
        on_failure: callables `(task, task_run, state)` for runs that fail or crash.
        batch_size: in `.map()`, how many runs a runner in other processes may take at once; `"auto"` lets it choose.
        max_in_flight: in `.map()`, how many runs may be unfinished in the runner at once.

    Returns:
        A `Task`, or a decorator if only options were given.

    Raises:
        ConfigurationError: the function cannot be a task, or an option is not possible.
        ReservedArgumentError: the function has a parameter `wait_for` or `return_state`.

    Example:
        >>> from riverrun import flow, task
        >>> @task(retries=2)
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> @flow(task_runner="sequential")
        ... def eight() -> int:
        ...     return double(double(2)).result()
        >>> eight()
        8
    """
    if fn is None:
        check_options(options, _DEFAULTS, owner="@task")
        return lambda function: Task(function, **options)
    return Task(fn, **options)
