"""The benchmarks run, and report what they should; how fast anything was is nothing a test may judge.

By default each of them runs once, but for those that start clusters or instances for each sample; in several rounds, as
they are meant to be taken, all of them run in `stress`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = [
    "sequential",
    "concurrent",
    "waiting",
    "chain",
    "grid",
    "sleeping",
    "kept",
    "values",
    "starting",
    "crowded",
    "dask-tasks",
    "dask-chains",
    "dask-kept",
    "dask-scheduler",
    "dask-starting",
    "ray-tasks",
    "ray-chains",
    "ray-kept",
    "ray-starting",
]
FIGURES = [
    "sequential",
    "concurrent",
    "waiting",
    "chain",
    "chain-one-by-one",
    "grid",
    "grid-one-by-one",
    "sleeping-sync",
    "sleeping-async",
    "kept-sequential",
    "kept-concurrent",
    "values-window",
    "values-window-given-back",
    "values-in-turn",
    "import",
    "process",
    "process-info",
    "crowded",
    "crowded-by-name",
    "dask-tasks",
    "dask-chains",
    "dask-kept",
    "dask-scheduler",
    "dask-process",
    "ray-tasks",
    "ray-chains",
    "ray-kept",
    "ray-process",
]
START_CLUSTERS = {"dask-kept", "dask-scheduler", "dask-starting", "ray-kept", "ray-starting"}
THEIR_FIGURES = {"dask-kept", "dask-scheduler", "dask-process", "ray-kept", "ray-process"}
FOR_INFORMATION = {"chain-one-by-one", "grid-one-by-one", "values-window-given-back", "process-info", "crowded-by-name"}
BROKEN = """
import sys

import catalogue
import run

def broken(sizes):
    raise ValueError("no such luck")

catalogue.BENCHMARKS["sequential"] = broken
sys.argv = ["run.py", "--quick", "--only", "sequential", "--only", "waiting"]
sys.exit(run.main())
"""

LIMIT = 1200
"""How long a run of everything may take, in seconds: a limit against hangs. It starts a dozen clusters."""

pytestmark = pytest.mark.timeout(LIMIT + 60)
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc/self/status")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)

    return run


@pytest.fixture
def bench(run: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *arguments: run(str(BENCHMARKS / "run.py"), *arguments)


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.stress)], ids="{}-rounds".format)
def rounds(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory, rounds: int) -> tuple[list[str], dict[str, Any]]:
    """Run the benchmarks, for all tests that look at what came of it: the lines of the table, and the JSON."""
    folder = tmp_path_factory.mktemp("quick")
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--json", "figures.json"]
    if rounds == 1:  # a quick run has two
        only = [word for name in NAMES if name not in START_CLUSTERS for word in ("--only", name)]
        command += ["--rounds", "1", *only]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines(), json.loads((folder / "figures.json").read_text("utf-8"))


@linux
def test_a_quick_run_reports_every_figure_as_text_and_as_json(quick_run: tuple[list[str], dict[str, Any]], rounds: int):
    table, report = quick_run
    figures = [name for name in FIGURES if rounds > 1 or name not in THEIR_FIGURES]
    assert report["quick"] is True
    assert report["rounds"] == rounds
    assert report["errors"] == {}
    assert [figure["name"] for figure in report["figures"]] == figures
    assert table[0].startswith("Riverrun beside raw baselines: Python 3.")
    assert table[1].startswith("QUICK: ")
    assert table[3].split("  ")[0] == "what"
    assert len(table[5:]) == len(figures)
    for line, figure in zip(table[5:], report["figures"], strict=True):
        assert line.strip().startswith(figure["what"])


@linux
def test_each_figure_has_its_samples_and_says_whether_it_is_reached(
    quick_run: tuple[list[str], dict[str, Any]], rounds: int
):
    for figure in quick_run[1]["figures"]:
        samples = figure["samples"]
        assert len(samples["ours"]) >= rounds
        assert min(samples["ours"]) <= figure["ours"] <= max(samples["ours"])
        if figure["baseline"] is None:
            assert samples["baseline"] == []
            assert figure["compares"] == "value"
        else:
            assert len(samples["baseline"]) == len(samples["ours"])
            assert figure["ratio"] == pytest.approx(figure["ours"] / figure["baseline"])
            assert figure["difference"] == pytest.approx(figure["ours"] - figure["baseline"])
        informs = figure["name"] in FOR_INFORMATION
        assert (figure["to_reach"] is None) is informs
        assert (figure["reached"] is None) is informs


def test_one_benchmark_can_be_selected(bench: Any):
    finished = bench("--quick", "--rounds", "1", "--only", "waiting")
    assert finished.returncode == 0, finished.stderr
    rows = finished.stdout.splitlines()[5:]
    assert [row.split("  ")[0] for row in rows] == ["submit one, wait for it, 1,000 times, concurrent, each"]


def test_the_list_names_every_benchmark(bench: Any):
    finished = bench("--list")
    assert finished.returncode == 0, finished.stderr
    assert [line.split()[0] for line in finished.stdout.splitlines()] == NAMES


def test_an_unknown_benchmark_is_a_usage_error_that_names_those_that_exist(bench: Any):
    finished = bench("--only", "sequentail")
    assert finished.returncode == 2
    assert "sequentail" in finished.stderr
    for name in NAMES:
        assert name in finished.stderr


def test_a_benchmark_that_raises_is_told_and_the_others_are_measured(run: Any):
    finished = run("-c", f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{BROKEN}")
    assert finished.returncode == 1
    assert "sequential raised ValueError: no such luck" in finished.stdout
    assert "submit one, wait for it" in finished.stdout
    assert "Traceback" in finished.stderr
