"""What the tests of all packages share: examples in Markdown pages, seeds, and a list of what failed.

Python examples in Markdown pages are tests: the session `docs` collects them. A test that draws lots asks for `seed`
or `rng`; the seed is in its name, so that what is printed of a failure brings it back.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"]).pytest()

FAILURES = "TESTS_THAT_FAILED"
"""The environment variable with the file to which the names of failed tests are added, one JSON line for each."""
SEED = "TESTS_SEED"
"""The environment variable with the first seed: pytest-xdist's processes have to agree on it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests that draw lots."""
    group = parser.getgroup("lots", "tests that draw lots")
    group.addoption("--seed", type=int, metavar="N", help="the first seed (default: another one each time)")
    group.addoption("--tries", type=int, default=1, metavar="N", help="how many seeds each such test gets (default: 1)")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the first seed, once for all processes that share the tests; keep a list of what fails."""
    if config.option.seed is None:
        config.option.seed = int(os.environ.setdefault(SEED, str(secrets.randbelow(1_000_000))))
    if (file := os.environ.get(FAILURES)) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(Path(file)))


class _Failures:
    """Adds what failed to the list from which nox makes the end of its output."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(report.nodeid)

    def _add(self, test: str) -> None:
        line = json.dumps({"session": os.environ.get("NOX_CURRENT_SESSION", ""), "test": test})
        with self._file.open("a", encoding="utf-8") as failures:  # at once: pytest itself may be ended
            failures.write(f"{line}\n")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that draws lots once for each seed."""
    if "seed" in metafunc.fixturenames:
        first, tries = metafunc.config.option.seed, metafunc.config.option.tries
        metafunc.parametrize("seed", range(first, first + tries), ids=lambda seed: f"seed={seed}")


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Give a source of random numbers that the seed in the name of the test brings back."""
    return random.Random(seed)  # noqa: S311 - it draws lots
