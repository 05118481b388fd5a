"""Programs that are drawn from seeds, on simulated executors; and that the simulation finds what is broken."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from riverrun import TaskFuture, flow, task
from riverrun.testing import check_program, drawn_program, simulated
from riverrun.testing._simulation._cluster import Plan, SimulatedCluster
from riverrun.testing._simulation._check import run_program
from riverrun.testing._simulation._finds import explore, keep, replayed, shrunk
from riverrun.testing._simulation._programs import Call, Cancel, Lots, Map, Program, Ref, Wait, draw_program

FINDS = Path(__file__).parent / "simulation_finds"
"""Each file is a program that went wrong once, with the seed of the interleaving."""
PROGRAMS = int(os.environ.get("SIMULATED_PROGRAMS", "3000"))
QUIET = Plan(workers=2)
"""No faults, and a contract that is always the same."""


@pytest.fixture(autouse=True)
def _no_logs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("riverrun"), "level", logging.CRITICAL + 1)


def found_in(seeds: range) -> str:
    """Explore; give what was found, for people. Each find is left behind as a test."""
    return "\n".join(str(result) for result in explore(seeds, keep_in=str(FINDS)))


@pytest.mark.timeout(600)
def test_programs_on_simulated_executors_end_as_the_reference_says(seed: int):
    first = seed * 1_000_000
    assert not (found := found_in(range(first, first + PROGRAMS))), found


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_many_more_programs_end_as_the_reference_says(seed: int):
    first = seed * 1_000_000 + 500_000
    assert not (found := found_in(range(first, first + 10_000))), found


@pytest.mark.parametrize("path", sorted(FINDS.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_once_is_right_now(path: Path):
    result = replayed(str(path))
    assert not result.violations, str(result)
