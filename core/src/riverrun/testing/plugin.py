"""The pytest plugin: the fixtures `flow_runner` and `fake_clock`, for the tests of flows.

pytest loads it in every run wherever `core` is installed, so it imports nothing before a test asks for a fixture.
`pytest -p no:riverrun` leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.testing import FakeClock

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
    if "flow_runner" not in metafunc.fixturenames:
        return
    from riverrun.testing._flow_runners import parameters

    marker = metafunc.definition.get_closest_marker("flow_runner")
    metafunc.parametrize("flow_runner", parameters(metafunc.config, marker), indirect=True)


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
    """Give a clock that stands in for real time: delays before retries end at once, `advance()` lets time pass."""
    from riverrun._timers import replaced
    from riverrun.testing import FakeClock

    clock = FakeClock()
    with replaced(clock):
        yield clock
