from __future__ import annotations

import pytest
from riverrun.task_runners import SequentialTaskRunner
from riverrun.testing import TaskRunnerConformance


class TestSequentialTaskRunner(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self):
        return SequentialTaskRunner()
