"""For tests: the conformance suite that every task runner passes, and fixtures for the tests of flows.

**A task runner's** own tests are a subclass with one fixture; pytest does the rest::

    class TestMyTaskRunner(TaskRunnerConformance):
        @pytest.fixture
        def task_runner(self):
            return MyTaskRunner()

Each test is an obligation, its name says which. What the suite cannot see from outside, the subclass declares (see the
attributes of `TaskRunnerConformance`).

**A flow's** tests have the fixtures `flow_runner`, `fake_clock` and `simulation` wherever `core` is installed: see
`testing.plugin`. `simulated` is a world for flows without threads, processes and time; `check_program` runs flows that
are drawn from a seed, and compares what comes of them with what is right, also on a task runner of one's own.

Only what is in here needs pytest; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import pytest
except ImportError as error:
    msg = "riverrun.testing, the conformance suite for task runners, needs pytest: pip install pytest"
    raise ImportError(msg) from error

if TYPE_CHECKING:
    from riverrun.testing._conformance import TaskRunnerConformance
    from riverrun.testing._fake_clock import FakeClock
    from riverrun.testing._simulation._check import check_program, drawn_program
    from riverrun.testing._simulation._simulation import Simulation, simulated
    from riverrun.testing._within import within

__all__ = ["FakeClock", "Simulation", "TaskRunnerConformance", "check_program", "drawn_program", "simulated", "within"]

_HOMES = {
    "FakeClock": "_fake_clock",
    "Simulation": "_simulation._simulation",
    "TaskRunnerConformance": "_conformance",
    "check_program": "_simulation._check",
    "drawn_program": "_simulation._check",
    "simulated": "_simulation._simulation",
    "within": "_within",
}

if not TYPE_CHECKING:  # to a type checker, what is not listed above does not exist

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from importlib import import_module

        if name == "TaskRunnerConformance" and f"{__name__}._conformance" not in __import__("sys").modules:
            _rewrite_assertions()
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # found at once the next time
        return value


def _rewrite_assertions() -> None:
    """See that a failed assertion of the suite shows the values, as one in a test file does."""
    import sys
    from pkgutil import iter_modules

    modules = [module.name for module in iter_modules(__path__, f"{__name__}.")]
    pytest.register_assert_rewrite(*(name for name in modules if name not in sys.modules))
