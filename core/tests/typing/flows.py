"""What type checkers know of flows. Nothing here runs: mypy and pyright read it, both as strict as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from riverrun import Flow, FlowRun, State, TaskFuture, TaskFutureList, flow, task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@task
def add(a: int, b: int) -> int:
    return a + b


@flow
def total(n: int = 3) -> int:
    return add(1, n).result()


@flow
async def page(url: str) -> str:
    return url


@flow
def anything(n: int) -> Any:
    return n


def a_flow_keeps_its_signature_and_its_return_type() -> None:
    assert_type(total(3), int)
    assert_type(total(), int)
    assert_type(total.fn(n=3), int)
    _: Flow[[str], Coroutine[Any, Any, str]] = page
    __: Callable[[int], int] = total
    total.fn("3")  # type: ignore[arg-type]


async def an_async_flow_is_awaited() -> None:
    assert_type(await page("u"), str)
    assert_type(await page.fn("u"), str)
    assert_type(await page("u", return_state=True), State)


def a_flow_may_return_anything() -> None:
    assert_type(anything(1), Any)
    assert_type(anything(1, return_state=True), State)


def a_state_may_be_asked_for() -> None:
    assert_type(total(3, return_state=True), State)
    assert_type(total(return_state=True).result(), Any)


def futures_are_accepted_in_the_places_of_values() -> None:
    assert_type(total(add(1, 2)), int)
    assert_type(total(n=add(1, 2), wait_for=[add(3, 4)]), int)


@flow
def one_future() -> TaskFuture[int]:
    return add(1, 2)


@flow
def many_futures(n: int) -> TaskFutureList[int]:
    return add.map(range(n), 1)


@flow
async def one_future_of_an_async_flow() -> TaskFuture[int]:
    return add(1, 2)


@flow
async def many_futures_of_an_async_flow(n: int) -> TaskFutureList[int]:
    return add.map(range(n), 1)


async def a_flow_that_returns_futures_gives_their_values() -> None:
    assert_type(one_future(), int)
    assert_type(many_futures(3), list[int])
    assert_type(await one_future_of_an_async_flow(), int)
    assert_type(await many_futures_of_an_async_flow(3), list[int])
    assert_type(one_future(return_state=True), State)
    assert_type(many_futures(3, return_state=True), State)
    assert_type(one_future.fn(), TaskFuture[int])


def a_submitted_flow_gives_a_future() -> None:
    assert_type(total.submit(3), TaskFuture[int])
    assert_type(total.submit(add(1, 2), wait_for=[add(1, 2)]), TaskFuture[int])
    assert_type(page.submit("u"), TaskFuture[str])
    assert_type(page.submit("u").result(), str)
    assert_type(one_future.submit(), TaskFuture[int])
    assert_type(many_futures.submit(2), TaskFuture[list[int]])
    assert_type(one_future_of_an_async_flow.submit(), TaskFuture[int])
    assert_type(many_futures_of_an_async_flow.submit(2), TaskFuture[list[int]])
    assert_type(add(total.submit(3), 4), TaskFuture[int])


def tell(the_flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    print(the_flow.name, flow_run.name, state.name)


@flow(
    name="sum", task_runner="sequential", retries=1, flow_run_name="sum-{n}", on_completion=[tell], on_failure=(tell,)
)
def with_some_options(n: int) -> int:
    return n


@flow(timeout_seconds=10, validate_parameters=False, log_prints=True)
async def with_other_options(url: str) -> str:
    return url


async def options_keep_the_signature() -> None:
    assert_type(with_some_options(3), int)
    assert_type(with_some_options.submit(3), TaskFuture[int])
    assert_type(await with_other_options("u"), str)
    with_some_options.fn("3")  # type: ignore[arg-type]


async def a_copy_with_other_options_keeps_the_type() -> None:
    copy = total.with_options(task_runner="sequential", retries=2)
    _: Flow[[int], int] = copy
    assert_type(copy(3), int)
    assert_type(await page.with_options(log_prints=True)("u"), str)


def options_that_do_not_exist_are_errors() -> None:
    total.with_options(runner="sequential")  # type: ignore[call-arg]
    total.with_options(task_runner=3)  # type: ignore[arg-type]
    flow(runner="sequential")  # type: ignore[call-overload]


class Report:
    @flow
    def written(self, lines: int) -> str:
        return "\n" * lines

    @flow(task_runner="concurrent")
    async def sent(self, to: str) -> bool:
        return bool(to)


async def a_method_may_be_a_flow(report: Report) -> None:
    assert_type(report.written(3), str)
    assert_type(await report.sent("somebody"), bool)
    assert_type(Report.written(report, 3), str)
    assert_type(report.written.with_options(retries=1)(3), str)
    assert_type(report.written.submit(add(1, 2)), TaskFuture[str])
    report.written.fn("3")  # type: ignore[arg-type]
