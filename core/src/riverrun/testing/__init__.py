"""The conformance suite: what every task runner owes to the flows that run on it.

A runner's own tests are a subclass with one fixture; pytest does the rest::

    class TestMyTaskRunner(TaskRunnerConformance):
        @pytest.fixture
        def task_runner(self):
            return MyTaskRunner()

Each test is an obligation, its name says which. What the suite cannot see from outside, the subclass declares (see the
attributes of `TaskRunnerConformance`). Only this module of Riverrun needs pytest.
"""

from __future__ import annotations

from pkgutil import iter_modules

try:
    import pytest
except ImportError as error:
    msg = "riverrun.testing, the conformance suite for task runners, needs pytest: pip install pytest"
    raise ImportError(msg) from error

# Before the modules are imported: a failed assertion of the suite shows the values, as one in a test file does.
pytest.register_assert_rewrite(*(module.name for module in iter_modules(__path__, f"{__name__}.")))

from riverrun.testing._conformance import TaskRunnerConformance  # noqa: E402 - see above
from riverrun.testing._within import within  # noqa: E402

__all__ = ["TaskRunnerConformance", "within"]
