"""Executors that keep values on their workers: handles, calls that are sent early, losses, values that are lost."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar

import anyio
import pytest
from riverrun import CrashedRun, MissingContextError, WorkerLost, allow_failure, as_completed, flow, gather, quote, task
from riverrun.abc import Concurrency, RemoteTaskExecutor, TaskRunner, current_executor
from riverrun.states import Completed, Failed

LIMIT = 10
MOST = 100
"""Up to this size a value comes back with the outcome, in bytes."""


class Handle:
    """A value in the store of a cluster, or on its way there."""

    def __init__(self, call: Any, report: Any) -> None:
        self.call = call
        self.report = report
        self.done = threading.Event()
        self.value: Any = None
        self.failed = False
        self.is_there = True


class Cluster:
    """A cluster of threads: a call waits for its upstreams, and what is to go wrong is said before."""

    max_worker_losses = 2

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.fetched = 0
        self.puts: list[Any] = []
        self.withdrawn: list[Any] = []
        self.losses: dict[str, list[dict[str, Any]]] = {}
        """What to tell instead of running the next call of a task, or of one run, by its name."""
        self.more_retries = 0
        self.hold: dict[str, threading.Event] = {}
        """Calls of these tasks wait before they begin."""
        self._running: set[str] = set()
        self._pool = ThreadPoolExecutor(16)

    def send(self, call: Any, report: Any, /) -> Handle:
        handle = Handle(pickle.loads(pickle.dumps(_travelling(call))), report)  # noqa: S301
        self.sent.append(call.name)
        if self.more_retries:
            report.retries(self.more_retries)
        self._pool.submit(self._run, handle, call.upstreams)
        return handle

    def _run(self, handle: Handle, upstreams: tuple[Handle, ...]) -> None:
        for upstream in upstreams:
            assert upstream.done.wait(LIMIT)
            if upstream.failed:
                handle.failed = True
                handle.done.set()
                return
        name = handle.call.name.rsplit("-", 2)[0]
        if name in self.hold:
            assert self.hold[name].wait(LIMIT)
        if handle in self.withdrawn:
            return
        self._running.add(handle.call.name)
        losses = self.losses.get(handle.call.name) or self.losses.get(name)
        if losses:
            handle.failed = True
            self._running.discard(handle.call.name)
            handle.done.set()
            handle.report.lost(WorkerLost(f"{handle.call.name} is gone"), **losses.pop(0))
            return
        handle.report.begun(1.0)
        outcome, value = handle.call.run_keeping([upstream.value for upstream in upstreams], MOST)
        outcome = pickle.loads(pickle.dumps(outcome))  # noqa: S301
        self._running.discard(handle.call.name)
        handle.value, handle.failed = value, outcome.error is not None or outcome.void
        handle.done.set()
        handle.report.ended(outcome, handle)

    def fetch(self, handle: Handle, /) -> Any:
        if not handle.is_there:
            raise WorkerLost("gone")
        self.fetched += 1
        return handle.value

    def holds(self, handle: Handle, /) -> bool:
        return handle.is_there

    def put(self, value: Any, /) -> Handle:
        self.puts.append(value)
        handle = Handle(None, None)
        handle.value = pickle.loads(pickle.dumps(value))  # noqa: S301
        handle.done.set()
        return handle

    def cancel(self, handle: Handle, /) -> bool:
        if handle.call.name in self._running or handle.done.is_set():
            return False
        self.withdrawn.append(handle)
        handle.failed = True
        handle.done.set()
        return True

    def lose(self, value_of: Any) -> None:
        """Lose the value of a future."""
        value_of._value.handle.is_there = False

    def close(self) -> None:
        self._pool.shutdown()


def _travelling(call: Any) -> Any:
    upstreams, call.upstreams = call.upstreams, ()
    copy = pickle.loads(pickle.dumps(call))  # noqa: S301
    call.upstreams = upstreams
    return copy


class ClusterTaskRunner(TaskRunner):
    concurrency = Concurrency.PARALLEL
    made: ClassVar[list[Cluster]] = []

    @contextmanager
    def start(self):
        cluster = Cluster()
        self.made.append(cluster)
        try:
            yield cluster
        finally:
            for event in cluster.hold.values():
                event.set()
            cluster.close()


on_a_cluster = flow(task_runner=ClusterTaskRunner())


def cluster() -> Cluster:
    """Give the cluster of the present flow run."""
    return current_executor()


@task
def big(letter: str = "x") -> str:
    return letter * 1000


@task
def small(value: Any = 1) -> Any:
    return value


@task
def size(value: Any) -> int:
    return len(value)


@task
def bad() -> None:
    raise ValueError("no")


attempts: list[str] = []


@task(retries=1)
def second_time_lucky() -> str:
    attempts.append("attempt")
    if len(attempts) < 2:
        raise ValueError("not yet")
    return "y" * 1000


@pytest.fixture(autouse=True)
def _fresh():
    attempts.clear()
    ClusterTaskRunner.made.clear()


def test_the_cluster_of_the_tests_is_a_remote_task_executor():
    assert isinstance(Cluster(), RemoteTaskExecutor)


def test_outside_of_a_flow_there_is_no_executor():
    assert current_executor() is None


def test_a_small_value_comes_with_the_outcome():
    @on_a_cluster
    def one():
        assert small(5).result() == 5
        return cluster().fetched

    assert one() == 0


def test_a_large_value_stays_until_somebody_asks_for_it():
    @on_a_cluster
    def one():
        future = big()
        future.wait()
        before = cluster().fetched
        assert future.state.is_completed()
        assert cluster().fetched == before
        assert future.result() == "x" * 1000
        assert future.state.result() == "x" * 1000
        return before, cluster().fetched

    assert one() == (0, 2)


def test_a_large_value_is_gone_with_its_flow_run():
    futures: list[Any] = []

    @on_a_cluster
    def one() -> None:
        futures.append(big())

    one()
    with pytest.raises(MissingContextError) as raised:
        futures[0].result()
    text = str(raised.value)
    assert text.startswith("The value of task run 'big-")
    assert "' stayed on the cluster, and flow run '" in text
    assert text.endswith(
        "' is over: it is not there any more. Return it from the flow, or call result() while the flow runs."
    )


def test_a_large_value_goes_to_its_dependents_without_coming_here():
    @on_a_cluster
    def two():
        first = big()
        first.wait()
        assert size(first).result() == 1000
        assert size(quote("abc")).result() == 3
        assert size([first, {"a": first}]).result() == 2
        return cluster().fetched

    assert two() == 0


def test_calls_are_sent_before_their_upstreams_have_ended():
    @on_a_cluster
    def chain():
        cluster().hold["big"] = threading.Event()
        future = big()
        for _ in range(3):
            future = small(future)
        sent = list(cluster().sent)
        cluster().hold["big"].set()
        assert future.result() == "x" * 1000
        return len(sent)

    assert chain() == 4


def test_what_waits_for_others_or_may_fail_is_sent_when_they_have_ended():
    @on_a_cluster
    def waiting():
        cluster().hold["big"] = threading.Event()
        first = big()
        futures = [small(1, wait_for=[first]), small(allow_failure(first))]
        sent = list(cluster().sent)
        cluster().hold["big"].set()
        assert [len(str(value)) for value in gather(futures)] == [1, 1000]
        return len(sent)

    assert waiting() == 1


def test_what_was_sent_early_is_not_ready_if_its_upstream_fails():
    @on_a_cluster
    def failing():
        cluster().hold["bad"] = threading.Event()
        first = bad()
        second = small(first)
        third = small(second)
        assert len(cluster().sent) == 3
        cluster().hold["bad"].set()
        assert [future.wait().name for future in (first, second, third)] == ["Failed", "NotReady", "NotReady"]
        assert [future.task_run.run_count for future in (first, second)] == [1, 1]

    assert failing(return_state=True).is_failed()


def test_what_was_sent_early_is_sent_anew_if_its_upstream_is_tried_again():
    @on_a_cluster
    def retried():
        cluster().hold["second_time_lucky"] = threading.Event()
        first = second_time_lucky()
        second = size(first)
        third = small(second)
        assert len(cluster().sent) == 3
        cluster().hold["second_time_lucky"].set()
        assert (second.result(), third.result()) == (1000, 1000)
        return [future.task_run.run_count for future in (first, second, third)]

    assert retried() == [2, 1, 1]


def test_a_run_that_is_lost_is_run_again_as_often_as_the_executor_allows(caplog: pytest.LogCaptureFixture):
    @on_a_cluster
    def lossy():
        cluster().losses["small"] = [{}, {}]
        future = small(1)
        return future.result(), future.task_run.run_count

    assert lossy() == (1, 3)
    [first, second] = [r.getMessage() for r in caplog.records if "was lost in attempt" in r.getMessage()]
    assert "was lost in attempt 1 and is run again (loss 1 of 2)" in first
    assert "was lost in attempt 2 and is run again (loss 2 of 2)" in second


def test_a_run_that_is_lost_too_often_is_crashed():
    @on_a_cluster
    def lossy():
        cluster().losses["small"] = [{}, {}, {}]
        future = small(1)
        state = future.wait()
        with pytest.raises(WorkerLost, match="small-.*-0 is gone"):
            future.result()
        return state.name, future.task_run.run_count

    assert lossy() == ("Crashed", 3)


def test_losses_cost_no_retry():
    @on_a_cluster
    def lossy():
        cluster().losses["second_time_lucky"] = [{}, {}]
        future = second_time_lucky()
        return len(future.result()), future.task_run.run_count

    assert lossy() == (1000, 4)


def test_retries_are_used_when_the_losses_are_used_up():
    @on_a_cluster
    def lossy():
        cluster().losses["small"] = [{}, {}, {}]
        future = small.with_options(retries=1)(1)
        return future.result(), future.task_run.run_count

    assert lossy() == (1, 4)


def test_a_run_that_had_not_begun_is_sent_anew_and_that_was_no_attempt():
    @on_a_cluster
    def lossy():
        cluster().losses["small"] = [{"begun": False}] * 5
        future = small(1)
        return future.result(), future.task_run.run_count

    assert lossy() == (1, 1)


def test_a_run_that_never_gets_to_begin_is_crashed_in_the_end():
    @on_a_cluster
    def lossy():
        cluster().losses["small"] = [{"begun": False}] * 100
        return small(1).wait().name

    assert lossy() == "Crashed"


def test_a_loss_for_good_ends_the_run_at_once():
    @on_a_cluster
    def lossy():
        cluster().losses["small"] = [{"final": True}]
        future = small.with_options(retries=5)(1)
        with pytest.raises(CrashedRun, match="is gone"):
            future.result()
        return future.state.name, future.task_run.run_count

    assert lossy() == ("Crashed", 1)


def test_runs_whose_next_loss_is_the_last_run_one_after_the_other():
    @on_a_cluster
    def lossy():
        for number in range(8):
            cluster().losses[f"meet-{meet.short_hash}-{number}"] = [{}, {}]
        futures = [meet() for _ in range(8)]
        return gather(futures), [future.task_run.run_count for future in futures]

    others, counts = lossy()
    assert counts == [3] * 8
    assert others == [0] * 8


at_once: set[int] = set()


@task
def meet() -> int:
    """Say how many others were seen here."""
    at_once.add(threading.get_ident())
    seen = len(at_once)
    threading.Event().wait(0.02)
    seen = max(seen, len(at_once))
    at_once.discard(threading.get_ident())
    return seen - 1


def test_a_value_that_is_lost_is_made_again_when_somebody_asks_for_it():
    @on_a_cluster
    def lossy():
        future = big()
        future.wait()
        cluster().lose(future)
        assert future.result() == "x" * 1000
        return future.task_run.run_count, future.state.name

    assert lossy() == (2, "Completed")


def test_a_value_that_is_lost_is_made_again_for_a_new_dependent():
    @on_a_cluster
    def lossy():
        first = big()
        second = small(first)
        second.wait()
        cluster().lose(first)
        cluster().lose(second)
        assert size(second).result() == 1000
        return [future.task_run.run_count for future in (first, second)]

    assert lossy() == [2, 2]


def test_a_value_that_nobody_asks_for_is_not_made_again():
    @on_a_cluster
    def lossy():
        future = big()
        future.wait()
        cluster().lose(future)
        return future.task_run.run_count

    assert lossy() == 1


def test_a_value_that_is_lost_too_often_is_lost():
    @on_a_cluster
    def lossy():
        future = big()
        for _ in range(2):
            future.wait()
            cluster().lose(future)
            assert future.result() == "x" * 1000
        cluster().lose(future)
        with pytest.raises(WorkerLost) as raised:
            future.result()
        return str(raised.value)

    text = lossy()
    assert text.startswith("The value of task run 'big-")
    assert "the run was lost 3 times: it is not run again (max_worker_losses is 2)." in text


def test_a_large_argument_is_brought_to_the_cluster_once():
    data = list(range(500_000))

    @on_a_cluster
    def many():
        assert gather([size(data) for _ in range(5)]) == [500_000] * 5
        assert size.map([data, data[:-1]]).result() == [500_000, 499_999]
        assert small({"data": data}).wait().is_completed()
        return len(cluster().puts)

    assert many() == 3


def test_a_large_argument_that_was_changed_is_another_argument():
    data = bytearray(2_000_000)

    @on_a_cluster
    def changing():
        first = small(data)
        data[0] = 1
        second = small(data)
        return first.result()[0], second.result()[0], len(cluster().puts)

    assert changing() == (0, 1, 2)


def test_a_cancelled_run_is_withdrawn():
    @on_a_cluster
    def cancelling():
        cluster().hold["small"] = threading.Event()
        future = small(1)
        dependent = small(future)
        assert future.cancel()
        return future.state.name, dependent.wait().name, len(cluster().withdrawn)

    assert cancelling() == ("Cancelled", "NotReady", 1)


def test_the_executor_may_ask_for_more_retries():
    @on_a_cluster
    def failing():
        cluster().more_retries = 2
        future = bad()
        future.wait()
        return future.task_run.run_count

    assert failing() == 3


def test_a_flow_gives_values_and_not_handles():
    @on_a_cluster
    def nested():
        return {"one": big("a"), "many": [big("b")]}

    assert nested() == {"one": "a" * 1000, "many": ["b" * 1000]}


@task
def completed() -> Any:
    return Completed(data="z" * 1000)


@task
def failed() -> Any:
    return Failed("by hand")


def test_a_task_that_returns_a_state_gives_its_dependents_the_value():
    @on_a_cluster
    def states():
        one, other = completed(), failed()
        assert size(one).result() == 1000
        dependent = size(other)
        return [future.wait().name for future in (one, other, dependent)]

    assert states() == ["Completed", "Failed", "NotReady"]


@task(log_prints=True)
def long_result() -> str:
    print("a line")
    return "w" * 1000


def test_records_come_with_the_outcome(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "riverrun")

    @on_a_cluster
    def logging_flow():
        long_result().wait()

    logging_flow()
    assert "a line" in caplog.text


def test_values_are_fetched_beside_the_event_loop():
    @on_a_cluster
    async def asking():
        here = threading.get_ident()
        original = cluster().fetch
        threads: list[int] = []
        cluster().fetch = lambda handle: (threads.append(threading.get_ident()), original(handle))[1]
        assert await big() == "x" * 1000
        assert [len(value) for value in await gather([big(), big()])] == [1000, 1000]
        assert [len(value) for value in await big.map(["a", "b"])] == [1000, 1000]
        async for future in as_completed([big()]):
            assert future.done()
        assert here not in threads
        return big()

    assert len(anyio.run(asking)) == 1000


def test_an_interrupted_flow_ends_what_is_on_the_cluster():
    @on_a_cluster
    def interrupted():
        cluster().hold["small"] = threading.Event()
        futures.append(small(1))
        raise KeyboardInterrupt

    futures: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert futures[0].state.name == "Cancelled"
