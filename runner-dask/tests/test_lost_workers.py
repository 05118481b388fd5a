"""Workers that die, come late or leave: every run reaches a final state, and runs as often as its attempts say."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import distributed
import pytest
from riverrun import flow, task
from riverrun.abc import current_executor
from riverrun.exceptions import WorkerLost
from riverrun.task_runners import DaskTaskRunner
from runner_dask._fetching import fetched
from runner_dask._stall import Stall

LIMIT = 100
TWO = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


def on_two(*, cluster=None, **options):
    """A runner with a temporary cluster of two workers of one thread each."""
    return DaskTaskRunner(cluster_kwargs={**TWO, **(cluster or {})}, **options)


@pytest.fixture
def on_shared(forked_clusters):
    """A runner for a cluster of two workers of one thread each, which start again when they are killed."""
    cluster = forked_clusters(1)
    yield lambda **options: DaskTaskRunner(cluster=cluster.cluster, **options)
    cluster.wait_for_workers()


class Notes:
    """A file in which tasks note, one line each, that they have begun."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self):
        return Path(self.path).read_text().splitlines() if Path(self.path).exists() else []

    def counts(self):
        return Counter(self.lines())


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def noting(notes):
    """A function for tasks: it adds a line to the notes."""
    path = notes.path

    def note(text):
        with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{text}\n")

    return note


@pytest.fixture
def holding(tmp_path, wait_until):
    """A function for tasks that tells its process and waits for ever, the first time; and the process that does."""
    path = str(tmp_path / "held.txt")

    def hold():
        if os.path.exists(path):  # noqa: PTH110 - it runs on workers
            return
        with open(f"{path}.new", "w") as file:  # noqa: PTH123
            file.write(str(os.getpid()))
        os.rename(f"{path}.new", path)  # noqa: PTH104
        time.sleep(600)

    def held():
        return int(wait_until(lambda: Path(path).exists() and Path(path).read_text(), "a task holds its worker"))

    return hold, held


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def attempts(futures):
    return [future._run.run_count for future in futures]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_worker_killed_in_the_middle_of_200_tasks(nothing_left, notes, noting, holding, caplog):
    hold, held = holding

    @task
    def noted(number):
        noting(number)
        if number == 60:
            hold()
        return number

    @flow(task_runner=on_two())
    def killed_once():
        futures = [noted(number) for number in range(200)]
        kill(held())
        states = [future.wait(LIMIT) for future in futures]
        return Seen(futures, states)

    futures, states = killed_once()
    assert Counter(state.name for state in states) == {"Completed": 200}
    assert [future.result() for future in futures] == list(range(200))
    assert futures[60]._run.run_count == 2
    assert notes.counts() == {str(number): count for number, count in enumerate(attempts(futures))}
    (warning,) = [text for text in warnings(caplog) if futures[60].name in text]
    assert f"Task run '{futures[60].name}' was lost in attempt 1 and is run again (loss 1 of 2): " in warning
    assert "was killed by SIGKILL" in warning


def test_a_lost_run_uses_its_retries_where_losses_are_not_allowed(on_shared, notes, noting, holding):
    hold, held = holding

    @task(retries=1)
    def noted():
        noting("run")
        hold()
        return 7

    @flow(task_runner=on_shared(max_worker_losses=0))
    def killed_once():
        future = noted()
        kill(held())
        return Seen(future.result(LIMIT), future)

    value, future = killed_once()
    assert value == 7
    assert attempts([future]) == [2]
    assert notes.lines() == ["run", "run"]


def test_a_run_that_may_not_be_lost_is_crashed_and_says_all_that_is_known(nothing_left, notes, noting, holding):
    hold, held = holding

    @task(log_prints=True)
    def noted():
        noting("run")
        print("I have begun.")
        print("I am in the middle.")
        hold()

    @task
    def beside(number):
        noting(number)

    @flow(task_runner=on_two(max_worker_losses=0))
    def killed_once():
        future = noted()
        pid = held()
        others = [beside(number) for number in range(10)]
        assert [other.wait(LIMIT).name for other in others[:1]] == ["Completed"]
        kill(pid)
        state = future.wait(LIMIT)
        for other in others:
            other.wait(LIMIT)
        return Seen(pid, future, state)

    pid, future, state = killed_once()
    assert state.name == "Crashed"
    assert (
        f"Task run '{future.name}' was lost in attempt 1: it was running on Dask worker tcp://127.0.0.1:"
        in state.message
    )
    assert f"(pid {pid} on host " in state.message
    assert "was killed by SIGKILL. Nothing else ran there." in state.message
    said = [f"    Task run '{future.name}' - {text}" for text in ("I have begun.", "I am in the middle.")]
    assert state.message.endswith("\n".join(["Its last lines:", *said]))
    with pytest.raises(WorkerLost, match="was killed by SIGKILL"):
        state.result()
    assert notes.counts() == {"run": 1, **{str(number): 1 for number in range(10)}}


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.stress), 2])
def test_a_task_that_always_kills_its_worker_is_named_and_takes_no_other_with_it(nothing_left, notes, noting, threads):
    @task
    def poison():
        noting("poison")
        os._exit(9)

    @task
    def good(number):
        time.sleep(0.01)
        return number

    @flow(task_runner=on_two(cluster={"threads_per_worker": threads}))
    def poisoned():
        before = [good(number) for number in range(25)]
        killer = poison()
        after = [good(number) for number in range(25)]
        return Seen(killer, [future.wait(LIMIT) for future in [*before, *after]], killer.wait(LIMIT))

    killer, states, state = poisoned()
    assert Counter(state.name for state in states) == {"Completed": 50}
    assert state.name == "Crashed"
    assert f"Task run '{killer.name}' was lost in attempt 3: it was running on Dask worker tcp://" in state.message
    assert "exited with status 9" in state.message
    assert "the task itself ends its worker" in state.message
    assert "KilledWorker" not in repr(state)
    assert type(state.exception()) is WorkerLost
    assert notes.lines() == ["poison"] * 3 == ["poison"] * killer._run.run_count


def test_a_worker_over_its_memory_limit(nothing_left):
    @task
    def greedy():
        taken = [bytearray(os.urandom(1 << 20)) * 8 for _ in range(60)]
        time.sleep(600)  # its nanny looks at it from time to time
        return len(taken)

    @flow(task_runner=on_two(cluster={"n_workers": 1, "memory_limit": "400MiB"}, max_worker_losses=0))
    def hungry():
        return Seen(greedy().wait(LIMIT))

    (state,) = hungry()
    assert state.name == "Crashed"
    assert "was killed because it exceeded its memory limit of 400.00 MiB (peak " in state.message
    assert "Give workers more memory (cluster_kwargs={'memory_limit': ...}) or do less at once." in state.message


def test_a_worker_that_joins_late_takes_its_share(dask_cluster, notes, noting):
    path = notes.path

    @task
    def noted(number):
        noting(f"{number} {os.getpid()}")
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            with open(path) as file:  # noqa: PTH123
                if len({line.split()[1] for line in file}) > 1:
                    break
            time.sleep(0.02)
        return os.getpid()

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address))
    def shared():
        futures = [noted(number) for number in range(40)]
        dask_cluster.start_worker()
        return [future.result(LIMIT) for future in futures]

    pids = shared()
    assert len(set(pids)) == 2
    assert sorted(int(line.split()[0]) for line in notes.lines()) == list(range(40))


def test_a_worker_that_is_retired_in_the_middle_ends_what_it_has_and_nothing_runs_twice(dask_cluster, notes, noting):
    dask_cluster.start_worker()

    @task
    def noted(number):
        noting(number)
        time.sleep(0.05)
        return distributed.get_worker().address, b"x" * 20_000

    @task
    def size(given):
        return len(given[1])

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address))
    def retired():
        with distributed.Client(dask_cluster.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=LIMIT)
            futures = [noted(number) for number in range(60)]
            sizes = [size(future) for future in futures]
            address = futures[0].result(LIMIT)[0]
            client.retire_workers([address], close_workers=True)
            assert [future.result(LIMIT) for future in sizes] == [20_000] * 60
            assert len([future.result(LIMIT) for future in futures]) == 60
        return Seen(futures)

    (futures,) = retired()
    assert attempts(futures) == [1] * 60
    assert notes.counts() == {str(number): 1 for number in range(60)}


def test_a_call_that_ends_on_a_worker_that_is_being_retired_brings_its_value_home(
    dask_cluster, notes, noting, tmp_path, wait_until
):
    dask_cluster.start_worker()
    begun, free = tmp_path / "begun", tmp_path / "free"

    @task
    def large():
        noting("large")
        begun.write_text(distributed.get_worker().address)
        end = time.monotonic() + LIMIT
        while not free.exists() and time.monotonic() < end:
            time.sleep(0.01)
        return os.getpid(), b"x" * 200_000

    @task
    def length(value):
        return len(value[1])

    def status(dask_worker):
        return dask_worker.status.name

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address))
    def retired():
        with distributed.Client(dask_cluster.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=LIMIT)
            future = large()
            address = wait_until(lambda: begun.exists() and begun.read_text(), "the task has begun")
            client.retire_workers([address], close_workers=False, remove=False)
            wait_until(lambda: client.run(status, workers=[address])[address] == "closing_gracefully", "it has heard")
            free.touch()
            future.wait(LIMIT)
            kill(future.result(LIMIT)[0])  # what it had, nobody else has
            return Seen(future, length(future).result(LIMIT))

    future, size = retired()
    assert size == 200_000
    assert attempts([future]) == [1]
    assert notes.lines() == ["large"]


def large_value_on_a_worker(noting):
    """A task whose value stays where it was made, and which gives the process that has it."""

    @task
    def large():
        noting("large")
        return os.getpid(), b"x" * 200_000

    @task
    def process_of(value):
        return value[0]

    return large, process_of


def test_a_value_that_was_lost_is_computed_again_when_it_is_fetched(on_shared, notes, noting, caplog):
    large, process_of = large_value_on_a_worker(noting)

    @flow(task_runner=on_shared())
    def lost():
        future = large()
        pid = process_of(future).result(LIMIT)
        kill(pid)
        again, value = future.result(LIMIT)
        return Seen(future, pid, again, value)

    future, pid, again, value = lost()
    assert again != pid
    assert value == b"x" * 200_000
    assert notes.lines() == ["large", "large"]
    assert attempts([future]) == [2]
    told = f"The value of task run '{future.name}' is gone with the worker that had it: it is run again (loss 1 of 2)."
    assert told in warnings(caplog)


def test_a_value_that_was_lost_is_computed_again_for_a_new_task(on_shared, notes, noting, wait_until):
    large, process_of = large_value_on_a_worker(noting)

    @task
    def length(value):
        noting("length")
        return len(value[1])

    @flow(task_runner=on_shared())
    def lost():
        first = large()
        second = length(first)
        assert second.result(LIMIT) == 200_000
        kill(process_of(first).result(LIMIT))
        third = [length(first), length(first)]
        return Seen(first, second, third, [future.result(LIMIT) for future in third])

    first, second, third, values = lost()
    assert values == [200_000, 200_000]
    assert notes.counts() == {"large": 2, "length": 3}
    assert attempts([first, second, *third]) == [2, 1, 1, 1]


def test_a_whole_chain_of_values_that_was_lost_is_computed_again(nothing_left, notes, noting):
    large, process_of = large_value_on_a_worker(noting)

    @task
    def longer(value):
        noting("longer")
        return os.getpid(), value[1] + b"y"

    @flow(task_runner=on_two(cluster={"n_workers": 1}, max_worker_losses=1))
    def lost():
        first = large()
        second = longer(first)
        kill(process_of(second).result(LIMIT))
        return Seen(first, second, len(second.result(LIMIT)[1]))

    first, second, size = lost()
    assert size == 200_001
    assert notes.counts() == {"large": 2, "longer": 2}
    assert attempts([first, second]) == [2, 2]


def test_a_value_nobody_needs_is_not_computed_again(nothing_left, notes, noting, holding):
    large, process_of = large_value_on_a_worker(noting)

    @task
    def other():
        return 1

    @flow(task_runner=on_two(cluster={"n_workers": 1}))
    def lost():
        future = large()
        kill(process_of(future).result(LIMIT))
        assert other().result(LIMIT) == 1
        return 2

    assert lost() == 2
    assert notes.lines() == ["large"]


def test_a_value_that_may_not_be_lost_says_so(on_shared, notes, noting):
    large, process_of = large_value_on_a_worker(noting)

    @flow(task_runner=on_shared(max_worker_losses=0))
    def lost():
        future = large()
        kill(process_of(future).result(LIMIT))
        text = "is gone with the worker that had it, and the run was lost 1 times: it is not run again"
        with pytest.raises(WorkerLost, match=text):
            future.result(LIMIT)
        return Seen(process_of(future).wait(LIMIT))

    (state,) = lost()
    assert state.name == "Crashed"
    assert "is gone with the worker that had it" in state.message
    assert notes.lines() == ["large"]


def test_a_value_is_not_waited_for_that_is_lost_while_it_is_fetched(on_shared, monkeypatch):
    # Dask may try for 30 s to reach a worker that died just then; here it always does.
    trying = threading.Event()

    async def try_for_long(*_, **__):
        trying.set()
        await asyncio.sleep(600)

    @task
    def large():
        return os.getpid(), b"x" * 200_000

    @task
    def process_of(value):
        return value[0]

    @flow(task_runner=on_shared(max_worker_losses=0))
    def lost():
        future = large()
        pid = process_of(future).result(LIMIT)
        monkeypatch.setattr("distributed.scheduler.gather_from_workers", try_for_long)
        threading.Thread(target=lambda: (trying.wait(LIMIT), kill(pid))).start()
        with pytest.raises(WorkerLost, match="is gone with the worker that had it"):
            future.result()

    lost()


def test_a_cluster_without_workers_is_told_of_and_goes_on_when_one_comes(dask_cluster, holding, caplog, wait_until):
    caplog.set_level("INFO")
    hold, held = holding
    address = dask_cluster.address

    @task
    def waiting():
        hold()
        return 1

    def said(text):
        return [record for record in caplog.records if text in record.getMessage()]

    @flow(task_runner=DaskTaskRunner(address=address, stall_after=0.1))
    def stalled():
        future = waiting()
        kill(held())
        wait_until(lambda: said("has had no worker for 0.1 s"), "it is told")
        dask_cluster.start_worker()
        assert future.result(LIMIT) == 1

    stalled()
    (warning,) = said("has had no worker")
    assert warning.levelname == "WARNING"
    assert warning.getMessage() == (
        f"The Dask cluster at {address} has had no worker for 0.1 s, and 1 task run waits: the flow goes on when one "
        f"comes. Start one (`dask worker {address}`), or look at why there is none (in the logs of the workers, or of "
        "what starts them)."
    )
    (news,) = said("has a worker again")
    assert news.levelname == "INFO"


def test_each_time_without_workers_is_told_once(caplog):
    caplog.set_level("INFO")
    workers = []
    stall = Stall(1e-9, "tcp://127.0.0.1:1", SimpleNamespace(offers=lambda: list(workers)), ["one", "two"])
    for there in ([], [], [], ["here"], ["here"], [], []):
        workers[:] = there
        stall.look()
    texts = [record.getMessage().partition(": the flow")[0] for record in caplog.records]
    assert texts == [
        "The Dask cluster at tcp://127.0.0.1:1 has had no worker for 1e-09 s, and 2 task runs wait",
        "The Dask cluster at tcp://127.0.0.1:1 has a worker again.",
        "The Dask cluster at tcp://127.0.0.1:1 has had no worker for 1e-09 s, and 2 task runs wait",
    ]


def test_a_cluster_whose_last_worker_was_idle_when_it_died_is_told_of(dask_cluster, caplog, wait_until):
    @task
    def process():
        return os.getpid()

    def said(text):
        return [warning for warning in warnings(caplog) if text in warning]

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address, stall_after=0.1))
    def stalled():
        first = process().result(LIMIT)
        kill(first)
        wait_until(lambda: not current_workers(), "the flow run knows")
        future = process()
        wait_until(lambda: said("1 task run waits"), "it is told")
        dask_cluster.start_worker()
        assert future.result(LIMIT) != first

    stalled()


def current_workers():
    return list(current_executor()._guests.offers())


DIES = """
import os
from pathlib import Path

def dask_setup(worker):
    def die(*args, **kwargs):
        Path(FILE).touch()
        os._exit(9)

    if not Path(FILE).exists():
        worker.handlers["plugin-add"] = die
"""
"""What a worker preloads that dies, once, when the flow run that starts asks it who it is."""


@pytest.mark.parametrize("others", [1, 0])
def test_a_worker_that_dies_while_a_flow_run_starts_is_not_missed(dask_scheduler, tmp_path, others):
    preload = tmp_path / "dies.py"
    preload.write_text(DIES.replace("FILE", repr(str(tmp_path / "died"))))
    dask_scheduler.start_worker("--nanny", "--preload", str(preload))
    for _ in range(others):
        dask_scheduler.start_worker()
    dask_scheduler.wait_for_workers(1 + others)

    @task
    def double(number):
        return 2 * number

    @flow(task_runner=DaskTaskRunner(address=dask_scheduler.address, start_timeout=LIMIT))
    def started():
        return double.map(range(4)).result()

    assert started() == [0, 2, 4, 6]
    assert (tmp_path / "died").exists()


def test_a_value_that_was_lost_before_it_was_sent_is_not_there():
    with pytest.raises(CancelledError):
        fetched(None, lambda: True)
