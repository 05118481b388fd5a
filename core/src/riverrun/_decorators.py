"""What type checkers know of `@task(...)` and `@flow(...)`: the options, and what becomes of the function.

Nothing imports this module when a flow runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypedDict, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import timedelta

    from riverrun._flow_runs import FlowRun
    from riverrun._flows import Flow
    from riverrun._futures import TaskRun
    from riverrun._retries import Delays
    from riverrun._tasks import Task
    from riverrun.abc import TaskRunner
    from riverrun.states import State

    Async = Coroutine[Any, Any, "R"]
    Futures = Iterable[Any] | None
    TaskHook = Callable[[Task[..., Any], TaskRun, State], object]
    FlowHook = Callable[[Flow[..., Any], FlowRun, State], object]

P = ParamSpec("P")
R = TypeVar("R")


class TaskOptions(TypedDict, total=False):
    """The options of `@task` and of `Task.with_options`; `task` says what each of them does."""

    name: str | None
    description: str | None
    version: str | None
    tags: str | Sequence[str] | AbstractSet[str]
    task_run_name: str | Callable[..., str] | None
    retries: int
    retry_delay_seconds: Delays
    retry_jitter_factor: float | None
    retry_condition_fn: Callable[[Task[..., Any], TaskRun, State], bool] | None
    timeout_seconds: float | None
    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None
    cache_expiration: timedelta | float | None
    persist_result: bool
    log_prints: bool | None
    resources: dict[str, Any] | None
    runner_options: dict[str, dict[str, Any]] | None
    on_completion: Sequence[TaskHook] | AbstractSet[TaskHook] | None
    on_failure: Sequence[TaskHook] | AbstractSet[TaskHook] | None
    batch_size: int | Literal["auto"] | None
    max_in_flight: int | None


class FlowOptions(TypedDict, total=False):
    """The options of `@flow` and of `Flow.with_options`; `flow` says what each of them does."""

    name: str | None
    description: str | None
    version: str | None
    task_runner: str | type[TaskRunner] | TaskRunner | None
    flow_run_name: str | Callable[..., str] | None
    retries: int
    retry_delay_seconds: Delays
    timeout_seconds: float | None
    validate_parameters: bool
    log_prints: bool | None
    on_completion: Sequence[FlowHook] | AbstractSet[FlowHook] | None
    on_failure: Sequence[FlowHook] | AbstractSet[FlowHook] | None
    on_crashed: Sequence[FlowHook] | AbstractSet[FlowHook] | None
    on_cancellation: Sequence[FlowHook] | AbstractSet[FlowHook] | None


class TaskDecorator(Protocol):
    """What `task(...)` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


class FlowDecorator(Protocol):
    """What `flow(...)` with options gives."""

    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]: ...
