"""Done callbacks and hooks: they belong to the flow, may call tasks and wait for them, and change nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from riverrun import TaskFuture, flow
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._asynchrony import on_both_libraries, run_on
from riverrun.testing._observation import collected
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun import State
    from riverrun.abc import TaskRunner

MANY: Final = 8
"""So many are told at once: on a runner with fewer slots, none of them may hold one while it waits."""
ONCE: Final = "each is called once, may call tasks and wait for them, and the flow ends after that"


class _Waiting:
    """Callbacks and hooks that call a task and wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._got: list[tuple[str, int]] = []

    def got(self) -> list[tuple[str, int]]:
        """Give what they were told, and what the tasks gave to them."""
        with self._lock:
            return sorted(self._got)

    def callback(self, future: TaskFuture[Any]) -> None:
        """Add ten to the value of a run."""
        self._keep("callback", _jobs.add(future, 10).result())

    def hook(self, _task: object, _run: object, state: State) -> None:
        """Add ten to one."""
        self._keep(state.name, _jobs.add(1, 10).result())

    def _keep(self, what: str, value: int) -> None:
        with self._lock:
            self._got.append((what, value))


def _call_many(waiting: _Waiting) -> list[TaskFuture[Any]]:
    """Call tasks that complete and that fail, with callbacks and hooks."""
    add = _jobs.add.with_options(on_completion=[waiting.hook])
    fail = _jobs.fail.with_options(on_failure=[waiting.hook])
    failed = [fail() for _ in range(MANY)]
    futures = [add(number, 0) for number in range(MANY)]
    for future in futures:
        future.add_done_callback(waiting.callback)
    return [*failed, *futures]


ALL_OF_THEM: Final = sorted(
    [("callback", number + 10) for number in range(MANY)] + [("Completed", 11), ("Failed", 11)] * MANY
)


@limited
class Callbacks(Suite):
    """`add_done_callback`, `on_completion`, `on_failure`: called in the flow's process, where they may wait."""

    def test_callbacks_and_hooks_may_call_tasks_and_wait_for_them(self, task_runner: TaskRunner) -> None:
        waiting = _Waiting()

        @flow(task_runner=task_runner)
        def telling() -> str:
            _call_many(waiting)
            return "told"

        assert telling() == "told"
        assert waiting.got() == ALL_OF_THEM, ONCE

    @on_both_libraries
    def test_callbacks_and_hooks_of_an_async_flow_may_call_tasks_and_wait_for_them(
        self, task_runner: TaskRunner, library: str
    ) -> None:
        waiting = _Waiting()

        @flow(task_runner=task_runner)
        async def telling() -> str:
            last = _call_many(waiting)[-1]
            await last
            last.add_done_callback(waiting.callback)  # of a run that is final: it is called all the same, and may wait
            return "told"

        assert run_on(library, telling) == "told"
        assert waiting.got() == sorted([*ALL_OF_THEM, ("callback", MANY + 9)]), ONCE

    def test_a_callback_may_wait_for_the_task_of_another_callback(self, task_runner: TaskRunner) -> None:
        numbers: list[int] = []

        def count_on(future: TaskFuture[Any]) -> None:
            number = future.result()
            numbers.append(number)
            if number < 5:
                following = _jobs.add(number, 1)
                following.add_done_callback(count_on)
                following.wait()

        @flow(task_runner=task_runner)
        def counting() -> None:
            _jobs.add(0, 1).add_done_callback(count_on)

        counting()
        assert sorted(numbers) == [1, 2, 3, 4, 5], ONCE

    @pytest.mark.parametrize("where", ["callback", "hook"])
    def test_what_is_called_in_a_callback_or_hook_is_a_task_run_of_the_flow(
        self, task_runner: TaskRunner, where: str
    ) -> None:
        def call_one_that_fails(*_: object) -> None:
            _jobs.fail("nobody looks").wait()

        @flow(task_runner=task_runner)
        def telling() -> None:
            if where == "hook":
                _jobs.add.with_options(on_completion=[call_one_that_fails])(1, 2)
            else:
                _jobs.add(1, 2).add_done_callback(call_one_that_fails)

        state = telling(return_state=True)
        assert repr(state) == "Failed(message='1/2 states failed.', type=FAILED)", "they belong to the flow"

    def test_what_a_callback_or_hook_raises_is_logged_and_changes_nothing(self, task_runner: TaskRunner) -> None:
        def raising(text: str) -> Callable[..., object]:
            def raises(*_: object) -> None:
                raise LookupError(text)

            return raises

        @flow(task_runner=task_runner)
        def telling() -> tuple[str, str, object]:
            failed = _jobs.fail.with_options(on_failure=[raising("of on_failure")])()
            add = _jobs.add.with_options(on_completion=[raising("of on_completion"), waiting.hook])
            future = add(1, 2)
            future.add_done_callback(raising("of a callback"))
            future.add_done_callback(waiting.callback)
            dependent = _jobs.add(future, 4)
            return failed.wait().name, future.wait().name, dependent.result()  # type: ignore[union-attr]

        waiting = _Waiting()
        with collected() as collector:
            assert telling() == ("Failed", "Completed", 7), "what a callback or hook raises changes no state"
        assert waiting.got() == [("Completed", 11), ("callback", 13)], "... and keeps no other from being called"
        texts = collector.texts_of(LookupError)
        assert texts == ["of a callback", "of on_completion", "of on_failure"], "... and is logged, once"
