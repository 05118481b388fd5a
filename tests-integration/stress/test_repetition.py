"""What raced before, again and again: short flows with limits, retries, cancellations and waits, on several threads."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.stress,
    pytest.mark.timeout(1800),  # the program has a limit of its own
]

RUNNERS = ["sequential", "concurrent", "dask-processes", "dask-threads", "ray"]


@pytest.mark.parametrize("runner", RUNNERS)
def test_many_short_rounds_have_the_right_values_and_states_each_time(start_program: Any, seed: int, runner: str):
    program = start_program("repeated", runner, seed)
    status = program.end()
    faults = program.wrote("faults")
    program.check(faults is not None, f"it ended before its last round, with status {status}")
    program.check(not faults, "\n".join([f"{len(faults)} faults:", *faults]))
    program.check(status == 0, f"status {status}")
    program.check(not (left := program.left()), f"left behind: {left}")
