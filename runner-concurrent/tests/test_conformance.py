from __future__ import annotations

import pytest
from riverrun.task_runners import ConcurrentTaskRunner
from riverrun.testing import TaskRunnerConformance


class TestConcurrentTaskRunner(TaskRunnerConformance):
    workers = 5

    @pytest.fixture
    def task_runner(self):
        return ConcurrentTaskRunner()


class TestTwoWorkers(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self):
        return ConcurrentTaskRunner(max_workers=2)


class TestOneWorker(TaskRunnerConformance):
    workers = 1

    @pytest.fixture
    def task_runner(self):
        return ConcurrentTaskRunner(max_workers=1)
