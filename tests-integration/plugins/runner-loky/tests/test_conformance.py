"""What every task runner has to do. A test that fails says what is wrong with this one."""

from __future__ import annotations

import pytest
from riverrun.testing import TaskRunnerConformance
from runner_loky import LokyTaskRunner


class TestLokyTaskRunner(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self) -> LokyTaskRunner:
        return LokyTaskRunner(max_workers=2)
