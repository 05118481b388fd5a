"""Tasks that run until they are released, and scripts in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from textwrap import dedent
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LIMIT = 30
"""How long anything may take before it counts as a hang, in seconds."""
NOT_YET = 0.2
"""How long to look whether something happens that must not happen, in seconds."""


class Held:
    """Tasks that run until they are released, and how many of them have started."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self) -> str:
        self.started.release()
        assert self.release.wait(LIMIT)
        return "released"

    def wait_for(self, count: int):
        for _ in range(count):
            assert self.started.acquire(timeout=LIMIT)

    def one_more_starts(self):
        return self.started.acquire(timeout=NOT_YET)


@pytest.fixture
def held():
    held = Held()
    yield held
    held.release.set()


class StartScript(Protocol):
    def __call__(self, source: str) -> subprocess.Popen[str]: ...


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[StartScript]:
    """Start a Python script; whatever it has started is gone after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(source: str) -> subprocess.Popen[str]:
        file = tmp_path / "script.py"
        file.write_text(dedent(source))
        process = subprocess.Popen(
            [sys.executable, str(file)],
            env={**os.environ, "RIVERRUN_LOG_LEVEL": "WARNING"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
