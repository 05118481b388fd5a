"""What happened last to the task runs of a flow run: in a file, at SIGUSR1, and in a test that hit its limit."""

from __future__ import annotations

import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from riverrun import flow, task
from riverrun.abc import Concurrency, ExecutorTaskRunner
from riverrun.testing import within
from riverrun.testing._within import Overdue

LIMIT = 10


@task
def add(a: int, b: int) -> int:
    return a + b


class PoolTaskRunner(ExecutorTaskRunner):
    concurrency = Concurrency.CONCURRENT

    def executor(self):
        return ThreadPoolExecutor(2)


def events_in(text: str) -> list[str]:
    """Give the lines about task runs, without the moments and without the hash in each name."""
    lines = [re.sub(r"^ +[+-]\d+\.\d+ s  |-[0-9a-f]{8}(?=-\d)", "", line) for line in text.splitlines()]
    return [line for line in lines if line.startswith("add-")]


@pytest.mark.parametrize("task_runner", ["sequential", "concurrent"])
def test_the_events_of_a_flow_run_are_appended_to_the_file_that_the_setting_names(task_runner, tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERRUN_EVENT_LOG", str(tmp_path / "events"))

    @flow(task_runner=task_runner)
    def one() -> int:
        return add(1, 2).result()

    one()
    one()
    text = (tmp_path / "events").read_text("utf-8")
    assert len(re.findall(r"(?m)^Flow run '[\w-]+', the last 2 events:$", text)) == 2
    assert events_in(text) == 2 * ["add-0: started -> RUNNING, attempt 1, -", "add-0: final -> FINAL, attempt 1, tell"]


def test_a_subflow_run_has_events_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RIVERRUN_EVENT_LOG", "-")

    @flow(task_runner="sequential")
    def inner() -> None:
        add(1, 2)

    @flow(task_runner="sequential")
    def outer() -> None:
        inner()

    outer()
    assert len(re.findall(r"the last \d events:", capsys.readouterr().err)) == 2


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RIVERRUN_EVENT_LOG", str(tmp_path))

    @flow(task_runner="sequential")
    def one() -> int:
        return add(1, 2).result()

    assert one() == 3
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    reason = f"[Errno 21] Is a directory: {str(tmp_path)!r}"
    assert said == [f"The events of a flow run could not be written to {str(tmp_path)!r}: {reason}"]


def test_the_last_thousand_events_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERRUN_EVENT_LOG", str(tmp_path / "events"))

    @flow(task_runner="sequential")
    def many() -> None:
        for number in range(600):
            add(number, 1)

    many()
    text = (tmp_path / "events").read_text("utf-8")
    assert "the last 1000 events:" in text
    assert len(events_in(text)) == 1000
    assert events_in(text)[-1].startswith("add-599: final")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1 on this system")
def test_sigusr1_tells_what_is_under_way_and_changes_nothing(capsys):
    gate = threading.Event()

    @task
    def held() -> int:
        assert gate.wait(LIMIT)
        return 1

    @flow(task_runner=PoolTaskRunner())
    def one() -> int:
        add(1, 2).wait()
        first = held()
        second = add(first, 1)
        signal.raise_signal(signal.SIGUSR1)
        gate.set()
        return second.result()

    before = signal.getsignal(signal.SIGUSR1)
    assert one() == 2
    assert signal.getsignal(signal.SIGUSR1) is before
    text = capsys.readouterr().err
    assert re.search(r"(?m)^Flow run '[\w-]+', [23] task runs are not final:$", text)
    assert re.search(r"(?m)^    add-\w+-1: WAITING, attempt 0, 1 upstreams missing$", text)
    assert "add-0: packing -> PACKING, attempt 1, -" in events_in(text)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1 on this system")
def test_a_handler_of_the_applications_stays(capsys):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append("mine"))
    try:

        @flow(task_runner="sequential")
        def one() -> None:
            signal.raise_signal(signal.SIGUSR1)

        one()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == ["mine"]
    assert "task runs are not final" not in capsys.readouterr().err


def test_a_check_that_hangs_says_what_happened_last():
    gate = threading.Event()

    @task
    def held() -> None:
        assert gate.wait(LIMIT)

    @flow(task_runner=PoolTaskRunner())
    def waiting() -> None:
        held()

    try:
        with pytest.raises(Overdue, match=r"1 task runs are not final:\n    held-\w+-0: "):
            within(0.3, waiting)
    finally:
        gate.set()
