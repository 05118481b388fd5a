"""The conformance suite, tested: ten honest lines pass it, and each kind of broken runner fails it by name."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

import pytest
from riverrun.abc import Concurrency, TaskRunner
from riverrun.testing import TaskRunnerConformance, within
from riverrun.testing._traces import PROC, Traces, expect_nothing_left_since, of_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ProcessPoolTaskRunner(TaskRunner):
    concurrency = Concurrency.PARALLEL
    processes: int = 2

    def start(self):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["riverrun.testing"])  # its workers start in a moment: nothing to import
        return ProcessPoolExecutor(self.processes, mp_context=context)


needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="this system has no forkserver"
)


class PlainProcessPool(TaskRunnerConformance):
    # One worker that dies breaks the whole of this pool, and it is not replaced: it declares nothing.

    @pytest.fixture
    def task_runner(self):
        return ProcessPoolTaskRunner()


@needs_forkserver
@pytest.mark.stress  # by default, all of the suite is put to such pools once, in `test_executor_task_runner`
class TestAllOfAPlainProcessPool(PlainProcessPool):
    pass


@needs_forkserver
class TestAPlainProcessPool(PlainProcessPool):
    pass


WITHOUT_EXECUTOR_TASK_RUNNER = {
    "test_a_run_that_is_lost_with_its_worker_is_crashed",
    "test_another_flow_run_has_workers_again",
    "test_async_tasks_overlap",
    "test_each_task_runs_exactly_once",
    "test_every_line_of_many_tasks_comes_out_once_and_under_its_own_name",
    "test_leaving_the_start_context_by_an_exception_lets_it_through",
    "test_no_run_hangs_when_a_worker_dies",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_the_process_ends_and_leaves_no_other_behind_after",
    "test_the_runner_has_no_more_runs_of_a_map_than_max_in_flight_and_these_overlap",
    "test_the_runner_starts_once_and_stops_once_for_a_flow_run_that",
    "test_waiting_for_a_worker_does_not_count_towards_the_time_limit",
}
"""What a pool may do in another way if it is all that `start()` gives."""
TESTS_OF_THE_SUITE = {name for name in dir(TaskRunnerConformance) if name.startswith("test_")}
# A name that the suite does not have any more must not go unnoticed.
assert TESTS_OF_THE_SUITE >= WITHOUT_EXECUTOR_TASK_RUNNER, WITHOUT_EXECUTOR_TASK_RUNNER - TESTS_OF_THE_SUITE
for test in TESTS_OF_THE_SUITE - WITHOUT_EXECUTOR_TASK_RUNNER:
    setattr(TestAPlainProcessPool, test, None)


HEAD = """
    import threading
    import pytest
    from concurrent.futures import Future, ThreadPoolExecutor
    from contextlib import contextmanager
    from riverrun.abc import Concurrency, TaskRunner
    from riverrun.testing import TaskRunnerConformance

    class HonestExecutor:
        count = 0
        def submit(self, call):
            self.count += 1
            future = Future()
            self.run(call, future)
            return future
        def run(self, call, future):
            future.set_result(call())

    class HonestTaskRunner(TaskRunner):
        concurrency = Concurrency.SEQUENTIAL
        executor = HonestExecutor
        @contextmanager
        def start(self):
            yield self.executor()

    class HonestPoolTaskRunner(TaskRunner):
        concurrency = Concurrency.CONCURRENT
        class executor(ThreadPoolExecutor):
            pass
        def start(self):
            return self.executor(4)

    class HonestCluster:
        max_worker_losses = 0
        def __init__(self):
            self.pool = ThreadPoolExecutor(16)
        def send(self, call, report):
            handle = Future()
            self.pool.submit(self.run, call, report, handle)
            return handle
        def run(self, call, report, handle):
            try:
                values = [self.value(upstream) for upstream in call.upstreams]
            except Exception as error:
                handle.set_exception(error)
                return
            if handle.set_running_or_notify_cancel():
                outcome, value = call.run_keeping(values, 10**6)
                if outcome.error is None and not outcome.void:
                    handle.set_result(value)
                else:
                    handle.set_exception(LookupError("it has no value"))
                report.ended(outcome, handle)
        def value(self, upstream):
            return upstream.result()
        def fetch(self, handle):
            return handle.result()
        def holds(self, handle):
            return True
        def put(self, value):
            handle = Future()
            handle.set_result(value)
            return handle
        def cancel(self, handle):
            return handle.cancel()

    class HonestClusterTaskRunner(TaskRunner):
        concurrency = Concurrency.PARALLEL
        executor = HonestCluster
        @contextmanager
        def start(self):
            executor = self.executor()
            with executor.pool:
                yield executor

    class Declared:
        pass
"""
POOLS = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    class ProcessPoolTaskRunner(TaskRunner):
        concurrency = Concurrency.PARALLEL
        def start(self):
            return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))

    class OneProcessForEachCall(ThreadPoolExecutor):
        def submit(self, call):
            return super().submit(self.run, call)
        def run(self, call):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as process:
                return process.submit(call).result()

    class OneProcessForEachTaskRunner(TaskRunner):
        concurrency = Concurrency.PARALLEL
        def start(self):
            return OneProcessForEachCall(2)
"""
TAIL = """
    class TestBroken(Declared, TaskRunnerConformance):
        @pytest.fixture
        def task_runner(self):
            return BrokenTaskRunner()
"""


class Kind(NamedTuple):
    """A kind of broken runner, the test that it fails, and what that one says."""

    runner: str
    test: str
    text: str
    hangs: bool = False
    waits: bool = False
    honest: str = "honest"
    """Which of the honest runners it is made from."""

    @property
    def time_limit(self):
        # Short where the test waits for what never comes: no hurry makes that wrong. Otherwise a limit against hangs.
        return 2 if self.hangs else 8 if self.waits else 60


ONE_THREAD = """
    class BrokenTaskRunner(HonestPoolTaskRunner):
        class executor(ThreadPoolExecutor):
            def __init__(self, threads):
                super().__init__(threads)
                self.thread = threading.get_ident()
            def submit(self, call):
                if threading.get_ident() != self.thread:
                    raise OSError("from another thread")
                return super().submit(call)
"""
AN_ENGINE = """
    import contextvars
    class BrokenTaskRunner(HonestPoolTaskRunner):
        pass
    class Declared:
        @pytest.fixture(autouse=True)
        def break_the_engine(self, monkeypatch):
            monkeypatch.setattr("{name}", {value})
"""
BROKEN = {
    "drops_a_task": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    if self.count != 7:
                        super().run(call, future)
        """,
        "test_each_task_runs_exactly_once",
        "It hangs: it had not ended after 2 seconds",
        hangs=True,
    ),
    "says_that_a_task_it_dropped_is_done": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    if self.count == 7:
                        call = self.earlier
                        future.set_result(self.earlier)
                    else:
                        self.earlier = call()
                        future.set_result(self.earlier)
        """,
        "test_each_task_runs_exactly_once",
        "none is dropped, none runs twice",
    ),
    "runs_a_task_twice": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    if self.count == 7:
                        call()
                    super().run(call, future)
        """,
        "test_each_task_runs_exactly_once",
        "none is dropped, none runs twice",
    ),
    "loses_exceptions": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    outcome = call()
                    outcome.error = None
                    future.set_result(outcome)
        """,
        "test_a_task_that_raises_fails_with_that_exception",
        "DID NOT RAISE",
    ),
    "gives_no_outcome_where_a_task_raised": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    outcome = call()
                    future.set_result(outcome if outcome.error is None else None)
        """,
        "test_a_task_that_raises_fails_with_that_exception",
        "Crashed",
    ),
    "leaves_a_thread": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()
                yield HonestExecutor()
        """,
        "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that[completes]",
        "what a flow run starts ends with it",
        waits=True,
    ),
    "leaves_a_process": Kind(
        """
        import subprocess, sys
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                self.children.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
                yield HonestExecutor()
            children = []
        @pytest.fixture(autouse=True)
        def kill():
            yield
            for child in BrokenTaskRunner.children:
                child.communicate()
        """,
        "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that[fails]",
        "what a flow run starts ends with it",
        waits=True,
    ),
    "leaves_a_process_after_a_signal": Kind(
        """
        import subprocess, sys
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
                yield HonestExecutor()
        """,
        "test_the_process_ends_and_leaves_no_other_behind_after[sigterm-sync]",
        "no child process outlives the process of the flow",
    ),
    "leaves_a_socket": Kind(
        """
        import socket
        class BrokenTaskRunner(HonestTaskRunner):
            sockets = []
            @contextmanager
            def start(self):
                self.sockets.append(socket.create_server(("127.0.0.1", 0)))
                yield HonestExecutor()
        @pytest.fixture(autouse=True)
        def close():
            yield
            for listener in BrokenTaskRunner.sockets:
                listener.close()
        """,
        "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that[completes]",
        "what a flow run starts ends with it",
        waits=True,
    ),
    "never_stops": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                yield HonestExecutor()
                threading.Event().wait()
        """,
        "test_the_runner_starts_once_and_stops_once_for_a_flow_run_that[completes]",
        "It hangs: it had not ended after 2 seconds",
        hangs=True,
    ),
    "does_not_stop_after_an_interrupt": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                try:
                    yield HonestExecutor()
                except BaseException:
                    threading.Event().wait()
        """,
        "test_the_runner_starts_once_and_stops_once_for_a_flow_run_that[is_interrupted]",
        "It hangs: it had not ended after 2 seconds",
        hangs=True,
    ),
    "swallows_what_the_flow_raises": Kind(
        """
        from contextlib import suppress
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                with suppress(Exception):
                    yield HonestExecutor()
        """,
        "test_leaving_the_start_context_by_an_exception_lets_it_through",
        "DID NOT RAISE",
    ),
    "reorders": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                earlier = None
                def run(self, call, future):
                    if self.earlier is None:
                        self.earlier = call, future
                        return
                    super().run(call, future)
                    super().run(*self.earlier)
                    self.earlier = None
        """,
        "test_sequential_tasks_run_in_the_order_of_their_calls",
        "sequential: in the order of the calls",
    ),
    "puts_off_what_it_is_given": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            def start(self):
                return ThreadPoolExecutor(1)
        """,
        "test_a_sequential_task_runs_in_the_thread_of_its_flow",
        "sequential: in the thread of the flow",
    ),
    "raises_in_submit_now_and_then": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    if self.count == 7:
                        raise OSError("try again")
                    super().run(call, future)
        """,
        "test_every_call_that_is_submitted_is_taken",
        "submit() takes every call of a flow run",
    ),
    "says_that_tasks_overlap_and_runs_one_at_a_time": Kind(
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            def start(self):
                return ThreadPoolExecutor(1)
        """,
        "test_sync_tasks_overlap",
        "2 sync tasks run at the same time",
        waits=True,
    ),
    "says_that_it_has_processes_and_has_none": Kind(
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.PARALLEL
            def start(self):
                return ThreadPoolExecutor(2)
        """,
        "test_tasks_run_in_the_processes_that_the_runner_declares",
        "Concurrency.PARALLEL: tasks run in other processes",
    ),
    "says_that_a_call_is_lost_which_still_runs": Kind(
        """
        import riverrun._conformance_jobs as jobs
        waiting, wait_until = threading.Semaphore(0), jobs.wait_until
        def wait_until_and_say_so(*args):
            waiting.release()
            return wait_until(*args)
        jobs.wait_until = wait_until_and_say_so
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            class executor:
                def __init__(self):
                    self.pool = ThreadPoolExecutor(8)
                def submit(self, call):
                    if not call.name.startswith("hold"):
                        for _ in range(3):  # the flow, and two tasks, are at a point where they wait
                            waiting.acquire()
                        return self.pool.submit(call)
                    self.pool.submit(call)
                    future = Future()
                    future.set_exception(OSError("no sign of life"))
                    return future
            @contextmanager
            def start(self):
                executor = self.executor()
                with executor.pool:
                    yield executor
        """,
        "test_the_runner_has_no_more_runs_of_a_map_than_max_in_flight_and_these_overlap[sync]",
        "with max_in_flight=1, no more than these run",
    ),
    "says_that_tasks_overlap_and_runs_one_of_a_map_at_a_time": Kind(
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            def start(self):
                return ThreadPoolExecutor(1)
        class Declared:
            workers = 3
        """,
        "test_the_runner_has_no_more_runs_of_a_map_than_max_in_flight_and_these_overlap[async]",
        "with max_in_flight=2, so many runs start at once",
        waits=True,
    ),
    "waits_for_a_second_call_before_it_runs_one": Kind(
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            class executor(HonestExecutor):
                earlier = None
                def run(self, call, future):
                    if self.earlier is None:
                        self.earlier = call, future
                        return
                    earlier, self.earlier = self.earlier, None
                    super().run(*earlier)
                    super().run(call, future)
            @contextmanager
            def start(self):
                yield self.executor()
        """,
        "test_a_run_of_a_map_with_max_in_flight_that_fails_lets_the_next_one_through[sync]",
        "It hangs: it had not ended after 2 seconds",
        hangs=True,
    ),
    "keeps_its_executor": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                object.__setattr__(self, "_executor", HonestExecutor())
                yield self._executor
        """,
        "test_a_flow_run_leaves_the_runner_as_it_was",
        "what a runner starts belongs to the flow run",
    ),
    "has_one_executor_for_all_flow_runs": Kind(
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            pools = []
            @contextmanager
            def start(self):
                if not self.pools:
                    self.pools.append(ThreadPoolExecutor(2))
                yield self.pools[0]
                self.pools[0].shutdown()
        """,
        "test_a_flow_run_that_ends_stops_no_other_with_the_same_runner_object",
        "cannot schedule new futures after shutdown",
    ),
    "leaves_what_a_failed_start_has_begun": Kind(
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()
                raise OSError("no licence")
        class Declared:
            @pytest.fixture
            def unstartable_task_runner(self):
                return BrokenTaskRunner()
        """,
        "test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body",
        "what a failed start has begun, it stops",
        waits=True,
    ),
    "cannot_be_pickled": Kind(
        """
        from typing import Any
        class BrokenTaskRunner(HonestTaskRunner):
            work: Any = None
            def __reduce__(self):
                raise TypeError("not this one")
        """,
        "test_the_runner_can_be_pickled",
        "not this one",
    ),
    "starts_a_call_whose_upstream_has_failed": Kind(
        """
        class BrokenTaskRunner(HonestClusterTaskRunner):
            class executor(HonestCluster):
                def value(self, upstream):
                    return upstream.exception() or upstream.result()
        """,
        "test_a_task_whose_upstream_fails_while_it_is_being_sent_never_runs[small]",
        "a task whose upstream failed never runs; this one got bytes LookupError",
        honest="cluster",
    ),
    "starts_a_call_with_a_large_argument_whose_upstream_has_failed": Kind(
        """
        class BrokenTaskRunner(HonestClusterTaskRunner):
            class executor(HonestCluster):
                def value(self, upstream):
                    return upstream.exception() or upstream.result()
        """,
        "test_a_task_whose_upstream_fails_while_it_is_being_sent_never_runs[large]",
        "a task whose upstream failed never runs; this one got SlowToPickle LookupError",  # nothing is pickled here
        honest="cluster",
    ),
    "says_that_what_it_has_has_begun": Kind(
        """
        class BrokenTaskRunner(HonestClusterTaskRunner):
            class executor(HonestCluster):
                def send(self, call, report):
                    report.begun(1.0)
                    return super().send(call, report)
        """,
        "test_no_attempt_is_counted_of_a_run_that_was_cancelled_before_it_began",
        "an attempt is counted when it has begun",
        honest="cluster",
    ),
    "says_that_it_does_not_stop_a_call_and_stops_it": Kind(
        """
        class Stopped(Future):
            def cancel(self):
                super().cancel()
                return False
        class BrokenTaskRunner(HonestPoolTaskRunner):
            class executor(ThreadPoolExecutor):
                def submit(self, call):
                    future = Stopped()
                    super().submit(lambda: future.set_result(call()))
                    return future
        """,
        "test_a_cancel_that_is_refused_changes_nothing[sync]",
        "a cancel() that says False takes a run none of its retries",
        honest="pool",
    ),
    "takes_calls_of_one_thread_only": Kind(
        ONE_THREAD,
        "test_callbacks_and_hooks_may_call_tasks_and_wait_for_them",
        "each is called once, may call tasks and wait for them",
        honest="pool",
    ),
    "takes_calls_of_the_thread_of_the_loop_only": Kind(
        ONE_THREAD,
        "test_callbacks_and_hooks_of_an_async_flow_may_call_tasks_and_wait_for_them[asyncio]",
        "each is called once, may call tasks and wait for them",
        honest="pool",
    ),
    "takes_no_calls_of_the_thread_of_callbacks": Kind(
        ONE_THREAD,
        "test_a_callback_may_wait_for_the_task_of_another_callback",
        "OSError: from another thread",
        honest="pool",
    ),
    # What follows is owed by the engine, and holds on every runner: here the engine is broken, and the runner is not.
    "has_an_engine_that_takes_an_empty_map_for_no_list": Kind(
        AN_ENGINE.format(name="riverrun._inputs.UpstreamList", value="type('Nothing', (), {})"),
        "test_a_map_is_a_list_for_a_task_that_takes_it[0]",
        "a task that takes a map gets a list of its values",
        honest="pool",
    ),
    "has_an_engine_that_gives_an_empty_map_as_it_is": Kind(
        AN_ENGINE.format(name="riverrun._conclusions._resolved", value="lambda value: value"),
        "test_a_map_is_a_list_for_who_calls_a_flow_that_returns_it[0]",
        "a flow that returns a map gives a list of its values",
        honest="pool",
    ),
    "has_an_engine_that_calls_hooks_outside_of_the_flow": Kind(
        AN_ENGINE.format(name="riverrun._steps._user_context", value="lambda run: contextvars.Context()"),
        "test_what_is_called_in_a_callback_or_hook_is_a_task_run_of_the_flow[hook]",
        "they belong to the flow",
        honest="pool",
    ),
    "has_an_engine_that_does_not_log_what_a_hook_raises": Kind(
        AN_ENGINE.format(name="riverrun._logging.root_logger.error", value="lambda *args, **kwargs: None"),
        "test_what_a_callback_or_hook_raises_is_logged_and_changes_nothing",
        "... and is logged, once",
        honest="pool",
    ),
}


class Verdict(NamedTuple):
    """What became of a test of the suite."""

    outcome: str
    text: str


@contextmanager
def suites_run(folder: Path, suites: dict[str, str], *tests: str) -> Iterator[Run]:
    """Run tests of the suite with runners, in a process of its own: what is left behind ends with it."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in suites.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml", *tests]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        yield Run(folder, process)
    finally:
        process.kill()
        process.wait()


class Run(NamedTuple):
    """A pytest that runs, or has run."""

    folder: Path
    process: subprocess.Popen[bytes]

    def output(self):
        self.process.wait(HANGS)
        return (self.folder / "output").read_text("utf-8", "replace")

    def verdicts(self):
        """Give what became of each test, by its file and its name."""
        output = self.output()
        assert (self.folder / "report.xml").exists(), output
        verdicts = {}
        for case in ET.parse(self.folder / "report.xml").iter("testcase"):  # noqa: S314 - from our own pytest
            said = [part for part in case if part.tag in {"failure", "error", "skipped"}]
            outcome = said[0].tag if said else "passed"
            text = "".join(f"{part.get('message')}\n{part.text}" for part in said)
            file = case.get("classname").partition(".")[0].removeprefix("test_")
            verdicts[file, case.get("name")] = Verdict(outcome, text)
        return verdicts


HANGS = 300
"""A limit against hangs, in seconds."""


def suite_of(runner: str, tail: str = TAIL, time_limit: float = 60) -> str:
    return dedent(HEAD) + dedent(runner) + dedent(tail) + f"    time_limit = {time_limit}\n"


HONEST = {
    "honest": suite_of("class BrokenTaskRunner(HonestTaskRunner): pass"),
    "pool": suite_of("class BrokenTaskRunner(HonestPoolTaskRunner): pass"),
    "cluster": suite_of("class BrokenTaskRunner(HonestClusterTaskRunner): pass"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Run each kind, those that hang (and leave their threads) in a process of their own; and those that lose calls."""
    others = HONEST | {"without_the_fixture": suite_of("", WITHOUT_THE_FIXTURE)}
    tests = [f"test_{name}.py::TestBroken::{test}" for name, test in OF_THE_HONEST]
    tests.append("test_without_the_fixture.py::TestBroken::test_a_thousand_tasks_complete")
    with ExitStack() as stack:
        runs = {}
        for name, hangs in [("kinds", False), ("kinds that hang", True)]:
            kinds = {name: kind for name, kind in BROKEN.items() if kind.hangs is hangs}
            suites = {name: suite_of(kind.runner, time_limit=kind.time_limit) for name, kind in kinds.items()}
            chosen = [f"test_{name}.py::TestBroken::{kind.test}" for name, kind in kinds.items()]
            if not hangs:
                suites, chosen = suites | others, chosen + tests
            runs[name] = stack.enter_context(suites_run(tmp_path_factory.mktemp("kinds"), suites, *chosen))
        suites = {name: dedent(HEAD) + dedent(LOSING.format(name=name, every=every)) for name, every in LOSERS.items()}
        runs["losers"] = stack.enter_context(suites_run(tmp_path_factory.mktemp("losers"), suites))
        yield runs


@pytest.fixture(scope="module")
def verdicts(runs: dict[str, Run]) -> dict[tuple[str, str], Verdict]:
    return runs["kinds"].verdicts() | runs["kinds that hang"].verdicts()


WITHOUT_THE_FIXTURE = """
    class TestBroken(TaskRunnerConformance):
"""
OF_THE_HONEST = sorted({(kind.honest, kind.test) for kind in BROKEN.values()})


@pytest.mark.timeout(2 * HANGS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_runner_fails_the_suite_by_name__one_that(kind: str, verdicts: dict[tuple[str, str], Verdict]):
    verdict = verdicts[kind, BROKEN[kind].test]
    assert verdict.outcome == "failure", verdict
    assert BROKEN[kind].text in verdict.text, verdict.text


@pytest.mark.timeout(2 * HANGS)
@pytest.mark.parametrize(("name", "test"), OF_THE_HONEST)
def test_the_honest_runner_that_the_broken_ones_are_made_from_passes(
    name: str, test: str, verdicts: dict[tuple[str, str], Verdict]
):
    verdict = verdicts[name, test]
    assert verdict.outcome == "passed" or "no obligation of this runner" in verdict.text, verdict.text


LOSING = """
    class BrokenTaskRunner(HonestTaskRunner):
        class executor(HonestExecutor):
            def run(self, call, future):
                if self.count % {every}:
                    super().run(call, future)
    class Test{name}(TaskRunnerConformance):
        time_limit = 8
        @pytest.fixture
        def task_runner(self):
            return BrokenTaskRunner()
"""
LOSERS = {"DropsEach": 1, "DropsEverySeventh": 7, "DropsOneInFifty": 50}


@pytest.mark.timeout(2 * HANGS)
@pytest.mark.parametrize("name", LOSERS)
def test_after_three_checks_that_ran_into_their_limit_the_rest_is_left_out(name: str, runs: dict[str, Run]):
    given_up = runs["losers"]
    verdicts = {test: verdict for (file, test), verdict in given_up.verdicts().items() if file == name}
    failed = {test: verdict.text for test, verdict in verdicts.items() if verdict.outcome == "failure"}
    left_out = [test for test, verdict in verdicts.items() if "left out: 3 checks of" in verdict.text]
    assert len(failed) == 3, failed
    assert [text.partition("had not ended after ")[2].partition(".")[0] for text in failed.values()] == [
        "8 seconds",
        "2 seconds",
        "2 seconds",
    ]
    # What comes after the third one is left out, to the last: nothing runs, and nothing else is called left out.
    assert left_out
    assert list(verdicts)[-len(left_out) :] == left_out
    assert list(verdicts)[-len(left_out) - 1] == list(failed)[-1]
    first = next(iter(failed)).partition("[")[0]
    assert f"Look at the first: {first}, " in verdicts[left_out[0]].text
    suite = f"test_{name}.py::Test{name}"
    lines = given_up.output().splitlines()
    at = lines.index(f"{suite}: this runner loses calls; {len(left_out)} checks left out.")
    assert lines[at + 1 : at + 5] == [
        "These ran into their time limit:",
        *(f"  {suite}::{test}" for test in failed),
    ]


def test_what_a_report_says_of_it_gets_through_to_the_main_process_of_pytest_xdist(request: pytest.FixtureRequest):
    hook, said = request.config.hook, ["hung", "test_it.py::TestIt"]
    report = pytest.TestReport("test_it.py::TestIt::test", ("", 1, ""), {}, "failed", None, "call", riverrun_limit=said)
    sent = json.dumps(hook.pytest_report_to_serializable(config=request.config, report=report))
    assert hook.pytest_report_from_serializable(config=request.config, data=json.loads(sent)).riverrun_limit == said


LOSSES = {
    "survives_lost_workers": "test_runs_on_other_workers_survive_a_worker_that_dies",
    "replaces_lost_workers": "test_a_flow_run_whose_worker_died_has_workers_again",
}
"""What a runner in other processes may declare, and the test that looks at it."""
DECLARED = """
    class Declaring({runner}):
        {capability} = True
    class TestBroken(TaskRunnerConformance):
        @pytest.fixture
        def task_runner(self):
            return Declaring()
"""
DECLARATIONS = {
    "workers_die_alone": DECLARED.replace("{runner}", "OneProcessForEachTaskRunner"),
    "all_workers_die": DECLARED.replace("{runner}", "ProcessPoolTaskRunner"),
    "taken_back": DECLARED.replace("{runner}", "ProcessPoolTaskRunner") + "        {capability} = False\n",
}


@pytest.fixture(scope="module")
def declarations(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Verdict]:
    """Run what looks at declarations on runners that are right to declare it, wrong, or told not to."""
    suites = {
        f"{name}_{capability}": suite_of(POOLS, tail.format(capability=capability))
        for name, tail in DECLARATIONS.items()
        for capability in LOSSES
    }
    tests = [
        f"test_{name}_{capability}.py::TestBroken::{LOSSES[capability]}"
        for name in DECLARATIONS
        for capability in LOSSES
    ]
    with suites_run(tmp_path_factory.mktemp("declarations"), suites, *tests) as run:
        return run.verdicts()


@needs_forkserver
@pytest.mark.timeout(2 * HANGS)
@pytest.mark.parametrize("capability", LOSSES)
def test_a_runner_whose_workers_die_alone_passes_the_test_that_it_declares(declarations, capability: str):
    verdict = declarations[f"workers_die_alone_{capability}", LOSSES[capability]]
    assert verdict.outcome == "passed", verdict.text


@needs_forkserver
@pytest.mark.timeout(2 * HANGS)
@pytest.mark.parametrize("capability", LOSSES)
def test_a_runner_that_declares_it_and_loses_them_all_fails_it(declarations, capability: str):
    verdict = declarations[f"all_workers_die_{capability}", LOSSES[capability]]
    assert verdict.outcome == "failure", verdict
    assert "BrokenProcessPool" in verdict.text


@needs_forkserver
@pytest.mark.timeout(2 * HANGS)
@pytest.mark.parametrize("capability", LOSSES)
def test_a_test_class_may_take_back_what_the_runner_declares(declarations, capability: str):
    verdict = declarations[f"taken_back_{capability}", LOSSES[capability]]
    assert verdict.outcome == "skipped", verdict
    assert f"it does not declare `{capability}`" in verdict.text


@pytest.mark.timeout(2 * HANGS)
def test_ctrl_c_is_tried_also_where_it_is_ignored_as_in_the_background_of_a_shell_script(tmp_path: Path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which processes that are started inherit
    try:
        test = "test_the_process_ends_and_leaves_no_other_behind_after[ctrl_c-sync]"
        with suites_run(tmp_path, {"honest": HONEST["honest"]}, f"test_honest.py::TestBroken::{test}") as run:
            verdict = run.verdicts()["honest", test]
    finally:
        signal.signal(signal.SIGINT, before)
    assert verdict.outcome == "passed", verdict.text


@pytest.mark.skipif(not (PROC / "self" / "stat").exists(), reason="this system has no /proc")
def test_a_process_that_has_ended_is_not_left_though_nobody_waited_for_it():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    assert [words.partition(" (")[0] for words in of_group(process.pid)] == [f"process {process.pid}"]
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    left = of_group(process.pid)
    process.wait()
    assert not left


@pytest.mark.timeout(2 * HANGS)
def test_a_class_without_the_fixture_is_told_to_have_one(verdicts: dict[tuple[str, str], Verdict]):
    verdict = verdicts["without_the_fixture", "test_a_thousand_tasks_complete"]
    assert verdict.outcome == "error", verdict
    text = "TestBroken needs a fixture `task_runner` that returns the task runner to be tested."
    assert text in verdict.text, verdict.text


def test_without_pytest_the_import_says_what_to_install():
    script = "import sys; sys.modules['pytest'] = None; import riverrun.testing"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: riverrun.testing, the conformance suite for task runners, needs pytest: pip install pytest"
    )


def test_within_gives_the_value_and_lets_exceptions_through():
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError, match="lost"):
        within(5, lambda: {}["lost"])


def test_within_fails_and_says_where_the_function_was(request: pytest.FixtureRequest):
    event = threading.Event()
    request.addfinalizer(event.set)

    def stuck_here() -> None:
        event.wait()

    with pytest.raises(AssertionError, match=r"(?s)It hangs: it had not ended after 0\.1 seconds.*in stuck_here"):
        within(0.1, stuck_here)


def test_what_may_be_of_a_check_that_hung_is_not_blamed_on_a_later_one(request: pytest.FixtureRequest):
    release, later, hung = threading.Event(), threading.Event(), []
    request.addfinalizer(release.set)
    request.addfinalizer(later.set)

    def hanging() -> None:
        hung.append(threading.current_thread())
        release.wait()

    with pytest.raises(AssertionError, match="It hangs"):
        within(0.1, hanging)
    before = Traces.now()
    threading.Thread(target=later.wait, name="left-behind", daemon=True).start()
    with pytest.raises(pytest.skip.Exception, match="not to be judged: a check before it hung.*'left-behind'"):
        expect_nothing_left_since(before, 0.1, "nothing is left")
    release.set()
    hung[0].join()
    with pytest.raises(AssertionError, match="nothing is left"):
        expect_nothing_left_since(before, 0.1, "nothing is left")
    later.set()
    expect_nothing_left_since(before, 60, "nothing is left")
