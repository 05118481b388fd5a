"""Past flow runs: one line of JSON for each, in a folder that the user has named. Without that, nothing is written.

A line has names, times and counts: no parameter, no result and no message, because each of these may hold a secret.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from riverrun import _settings
from riverrun._run_rows import task_run_count
from riverrun._tables import duration, table

if TYPE_CHECKING:
    from riverrun._flow_runs import FlowRun
    from riverrun.abc import TaskRunner

NO_HISTORY = (
    "No history is kept: `riverrun run` writes one only where you name a folder for it.\n"
    'Type `export RIVERRUN_HOME=~/.riverrun`, or write `home = ".riverrun"` below [tool.riverrun] in pyproject.toml.'
)
_HEADER = ("name", "flow", "state", "runner", "started", "duration", "task runs")


def folder() -> str | None:
    """Give the folder where the history is kept; None where the user has named none."""
    settings = _settings.load()
    return settings.home if "home" in settings.sources else None


def append(home: str, flow_run: FlowRun, runner: TaskRunner) -> None:
    """Add a flow run that has ended.

    Raises:
        OSError: the file cannot be written.
    """
    record = {
        "id": flow_run.id,
        "name": flow_run.name,
        "flow": flow_run.flow_name,
        "state": flow_run.state.name,
        "type": flow_run.state.type.value,
        "runner": type(runner).__name__,
        "start": flow_run.start_time,
        "end": flow_run.end_time or time.time(),
        "task_runs": task_run_count(flow_run),
    }
    os.makedirs(home, mode=0o700, exist_ok=True)
    # One `write` to a file opened for appending: the lines of processes that end at once do not mix.
    handle = os.open(_path(home), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "rb+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        cut_short = file.read(1) not in (b"", b"\n")  # a full disk, say: that line is lost, not this one too
        file.write(b"\n" * cut_short + json.dumps(record).encode() + b"\n")


def listing(home: str, count: int) -> tuple[str, str]:
    """Give the last flow runs as a table, and a note about lines that could not be read (or an empty text)."""
    rows, bad = _rows(home, count)
    note = (
        f"{bad} line{'s' if bad > 1 else ''} of {_path(home)} cannot be read and {'are' if bad > 1 else 'is'} left out."
        if bad
        else ""
    )
    if not rows:
        return f"No flow run is recorded in {_path(home)} yet.", note
    return table(_HEADER, rows), note


def _path(home: str) -> str:
    return os.path.join(home, "runs.jsonl")


def _rows(home: str, count: int) -> tuple[list[tuple[str, ...]], int]:
    """Give the newest `count` runs, the newest first, and how many lines cannot be read."""
    rows: deque[tuple[str, ...]] = deque(maxlen=count)
    bad = 0
    try:
        with open(_path(home), "rb") as file:
            for line in file:
                row = _row(line)
                if row is not None:
                    rows.append(row)
                elif line.strip():
                    bad += 1
    except FileNotFoundError:
        pass
    return [*reversed(rows)], bad


def _row(line: bytes) -> tuple[str, ...] | None:
    try:
        record: dict[str, Any] = json.loads(line)
        names = [record[key] for key in ("name", "flow", "state", "runner")]
        if not all(isinstance(name, str) for name in names):
            return None
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["start"]))
        return (*names, started, duration(record["end"] - record["start"]), str(int(record["task_runs"])))
    except (ValueError, TypeError, KeyError, OverflowError, OSError):  # a line cut short, or by another program
        return None
