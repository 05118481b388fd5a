"""An interrupt that comes where Python ignores exceptions: it ends the flow all the same."""

from __future__ import annotations

import gc
import signal
import sys
import threading

import pytest
from riverrun import flow, task

LIMIT = 100


def in_a_destructor(number: int) -> None:
    class Last:
        def __del__(self) -> None:
            signal.raise_signal(number)

    Last()


def after_a_garbage_collection(number: int) -> None:
    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(collected)
            signal.raise_signal(number)

    gc.callbacks.append(collected)
    gc.collect()


@pytest.fixture
def holds():
    """Start a task in another thread, which lasts as long as the test."""
    began, released = threading.Event(), threading.Event()

    @task
    def hold():
        began.set()
        released.wait(LIMIT)

    def holds():
        future = hold()
        assert began.wait(LIMIT)
        return future

    yield holds
    released.set()


@pytest.mark.parametrize("ignored", [in_a_destructor, after_a_garbage_collection])
@pytest.mark.parametrize("waits", [lambda future: future.result(), lambda _: None], ids=["in result()", "at the end"])
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interrupt_that_python_ignores_is_raised_where_the_flow_waits(holds, ignored, waits, number, error):
    before = sys.unraisablehook
    went_on = []

    @flow(task_runner="concurrent")
    def held() -> None:
        future = holds()
        ignored(number)
        went_on.append(True)  # Python has ignored it
        waits(future)

    with pytest.raises(error):
        held()
    assert went_on
    assert sys.unraisablehook is before


def test_an_interrupt_that_python_ignores_is_raised_although_nothing_waits_any_more():
    @flow(task_runner="sequential")
    def short() -> None:
        in_a_destructor(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        short()


def test_what_else_python_ignores_is_told_as_ever(monkeypatch):
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ValueError("on purpose")

    @flow(task_runner="sequential")
    def breaks() -> int:
        Broken()
        return 1

    assert breaks() == 1
    assert told == [ValueError]
