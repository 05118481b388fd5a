"""What every task runner has to do. A test that fails says what is wrong with this one."""

from __future__ import annotations

import pytest
from riverrun.testing import TaskRunnerConformance
from runner_mpi import MPITaskRunner


class TestMPITaskRunner(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self) -> MPITaskRunner:
        return MPITaskRunner(workers=2)

    @pytest.fixture
    def unstartable_task_runner(self) -> MPITaskRunner:
        return MPITaskRunner(workers=2, launcher=("false",))
