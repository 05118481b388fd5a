"""Executors that keep values on their workers: handles, calls that are sent early, losses, values that are lost."""

from __future__ import annotations

import pickle
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import pytest
from riverrun import CrashedRun, MissingContextError, WorkerLost, allow_failure, as_completed, flow, gather, quote, task
from riverrun.abc import Concurrency, RemoteTaskExecutor, TaskRunner, current_executor
from riverrun.states import Completed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

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

    def __init__(self, threads: int = 16, *, exact: bool = False) -> None:
        self.cancel_is_exact = exact
        self.sent: list[Any] = []
        self.fetched = 0
        self.puts: list[Any] = []
        self.withdrawn: list[Any] = []
        self.losses: dict[str, list[dict[str, Any]]] = {}
        """What to tell instead of running the next call of a task, or of one run, by its name."""
        self.more_retries = 0
        self.hold: dict[str, threading.Event] = {}
        """Calls of these tasks wait before they begin."""
        self.by_hand: dict[str, Handle | None] = {}
        """The first call of each of these tasks, which is not run: the test says what becomes of it."""
        self.forgetful: set[str] = set()
        """The values of these tasks are lost at once."""
        self.executed: Counter[str] = Counter()
        """How often each run has been executed, by its name."""
        self._running: set[str] = set()
        self._pool = ThreadPoolExecutor(threads)

    def send(self, call: Any, report: Any, /) -> Handle:
        handle = Handle(pickle.loads(pickle.dumps(_travelling(call))), report)  # noqa: S301
        self.sent.append(call.name)
        if self.more_retries:
            report.retries(self.more_retries)
        task_name = call.name.rsplit("-", 2)[0]
        if task_name in self.by_hand and self.by_hand[task_name] is None:
            self.by_hand[task_name] = handle
            return handle
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
        self.execute(handle, [upstream.value for upstream in upstreams])

    def execute(self, handle: Handle, values: list[Any]) -> None:
        """Run a call with the values that it takes, and tell how it ended."""
        name = handle.call.name.rsplit("-", 2)[0]
        handle.report.begun(1.0)
        self.executed[handle.call.name] += 1
        outcome, value = handle.call.run_keeping(values, MOST)
        outcome = pickle.loads(pickle.dumps(outcome))  # noqa: S301
        self._running.discard(handle.call.name)
        handle.value, handle.failed = value, outcome.error is not None or outcome.void
        handle.is_there = name not in self.forgetful
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
    threads: int = 16
    exact: bool = False

    @contextmanager
    def start(self):
        cluster = Cluster(self.threads, exact=self.exact)
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


# -- several things at once


def gone(handle: Handle, *, begun: bool) -> None:
    """Tell that a call is lost with its worker."""
    handle.failed = True
    handle.done.set()
    handle.report.lost(WorkerLost("its worker died"), begun=begun)


def in_another_thread(function: Callable[[], object]) -> None:
    """Call a function, and wait for it."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


def meanwhile(monkeypatch: pytest.MonkeyPatch, point: str, function: Callable[[], object]) -> None:
    """Call a function in another thread when a thread gets to a named point of the engine for the first time."""
    first = threading.Lock()

    def reached(name: str) -> None:
        if name == point and first.acquire(blocking=False):
            in_another_thread(function)

    monkeypatch.setattr("riverrun._steps.reached", reached)


@pytest.mark.parametrize(
    "point", ["a call was lost", "it is tried again", "before it is called back", "before it is packed"]
)
def test_a_run_is_lost_while_its_dependent_is_told_as_lost_and_each_is_executed_as_often_as_counted(
    point: str, monkeypatch: pytest.MonkeyPatch
):
    @on_a_cluster
    def chain():
        calls = cluster().by_hand = {"big": None, "size": None}
        first = big()
        second = size(first)
        meanwhile(monkeypatch, point, lambda: gone(calls["size"], begun=False))
        gone(calls["big"], begun=True)
        assert second.result(timeout=LIMIT) == 1000
        assert second.task_run.run_count == cluster().executed[second.name] == 1
        return first.task_run.run_count, cluster().executed[first.name]

    assert chain() == (2, 1)


def test_a_run_and_its_dependent_that_two_threads_tell_as_lost_at_once_are_each_run_again(switch_often: None):
    @on_a_cluster
    def chain():
        calls = cluster().by_hand = {"big": None, "size": None}
        original, gate, telling = cluster().send, threading.Barrier(2), []

        def tell(handle: Handle, *, begun: bool) -> None:
            gate.wait(LIMIT)
            gone(handle, begun=begun)

        def send(call: Any, report: Any) -> Handle:
            handle = original(call, report)
            if handle is calls["size"]:  # both are told while the second one is still being sent
                for lost, begun in [(calls["big"], True), (handle, False)]:
                    telling.append(threading.Thread(target=tell, args=[lost], kwargs={"begun": begun}))
                    telling[-1].start()
            return handle

        cluster().send = send
        first = big()
        second = size(first)
        assert second.result(timeout=LIMIT) == 1000
        for thread in telling:
            thread.join(LIMIT)
        return first.task_run.run_count, second.task_run.run_count

    assert Counter(chain() for _ in range(200)) == {(2, 1): 200}


@pytest.fixture
def switch_often():
    """Let threads take turns as often as that is possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_runs_that_are_sent_one_after_the_other_go_on_if_one_of_them_cannot_be_sent():
    @on_a_cluster
    def four():
        cluster().max_worker_losses = 1
        upstream = big()
        upstream.wait()
        names = ["first", "taker", "last"]
        cluster().by_hand = dict.fromkeys(names)
        cluster().hold["first"] = threading.Event()
        first, taker, last = [small.with_options(name=name)(*[upstream] * (name == "taker")) for name in names]
        for name in names:  # each may be lost once, so from now on they run alone; `first` does, the others wait
            gone(cluster().by_hand[name], begun=True)
        cluster().losses["big"] = [{}]
        cluster().lose(upstream)  # and cannot be made again
        cluster().hold["first"].set()
        states = [future.wait(LIMIT) for future in (first, taker, last)]
        return [state and state.name for state in states]

    assert four() == ["Completed", "Crashed", "Completed"]


LOOK_AT_VALUES = {
    "a name": {"task_run_name": "{value[0]} and {other}"},
    "a key": {"cache_key_fn": lambda _, parameters: f"{parameters['value'][0]} and {parameters['other']}"},
}


@task
def size_beside(value: Any, other: Any) -> int:
    return len(value) + other


@pytest.mark.timeout(LIMIT * 3)
@pytest.mark.parametrize("what", LOOK_AT_VALUES)
def test_the_only_thread_of_an_executor_brings_news_of_a_run_whose_value_has_to_be_made_again_for(what: str):
    @flow(task_runner=ClusterTaskRunner(threads=1))
    def looking():
        cluster().hold["small"] = threading.Event()
        first = big()
        first.wait()
        other = small(1)
        dependent = size_beside.with_options(**LOOK_AT_VALUES[what])(first, other)
        cluster().lose(first)
        cluster().hold["small"].set()
        return dependent.result(timeout=LIMIT), first.task_run.run_count

    assert looking() == (1001, 2)


def test_a_value_that_is_found_lost_by_two_threads_is_made_again_once_for_both():
    @on_a_cluster
    def asking():
        future = big()
        future.wait()
        original, lost = cluster().fetch, future._value.handle
        others: list[str] = []

        def fetch(handle: Handle) -> str:
            if handle is not lost or not lost.is_there:
                return original(handle)
            lost.is_there = False  # as this thread asks for it; another one finds that, and has it made again
            in_another_thread(lambda: others.append(future.result()))
            raise WorkerLost("gone")

        cluster().fetch = fetch
        assert future.result() == "x" * 1000
        assert others == ["x" * 1000]
        return future.task_run.run_count, cluster().executed[future.name]

    assert asking() == (2, 2)


@pytest.mark.parametrize("begun", [True, False])
def test_a_call_that_was_sent_early_is_sent_again_if_its_upstream_was_lost_and_nothing_is_told_of_it(begun: bool):
    @on_a_cluster
    def chain():
        calls = cluster().by_hand = {"big": None, "size": None}
        cluster().cancel = lambda _: False
        first = big()
        second = size(first)
        gone(calls["big"], begun=begun)
        assert second.result(timeout=LIMIT) == 1000
        return first.task_run.run_count, second.task_run.run_count

    assert chain() == (1 + begun, 1)


def test_a_value_that_is_lost_again_as_soon_as_it_is_made_is_made_as_often_as_the_run_may_be_lost():
    @on_a_cluster
    def forgetting():
        cluster().forgetful.add("big")
        future = big()
        future.wait()
        cluster().losses["big"] = [{"begun": False}]  # which is no loss of the value, but what follows is
        with pytest.raises(
            WorkerLost, match=r"the run was lost 3 times: it is not run again \(max_worker_losses is 2\)"
        ):
            future.result()
        return future.task_run.run_count, cluster().executed[future.name]

    assert forgetting() == (3, 3)


@pytest.mark.parametrize(("exact", "times"), [(True, 1), (False, 2)])
def test_a_call_that_was_called_back_and_has_begun_goes_on_where_news_of_it_is_certain(exact: bool, times: int):
    @flow(task_runner=ClusterTaskRunner(exact=exact))
    def chain():
        calls = cluster().by_hand = {"big": None, "size": None}
        asked, answered, told = threading.Event(), threading.Event(), threading.Event()

        def cancel(_: Handle) -> bool:
            asked.set()
            return False

        cluster().cancel = cancel
        first = big()
        second = size(first)
        first.add_done_callback(lambda _: told.set())
        cluster().hold["big"] = threading.Event()
        gone(calls["big"], begun=True)
        assert asked.wait(LIMIT)
        second._job.home.dispatch.remote.asking.run(answered.set)  # behind the answer
        assert answered.wait(LIMIT)
        cluster().hold["big"].set()
        assert told.wait(LIMIT)  # behind its dependents
        cluster().execute(calls["size"], ["x" * 1000])
        assert second.result(timeout=LIMIT) == 1000
        return cluster().sent.count(second.name)

    assert chain() == times


# -- what is said


def test_a_cancel_that_raises_is_a_warning_and_leaves_the_run_as_it_is(caplog: pytest.LogCaptureFixture):
    @on_a_cluster
    def cancelling():
        def cancel(_: Handle) -> bool:
            raise ConnectionError("no answer")

        cluster().cancel = cancel
        cluster().hold["small"] = threading.Event()
        future = small(1)
        assert not future.cancel()
        cluster().hold["small"].set()
        return future.result(), future.task_run.run_count

    assert cancelling() == (1, 1)
    [record] = [record for record in caplog.records if "could not be cancelled" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"Task run 'small-{small.short_hash}-0' could not be cancelled: what runs it raised "
        f"ConnectionError('no answer')."
    )
    assert record.task_run_name == f"small-{small.short_hash}-0"


def lost_value(cluster: Cluster) -> Any:
    """Give a future whose value is lost."""
    future = big()
    future.wait()
    cluster.lose(future)
    return future


def test_a_value_that_is_made_again_is_a_warning(caplog: pytest.LogCaptureFixture):
    @on_a_cluster
    def asking():
        return len(lost_value(cluster()).result())

    assert asking() == 1000
    [record] = [record for record in caplog.records if "is gone" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"The value of task run 'big-{big.short_hash}-0' is gone with the worker that had it: it is run again "
        f"(loss 1 of 2)."
    )


def test_a_value_whose_call_is_refused_says_that_it_cannot_be_made_again_and_why():
    @on_a_cluster
    def asking():
        future = lost_value(cluster())

        def send(_call: Any, _report: Any) -> Handle:
            raise ValueError("no such queue")

        cluster().send = send
        with pytest.raises(CrashedRun) as raised:
            future.result()
        assert isinstance(raised.value.__cause__, ValueError)
        return str(raised.value)

    assert asking() == (
        f"The value of task run 'big-{big.short_hash}-0' cannot be made again: ValueError: no such queue"
    )


def test_a_value_whose_call_finds_no_cluster_is_lost_with_what_the_executor_says():
    @on_a_cluster
    def asking():
        future = lost_value(cluster())

        def send(_call: Any, _report: Any) -> Handle:
            raise CrashedRun("the cluster is gone")

        cluster().send = send
        with pytest.raises(CrashedRun, match=r"^the cluster is gone$"):
            future.result()
        return future.task_run.run_count

    assert asking() == 1


interrupted: list[str] = []


@task
def interrupted_the_second_time() -> str:
    interrupted.append("attempt")
    if len(interrupted) > 1:
        raise KeyboardInterrupt
    return "x" * 1000


def test_a_value_that_is_interrupted_while_it_is_made_again_is_lost_and_says_so():
    @on_a_cluster
    def asking():
        interrupted.clear()
        future = interrupted_the_second_time()
        future.wait()
        cluster().lose(future)
        with pytest.raises(WorkerLost) as raised:
            future.result()
        return str(raised.value)

    assert asking() == "It was interrupted: KeyboardInterrupt()."
