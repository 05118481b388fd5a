"""What every task runner has to do. A test that fails says what is wrong with this one."""

from __future__ import annotations

import pytest
from riverrun.testing import TaskRunnerConformance
from runner_process import ProcessTaskRunner


class TestProcessTaskRunner(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self) -> ProcessTaskRunner:
        return ProcessTaskRunner(max_workers=2)
