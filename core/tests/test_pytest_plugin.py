"""The pytest plugin, in runs of pytest of its own: as those see it who have `core` installed.

Those runs are in this process, where it makes no difference; what is about loading the plugin has a process of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import pytest
import riverrun
from riverrun import task_runners
from riverrun.testing import FakeClock

pytest_plugins = ["pytester"]
# With pytest-timeout's other method a test would have the signal that interrupts code at its deadline.
pytestmark = pytest.mark.timeout(120, method="thread")
LIMIT = 90
"""How long anything may take before it counts as a hang, in seconds."""

SUMS = """
    import pytest
    from riverrun import flow, task

    @task
    def add(a, b):
        return a + b

    @flow
    def sums():
        return add(add(1, 2), 3)
"""


@pytest.fixture(scope="module")
def all_of_it_is_imported():
    """A run in this process forgets what was imported in it, and later tests would meet two of the same module."""
    for found in pkgutil.walk_packages(riverrun.__path__, "riverrun."):
        if found.name not in {"riverrun.__main__", "riverrun.task_runner"}:  # one is the command, one says what to type
            importlib.import_module(found.name)
    for name in ("sequential", "concurrent"):
        task_runners.get(name)


@pytest.fixture
def run(all_of_it_is_imported, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run pytest in an empty folder, on one file of tests."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")

    def run(tests: str, *arguments: str):
        pytester.makepyfile(test_it=dedent(SUMS) + dedent(tests))
        return pytester.runpytest_inprocess("-v", "-p", "no:cacheprovider", *arguments)

    return run


# -- flow_runner

ON_BOTH = ("--flow-runner=sequential", "--flow-runner=concurrent")
ON_EACH = """
    def test_sums(flow_runner):
        from riverrun import hookimpl, observers
        used = []
        class Note:
            @hookimpl
            def riverrun_task_runner_started(self, event):
                used.append(event.task_runner)
        with observers.register(Note()):
            assert sums() == 6
            assert sums.with_options(task_runner=flow_runner)() == 6
        assert used == [f"{flow_runner.capitalize()}TaskRunner"] * 2
"""


def test_a_test_runs_once_on_each_task_runner_that_is_installed(run):
    done = run("def test_sums(flow_runner):\n    assert flow_runner\n")
    assert {"sequential", "concurrent"} <= set(task_runners.names())
    done.assert_outcomes(passed=len(task_runners.names()))
    for name in task_runners.names():
        done.stdout.fnmatch_lines([f"*::test_sums?{name}? PASSED*"])


def test_flows_run_on_the_task_runner_of_the_test(run):
    done = run(ON_EACH, "--flow-runner", "sequential", "--flow-runner", "concurrent")
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*test_sums?sequential? PASSED*", "*test_sums?concurrent? PASSED*"])


def test_the_ini_file_chooses_task_runners_and_the_command_line_beats_it(run, pytester):
    pytester.makeini("[pytest]\nflow_runners = sequential concurrent\n")
    run(ON_EACH).assert_outcomes(passed=2)
    run(ON_EACH, "--flow-runner", "sequential").assert_outcomes(passed=1)


def test_a_mark_chooses_the_task_runners_of_one_test(run):
    marked = """
        @pytest.mark.flow_runner("concurrent")
        def test_sums(flow_runner):
            assert flow_runner == "concurrent"
    """
    run(marked).assert_outcomes(passed=1)
    done = run(marked, "--flow-runner", "sequential", "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*runs on concurrent, and sequential was asked for*"])


def test_a_task_runner_that_is_not_installed_is_skipped_with_what_to_type(run, pytester):
    pytester.makeconftest("import sys\nsys.modules['runner_ray'] = None\n")
    done = run("def test_sums(flow_runner):\n    pass\n", "--flow-runner", "ray", "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*task runner `ray` is not installed: pip install 'core[[]ray[]]'*"])


@pytest.mark.parametrize(
    ("source", "arguments", "where"),
    [
        ("def test_sums(flow_runner):\n    pass\n", ["--flow-runner", "concurent"], "--flow-runner"),
        (
            "@pytest.mark.flow_runner('concurent')\ndef test_sums(flow_runner):\n    pass\n",
            [],
            "@pytest.mark.flow_runner",
        ),
    ],
)
def test_a_name_that_does_not_exist_is_a_usage_error(run, source, arguments, where):
    done = run(source, *arguments)
    assert done.ret in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED}
    text = done.stdout.str() + done.stderr.str()
    assert f"{where}: no task runner is named `concurent`; did you mean `concurrent`? Installed: sequential, " in text


def test_a_distribution_may_be_named_too(run):
    done = run(
        """
        def test_sums(flow_runner):
            assert flow_runner == "runner-sequential:sequential"
            assert sums() == 6
        """,
        "--flow-runner=runner-sequential:sequential",
    )
    done.assert_outcomes(passed=1)


OWN = """
    @pytest.fixture
    def flow_runner():
        return "my own"
"""
ASKS = """
    def test_it(flow_runner):
        assert flow_runner == "my own"
"""


@pytest.mark.parametrize("where", ["conftest", "module"])
def test_a_fixture_of_ones_own_by_that_name_is_left_alone(run, pytester, where):
    if where == "conftest":
        pytester.makeconftest("import pytest\n" + dedent(OWN))
    run((OWN if where == "module" else "") + ASKS).assert_outcomes(passed=1)


def test_a_fixture_may_build_on_it(run):
    done = run(
        """
        @pytest.fixture
        def flow_runner(flow_runner):
            return sums.with_options(task_runner=flow_runner)

        def test_sums(flow_runner):
            assert flow_runner() == 6
        """,
        *ON_BOTH,
    )
    done.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("names", "more"),
    [
        ("'flow_runner'", ""),
        ("['other', 'flow_runner']", ""),
        ("'other, flow_runner'", ""),
        ("'flow_runner'", "indirect=True"),
    ],
)
def test_a_test_may_name_its_own_parameters(run, names, more):
    value = "(1, 'sequential')" if "other" in names else "'sequential'"
    arguments = "other, flow_runner" if "other" in names else "flow_runner"
    run(f"""
    @pytest.mark.parametrize({names}, [{value}], {more})
    def test_sums({arguments}):
        assert flow_runner == "sequential"
        assert sums.with_options(task_runner=flow_runner)() == 6
    """).assert_outcomes(passed=1)


def test_a_hook_may_name_the_parameters(run, pytester):
    pytester.makeconftest(
        "def pytest_generate_tests(metafunc):\n"
        "    if 'flow_runner' in metafunc.fixturenames:\n"
        "        metafunc.parametrize('flow_runner', ['sequential'], indirect=True)\n"
    )
    run("def test_sums(flow_runner):\n    assert sums() == 6\n").assert_outcomes(passed=1)


def test_a_mark_without_a_name_is_refused(run):
    done = run("@pytest.mark.flow_runner\ndef test_sums(flow_runner):\n    pass\n")
    assert done.ret != 0
    assert "@pytest.mark.flow_runner needs at least one name of a task runner." in done.stdout.str() + done.stderr.str()


def test_nothing_leaks_from_one_test_to_the_next(run):
    done = run(
        """
        import logging, os, threading
        from riverrun import _caching, _settings, observers

        logger = logging.getLogger("riverrun")
        before = {}

        @task(cache_key_fn=lambda *_: "one key", persist_result=True)
        def count():
            counted.append(1)
            return len(counted)

        counted = []

        @flow
        def counts():
            return count()

        def seen():
            return {
                "handlers": list(logger.handlers),
                "level": logger.level,
                "threads": {thread.name for thread in threading.enumerate()},
                "settings": _settings.load(),
                "environment": dict(os.environ, PYTEST_CURRENT_TEST=""),
                "observers": list(observers.register.__globals__["registered"]),
                "cached": dict(_caching._memory),
            }

        def test_first():
            before.update(seen())

        def test_runs_flows(flow_runner):
            counted.clear()
            assert counts() == 1  # nothing of an earlier test is in the cache, in memory or in files
            assert counts() == 1
            assert (os.path.expanduser("~") not in _settings.load().home) or "pytest" in _settings.load().home
            observers.register("otel")
            logger.addHandler(logging.NullHandler())
            logger.setLevel("DEBUG")

        def test_last():
            assert seen() == before
        """,
        "--flow-runner=sequential",
        "--flow-runner=concurrent",
    )
    done.assert_outcomes(passed=4)


def test_flows_may_be_tested_in_async_tests_and_threads_end_with_them(run):
    done = run(
        """
        import anyio, threading

        @flow
        async def sums_async():
            return await add(1, 2)

        @pytest.mark.parametrize("backend", ["asyncio", "trio"])
        def test_sums(flow_runner, backend):
            assert anyio.run(sums_async, backend=backend) == 3
            assert not [t.name for t in threading.enumerate() if t.name.startswith("riverrun")]
        """,
        "--flow-runner=sequential",
        "--flow-runner=concurrent",
    )
    done.assert_outcomes(passed=4)


# -- fake_clock


def test_delays_before_retries_end_at_once_and_are_noted(run):
    done = run(
        """
        import time
        from riverrun import exponential_backoff

        @task(retries=3, retry_delay_seconds=exponential_backoff(1000))
        def stubborn():
            raise ValueError

        @task(retries=3, retry_delay_seconds=[1000, 2000, 4000])
        async def stubborn_later():
            raise ValueError

        @flow(retries=1, retry_delay_seconds=5000)
        def tries():
            stubborn().wait()
            stubborn_later().result()

        @flow(retries=1, retry_delay_seconds=5000)
        async def tries_async():
            await stubborn_later()

        def test_a_sync_flow(flow_runner, fake_clock):
            assert tries(return_state=True).is_failed()
            assert fake_clock.delays == [1000, 2000, 4000, 1000, 2000, 4000, 5000] + [1000, 2000, 4000] * 2

        @pytest.mark.parametrize("backend", ["asyncio", "trio"])
        def test_an_async_flow(flow_runner, fake_clock, backend):
            import anyio
            with pytest.raises(ValueError):
                anyio.run(tries_async, backend=backend)
            assert fake_clock.delays == [1000, 2000, 4000, 5000, 1000, 2000, 4000]

        def test_real_time_is_back():
            from riverrun import _timers
            assert type(_timers.clock) is _timers.Clock
        """,
        *ON_BOTH,
    )
    done.assert_outcomes(passed=7)


def test_time_limits_are_overrun_when_the_test_lets_time_pass(run):
    done = run(
        """
        @flow
        def slow():
            @task(timeout_seconds=60, retries=1)
            def sleeps():
                clock.advance(61)

            @task(timeout_seconds=60)
            async def sleeps_later():
                clock.advance(61)

            @task(timeout_seconds=60)
            def is_quick():
                clock.advance(59)
                return "quick"

            states = [future.wait() for future in (sleeps(), sleeps_later())]
            return [(state.name, state.message) for state in states], is_quick().result()

        def test_slow(flow_runner, fake_clock):
            global clock
            clock = fake_clock
            states, value = slow()
            assert states == [("TimedOut", "Task run exceeded timeout of 60.0 seconds")] * 2
            assert value == "quick"

        @flow(timeout_seconds=60)
        def slow_itself():
            clock.advance(61)

        def test_a_flow(flow_runner, fake_clock):
            global clock
            clock = fake_clock
            assert slow_itself(return_state=True).name == "TimedOut"

        def test_time_that_passes_in_one_run_is_no_business_of_a_later_one(flow_runner, fake_clock):
            global clock
            clock = fake_clock
            slow()
            fake_clock.advance(1000)
            assert sums() == 6
        """,
        *ON_BOTH,
    )
    done.assert_outcomes(passed=6)


def test_who_overran_a_limit_in_another_thread_knows_it_when_time_has_passed():
    clock, called = FakeClock(), []
    begun, go_on = threading.Event(), threading.Event()

    def overrun():
        begun.set()
        go_on.wait(10)
        called.append("overrun")

    timers = clock.timers()
    timers.call_later(60, overrun)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(clock.advance, 61)
        assert begun.wait(10)
        other = threads.submit(lambda: (clock.advance(61), list(called)))
        time.sleep(0.05)
        go_on.set()
        assert other.result(10) == (None, ["overrun"])
    timers.stop()


def test_code_that_hangs_is_overrun_in_real_time(run):
    done = run(
        """
        import threading

        @task(timeout_seconds=0.3)
        def hangs():
            free.wait(40)

        @flow
        def hanging():
            try:
                return hangs().wait().name
            finally:
                free.set()

        def test_it_ends(flow_runner, fake_clock):
            global free
            free = threading.Event()
            assert hanging() == "TimedOut"
            assert not [t.name for t in threading.enumerate() if t.name == "riverrun-timers"]

        @task(timeout_seconds=3000)
        def is_quick():
            return "quick"

        @flow
        def is_not_hanging():
            return is_quick().result()

        def test_a_limit_that_is_not_reached_keeps_nobody_waiting(flow_runner, fake_clock):
            assert is_not_hanging() == "quick"
            assert not [t.name for t in threading.enumerate() if t.name == "riverrun-timers"]
        """,
        *ON_BOTH,
    )
    done.assert_outcomes(passed=4)


def test_values_of_the_future_are_not_there_in_a_later_test(run):
    done = run(
        """
        from datetime import timedelta

        @task(cache_key_fn=lambda *_: "key", cache_expiration=timedelta(hours=1))
        def now():
            counted.append(1)
            return len(counted)

        counted = []

        @flow(task_runner="sequential")
        def asks():
            return now()

        def test_in_the_future(fake_clock):
            fake_clock.advance(86_400)
            assert (asks(), asks()) == (1, 1)

        def test_now():
            assert asks() == 2
        """
    )
    done.assert_outcomes(passed=2)


def test_cached_values_grow_old_when_the_test_lets_time_pass(run):
    done = run(
        """
        from datetime import timedelta

        @task(cache_key_fn=lambda *_: "key", cache_expiration=timedelta(hours=1))
        def now():
            counted.append(1)
            return len(counted)

        counted = []

        @flow
        def asks():
            return now()

        def test_age(flow_runner, fake_clock):
            counted.clear()
            assert (asks(), asks()) == (1, 1)
            fake_clock.advance(3601)
            assert asks() == 2

        def test_time_does_not_go_back(fake_clock):
            with pytest.raises(ValueError, match="Time cannot go back: advance"):
                fake_clock.advance(-1)
        """,
        *ON_BOTH,
    )
    done.assert_outcomes(passed=3)


# -- for those who do not use it

LOADED = """
    import sys
    def test_nothing():
        assert {name for name in sys.modules if name.startswith(("riverrun", "runner_"))} == EXPECTED
        assert not {"pydantic", "anyio", "cloudpickle", "coolname", "rich", "trio"} & set(sys.modules)
"""


def test_it_imports_nothing_before_a_test_asks_for_a_fixture(pytester):
    expected = {"riverrun", "riverrun.testing", "riverrun.testing.plugin"}
    pytester.makepyfile(dedent(LOADED).replace("EXPECTED", repr(expected)))
    # Of all the plugins that happen to be installed here, this one alone.
    pytester.runpytest_subprocess(
        "-p", "no:anyio", "-p", "no:sybil", "-p", "no:cacheprovider", timeout=LIMIT
    ).assert_outcomes(passed=1)


def test_it_can_be_left_out(pytester):
    pytester.makepyfile("def test_it(flow_runner):\n    pass\n")
    without = ["-p", "no:riverrun", "-p", "no:anyio"]  # the latter only because it imports trio, which takes long
    done = pytester.runpytest_subprocess(*without, timeout=LIMIT)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'flow_runner' not found*"])
    assert pytester.runpytest_subprocess(*without, "--flow-runner=x", timeout=LIMIT).ret == 4


def test_who_imports_riverrun_before_pytest_gets_no_warning(pytester):
    pytester.makepyfile("def test_it():\n    pass\n")
    arguments = ["-W", "error", "-q", "-p", "no:anyio"]
    code = f"import riverrun, riverrun.states, pytest; raise SystemExit(pytest.main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 passed" in done.stdout
    assert "warning" not in done.stdout


def test_a_failed_assertion_of_the_conformance_suite_shows_the_values(pytester):
    pytester.makepyfile(
        test_suite="""
        import pytest
        from riverrun.testing import TaskRunnerConformance

        class TestIt(TaskRunnerConformance):
            @pytest.fixture
            def task_runner(self):
                return "not a task runner"
        """
    )
    done = pytester.runpytest_subprocess(
        "-k", "of_this_version", "-p", "no:cacheprovider", "-p", "no:anyio", timeout=LIMIT
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E*assert False", "E*where False = isinstance('not a task runner', *"])


def test_a_test_that_runs_into_its_limit_says_what_happened_last_to_the_task_runs(pytester: pytest.Pytester):
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        test_it=dedent(
            """
            import time
            import pytest
            from concurrent.futures import ThreadPoolExecutor
            from riverrun import flow, task
            from riverrun.abc import Concurrency, ExecutorTaskRunner

            class PoolTaskRunner(ExecutorTaskRunner):
                concurrency = Concurrency.CONCURRENT

                def executor(self):
                    return ThreadPoolExecutor(1)

            @task
            def quick():
                pass

            @flow(task_runner=PoolTaskRunner())
            def waiting():
                quick().result()
                time.sleep(60)

            @pytest.mark.timeout(1, method="signal")
            def test_a_flow():
                waiting()
            """
        )
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*What happened last to task runs*",
            "Flow run '*', the last * events:",
            "*quick-*-0: begun -> RUNNING, attempt 1, -",
        ]
    )
