"""What type checkers know of tasks. Nothing here runs: mypy and pyright read it, both as strict as they can be."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from riverrun import State, Task, TaskFuture, TaskFutureList, TaskRun, exponential_backoff, task

if TYPE_CHECKING:
    from collections.abc import Callable


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def words(text: str, *, limit: int = 3) -> list[str]:
    return text.split()[:limit]


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task
def refresh(**settings: str) -> None:
    settings.clear()


def a_call_gives_a_future_of_what_the_function_returns() -> None:
    assert_type(add(1, 2), TaskFuture[int])
    assert_type(add(1, b=2), TaskFuture[int])
    assert_type(words("a b", limit=1), TaskFuture[list[str]])
    assert_type(refresh(), TaskFuture[None])
    assert_type(add.submit(1, 2), TaskFuture[int])


def a_call_of_an_async_task_gives_a_future_of_the_value_not_of_a_coroutine() -> None:
    assert_type(fetch("u"), TaskFuture[bytes])
    assert_type(fetch("u").result(), bytes)
    assert_type(fetch.submit("u"), TaskFuture[bytes])


def futures_are_accepted_in_the_places_of_values() -> None:
    total = add(1, 2)
    assert_type(add(total, 3), TaskFuture[int])
    assert_type(add(total, b=add(total, total)), TaskFuture[int])
    assert_type(words(fetch("u"), limit=total), TaskFuture[list[str]])
    assert_type(fetch(words("a b")), TaskFuture[bytes])


def upstreams_and_a_state_may_be_asked_for() -> None:
    total = add(1, 2)
    assert_type(add(1, 2, wait_for=[total]), TaskFuture[int])
    assert_type(refresh(wait_for=[total, fetch("u")]), TaskFuture[None])
    assert_type(add(1, 2, return_state=True), State)
    assert_type(add.submit(total, 2, wait_for=[total], return_state=True), State)
    assert_type(refresh(return_state=True), State)
    assert_type(fetch("u", return_state=True), State)


def a_map_gives_a_list_of_futures() -> None:
    assert_type(add.map([1, 2], 3), TaskFutureList[int])
    assert_type(add.map(add.map([1, 2], 3), b=range(2)), TaskFutureList[int])
    assert_type(fetch.map(["u", "v"]), TaskFutureList[bytes])
    assert_type(fetch.map(["u", "v"], wait_for=[add(1, 2)]), TaskFutureList[bytes])


def the_function_itself_keeps_its_parameters() -> None:
    _: Callable[[int, int], Any] = add.fn
    add.fn("1", 2)  # type: ignore[arg-type]


def retry_if_it_was_a_timeout(the_task: Task[..., Any], run: TaskRun, state: State) -> bool:
    return the_task.retries > run.run_count and state.name == "TimedOut"


@task(name="multiply", retries=3, retry_delay_seconds=[1, 2.5, 10], tags={"arithmetic"}, resources={"cpu": 1})
def times(a: int, b: int = 1) -> int:
    return a * b


@task(
    retry_delay_seconds=exponential_backoff(2),
    retries=2,
    timeout_seconds=1.5,
    retry_condition_fn=retry_if_it_was_a_timeout,
)
async def measure(url: str) -> float:
    return len(url) / 2


@task(
    cache_key_fn=lambda _, parameters: str(parameters),
    cache_expiration=timedelta(hours=1),
    on_completion=[lambda the_task, run, state: print(the_task.name, run.end_time, state.message)],
)
def cached(a: int) -> str:
    return str(a)


@task()
def plain(a: int) -> str:
    return str(a)


def options_keep_the_signature() -> None:
    assert_type(times(1, b=2), TaskFuture[int])
    assert_type(times(add(1, 2)), TaskFuture[int])
    assert_type(measure("u"), TaskFuture[float])
    assert_type(cached(1), TaskFuture[str])
    assert_type(plain(1), TaskFuture[str])
    _: Task[[str], float] = measure
    times.fn("1")  # type: ignore[arg-type]


def a_copy_with_other_options_keeps_the_type() -> None:
    slow = add.with_options(retries=3, name="slow-add", max_in_flight=10)
    _: Task[[int, int], int] = slow
    assert_type(slow(1, 2), TaskFuture[int])
    assert_type(fetch.with_options(timeout_seconds=3)("u"), TaskFuture[bytes])
    assert_type(times.with_options(batch_size="auto").map([1, 2]), TaskFutureList[int])


def options_that_do_not_exist_are_errors() -> None:
    add.with_options(retrys=3)  # type: ignore[call-arg]
    add.with_options(retries="three")  # type: ignore[arg-type]
    task(retrys=3)  # type: ignore[call-overload]
    task(batch_size="all")  # type: ignore[call-overload]


class Account:
    @task
    def deposit(self, amount: int) -> float:
        return amount / 100

    @task(retries=1)
    async def balance(self, currency: str = "EUR") -> int:
        return len(currency)


def a_method_may_be_a_task(account: Account) -> None:
    assert_type(account.deposit(5), TaskFuture[float])
    assert_type(account.deposit(add(1, 2)), TaskFuture[float])
    assert_type(account.deposit.map([1, 2]), TaskFutureList[float])
    assert_type(account.balance(), TaskFuture[int])
    assert_type(Account.deposit(account, 5), TaskFuture[float])
    assert_type(account.deposit.with_options(retries=2)(5), TaskFuture[float])
    assert_type(account.balance.with_options(name="b").submit("USD", wait_for=[add(1, 2)]), TaskFuture[int])
    assert_type(account.deposit(5, return_state=True), State)
    account.deposit.fn("5")  # type: ignore[arg-type]
