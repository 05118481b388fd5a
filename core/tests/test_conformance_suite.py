"""The conformance suite, tested: ten honest lines pass it, and each kind of broken runner fails it by name."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from textwrap import dedent, indent
from typing import TYPE_CHECKING

import pytest
from riverrun.abc import Concurrency, TaskRunner
from riverrun.testing import TaskRunnerConformance, within
from riverrun.testing._traces import PROC, of_group

if TYPE_CHECKING:
    from pathlib import Path


class ThreadPoolTaskRunner(TaskRunner):
    concurrency = Concurrency.CONCURRENT
    threads: int = 2

    def start(self):
        return ThreadPoolExecutor(self.threads)


class UnstartableTaskRunner(TaskRunner):
    concurrency = Concurrency.CONCURRENT

    def start(self):
        raise OSError("no licence")


class TestAPlainThreadPool(TaskRunnerConformance):
    time_limit = 30

    @pytest.fixture
    def task_runner(self):
        return ThreadPoolTaskRunner()

    @pytest.fixture
    def unstartable_task_runner(self):
        return UnstartableTaskRunner()


class ProcessPoolTaskRunner(TaskRunner):
    concurrency = Concurrency.PARALLEL
    processes: int = 2

    def start(self):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["riverrun.testing"])  # its workers start in a moment: nothing to import
        return ProcessPoolExecutor(self.processes, mp_context=context)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="this system has no forkserver")
class TestAPlainProcessPool(TaskRunnerConformance):
    # One worker that dies breaks the whole of this pool, and it is not replaced: it declares nothing.

    @pytest.fixture
    def task_runner(self):
        return ProcessPoolTaskRunner()


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
    class TestBroken(TaskRunnerConformance):
        time_limit = 2
        @pytest.fixture
        def task_runner(self):
            return BrokenTaskRunner()
"""

BROKEN = {
    "drops_a_task": (
        """
        class BrokenTaskRunner(HonestTaskRunner):
            class executor(HonestExecutor):
                def run(self, call, future):
                    if self.count != 7:
                        super().run(call, future)
        """,
        "test_each_task_runs_exactly_once",
        "It hangs: it had not ended after 2 seconds",
    ),
    "says_that_a_task_it_dropped_is_done": (
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
    "runs_a_task_twice": (
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
    "loses_exceptions": (
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
    "gives_no_outcome_where_a_task_raised": (
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
    "leaves_a_thread": (
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()
                yield HonestExecutor()
        """,
        "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that[completes]",
        "what a flow run starts ends with it",
    ),
    "leaves_a_process": (
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
    ),
    "leaves_a_process_after_a_signal": (
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
    "leaves_a_socket": (
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
    ),
    "never_stops": (
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                yield HonestExecutor()
                threading.Event().wait()
        """,
        "test_the_runner_starts_once_and_stops_once_for_a_flow_run_that[completes]",
        "It hangs: it had not ended after 2 seconds",
    ),
    "does_not_stop_after_an_interrupt": (
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
    ),
    "swallows_what_the_flow_raises": (
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
    "reorders": (
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
    "puts_off_what_it_is_given": (
        """
        class BrokenTaskRunner(HonestTaskRunner):
            def start(self):
                return ThreadPoolExecutor(1)
        """,
        "test_a_sequential_task_runs_in_the_thread_of_its_flow",
        "sequential: in the thread of the flow",
    ),
    "raises_in_submit_now_and_then": (
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
    "says_that_tasks_overlap_and_runs_one_at_a_time": (
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            def start(self):
                return ThreadPoolExecutor(1)
        """,
        "test_sync_tasks_overlap",
        "2 sync tasks run at the same time",
    ),
    "says_that_it_has_processes_and_has_none": (
        """
        class BrokenTaskRunner(TaskRunner):
            concurrency = Concurrency.PARALLEL
            def start(self):
                return ThreadPoolExecutor(2)
        """,
        "test_tasks_run_in_the_processes_that_the_runner_declares",
        "Concurrency.PARALLEL: tasks run in other processes",
    ),
    "keeps_its_executor": (
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
    "has_one_executor_for_all_flow_runs": (
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
    "leaves_what_a_failed_start_has_begun": (
        """
        class BrokenTaskRunner(HonestTaskRunner):
            @contextmanager
            def start(self):
                threading.Thread(target=threading.Event().wait, name="left-behind", daemon=True).start()
                raise OSError("no licence")
        TaskRunnerConformance.unstartable_task_runner = pytest.fixture(lambda self: BrokenTaskRunner())
        """,
        "test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body",
        "what a failed start has begun, it stops",
    ),
    "cannot_be_pickled": (
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
}


def run_suite(folder: Path, runner: str, *tests: str, tail: str = TAIL) -> str:
    """Run tests of the suite with a runner, in a process of its own: what is left behind ends with it."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_broken.py").write_text(dedent(HEAD) + dedent(runner) + dedent(tail))
    chosen = [f"test_broken.py::TestBroken::{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_runner_fails_the_suite_by_name__one_that(kind: str, tmp_path: Path):
    runner, test, text = BROKEN[kind]
    output = run_suite(tmp_path, runner, test)
    assert "1 failed" in output, output
    assert f"FAILED test_broken.py::TestBroken::{test}" in output, output
    assert text in output, output


def test_the_honest_runner_that_the_broken_ones_are_made_from_passes(tmp_path: Path):
    tests = sorted({test for _, test, _ in BROKEN.values()})
    output = run_suite(tmp_path, "class BrokenTaskRunner(HonestTaskRunner): pass", *tests)
    assert "passed" in output, output
    assert "failed" not in output, output


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
needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="this system has no forkserver"
)


@needs_forkserver
@pytest.mark.parametrize("capability", LOSSES)
def test_a_runner_whose_workers_die_alone_passes_the_test_that_it_declares(tmp_path: Path, capability: str):
    tail = DECLARED.format(runner="OneProcessForEachTaskRunner", capability=capability)
    output = run_suite(tmp_path, POOLS, LOSSES[capability], tail=tail)
    assert "1 passed" in output, output


@needs_forkserver
@pytest.mark.parametrize("capability", LOSSES)
def test_a_runner_that_declares_it_and_loses_them_all_fails_it(tmp_path: Path, capability: str):
    tail = DECLARED.format(runner="ProcessPoolTaskRunner", capability=capability)
    output = run_suite(tmp_path, POOLS, LOSSES[capability], tail=tail)
    assert "1 failed" in output, output
    assert "BrokenProcessPool" in output, output


@needs_forkserver
@pytest.mark.parametrize("capability", LOSSES)
def test_a_test_class_may_take_back_what_the_runner_declares(tmp_path: Path, capability: str):
    tail = DECLARED.format(runner="ProcessPoolTaskRunner", capability=capability)
    tail += f"        {capability} = False\n"
    output = run_suite(tmp_path, POOLS, LOSSES[capability], tail=tail)
    assert "1 skipped" in output, output


def test_ctrl_c_is_tried_also_where_it_is_ignored_as_in_the_background_of_a_shell_script(tmp_path: Path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which processes that are started inherit
    try:
        test = "test_the_process_ends_and_leaves_no_other_behind_after[ctrl_c-sync]"
        output = run_suite(tmp_path, "class BrokenTaskRunner(HonestTaskRunner): pass", test)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "1 passed" in output, output


@pytest.mark.skipif(not (PROC / "self" / "stat").exists(), reason="this system has no /proc")
def test_a_process_that_has_ended_is_not_left_though_nobody_waited_for_it():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    assert [words.partition(" (")[0] for words in of_group(process.pid)] == [f"process {process.pid}"]
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    left = of_group(process.pid)
    process.wait()
    assert not left


def test_a_class_without_the_fixture_is_told_to_have_one(tmp_path: Path):
    tail = indent("class TestBroken(TaskRunnerConformance): pass", "    ")
    output = run_suite(tmp_path, "", "test_a_thousand_tasks_complete", tail=tail)
    assert "TestBroken needs a fixture `task_runner` that returns the task runner to be tested." in output


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
        event.wait(60)

    with pytest.raises(AssertionError, match=r"(?s)It hangs: it had not ended after 0\.1 seconds.*in stuck_here"):
        within(0.1, stuck_here)
