"""The pytest plugin: the fixtures `flow_runner`, `fake_clock` and `simulation`, for the tests of flows.

It also says at the end of a run where the conformance suite gave a runner up.

pytest loads it in every run wherever `core` is installed, so it imports nothing before a test asks for a fixture.
`pytest -p no:riverrun` leaves it out.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from riverrun.testing import FakeClock, Simulation

_MARKER = "flow_runner(*names): run this test's `flow_runner` on these task runners only"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose task runners."""
    text = "the task runner that tests with the fixture `flow_runner` run on (repeatable; default: all installed)"
    group = parser.getgroup("riverrun")
    group.addoption("--flow-runner", action="append", metavar="NAME", dest="flow_runners", help=text)
    parser.addini("flow_runners", text.replace("(repeatable; default", "(a list; default"), type="args")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the fixture `flow_runner` once on each task runner."""
    if not _uses_ours(metafunc) or _is_given(metafunc):
        return
    from riverrun.testing._flow_runners import parameters

    marker = metafunc.definition.get_closest_marker("flow_runner")
    metafunc.parametrize("flow_runner", parameters(metafunc.config, marker), indirect=True)


def _uses_ours(metafunc: pytest.Metafunc) -> bool:
    """Say whether the test's `flow_runner` is the fixture below, or one that builds on it."""
    # (pytest itself has no public way to ask.)
    found = metafunc.definition._fixtureinfo.name2fixturedefs.get("flow_runner", ())  # noqa: SLF001
    for fixture in reversed(found):  # each may ask for the one that it overrides
        if fixture.func.__module__ == __name__:
            return True
        if "flow_runner" not in fixture.argnames:
            return False
    return False


def _is_given(metafunc: pytest.Metafunc) -> bool:
    """Say whether the test names its task runners itself, with `@pytest.mark.parametrize` or a hook."""
    if any("flow_runner" in call.params for call in metafunc._calls):  # noqa: SLF001
        return True
    for marker in metafunc.definition.iter_markers("parametrize"):
        names = marker.args[0] if marker.args else marker.kwargs.get("argnames", ())
        if "flow_runner" in [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]:
            return True
    return False


def _is_time_limit(error: BaseException) -> bool:
    """Say whether a test ran into its limit: that of pytest-timeout, which fails it with a text of its own."""
    return isinstance(error, pytest.fail.Exception) and str(error).startswith("Timeout")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on the report that a check of the conformance suite ran into its limit, or was left out."""
    report = yield
    kind = None if call.excinfo is None else getattr(call.excinfo.type, "riverrun_limit", None)
    if kind is not None and item.parent is not None:
        # Texts in a list also get through to the main process of pytest-xdist.
        report.riverrun_limit = [kind, item.parent.nodeid]  # type: ignore[attr-defined]  # pytest keeps what is added
    if report.failed and call.excinfo is not None and _is_time_limit(call.excinfo.value):
        event_log = sys.modules.get("riverrun._event_log")
        if event_log is not None and (told := event_log.told()):
            report.sections.append(("What happened last to task runs", told))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say for each class of the conformance suite that was given up why, and how much was left out."""
    suites: dict[str, dict[str, list[str]]] = {}
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        said: list[str] | None = getattr(report, "riverrun_limit", None)
        if said is not None:
            kind, suite = said
            suites.setdefault(suite, {}).setdefault(kind, []).append(report.nodeid)
    given_up = {suite: kinds for suite, kinds in suites.items() if "left out" in kinds}
    if not given_up:
        return
    from riverrun.testing._patience import diagnosis

    terminalreporter.section("task runners given up")
    for suite, kinds in given_up.items():
        left_out = len(kinds.pop("left out"))
        checks = "check" if left_out == 1 else "checks"
        terminalreporter.write_line(f"{suite}: {diagnosis(kinds)}; {left_out} {checks} left out.")
        terminalreporter.write_line("These ran into their time limit:")
        for check in itertools.chain.from_iterable(kinds.values()):
            terminalreporter.write_line(f"  {check}")


@pytest.fixture
def flow_runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the name of a task runner, one after the other of those that are installed.

    Flows that name no task runner run on it; `my_flow.with_options(task_runner=flow_runner)` does for others. The test
    has a cache of its own, and nothing of what Riverrun sets up in the process outlives it.
    """
    from riverrun.testing._isolation import isolated

    name: Any = request.param
    with isolated(tmp_path_factory.getbasetemp(), task_runner=name):
        yield name


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """Give a clock that stands in for real time: delays before retries end at once, `advance()` lets time pass.

    The cache in memory is the test's own: values from its future are no good to later tests.
    """
    from riverrun._caching import emptied
    from riverrun._timers import replaced
    from riverrun.testing import FakeClock

    clock = FakeClock()
    with emptied(), replaced(clock):
        yield clock


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """Give a simulated world, where flows run on `simulation.task_runner`: one order of events, which a seed decides.

    The seed is 0; `riverrun.testing.simulated(seed=...)` gives others, and faults.
    """
    from riverrun._caching import emptied
    from riverrun.testing import simulated

    with emptied(), simulated() as world:
        yield world
