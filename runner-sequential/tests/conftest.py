"""Scripts in processes of their own, which have a main thread that can be interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from textwrap import dedent
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
