"""How a time is taken: contenders in turn, A B A B, so that a machine that slows down slows down both."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LIMIT = 600
"""How long a process may take, in seconds: one that hangs is an error, not a long figure."""


def seconds(run: Callable[[], object]) -> float:
    """Time one run; what the one before left to the garbage collector is collected first, not during."""
    gc.collect()
    start = perf_counter()
    run()
    return perf_counter() - start


def in_turn(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each contender once a round, in seconds; one more round before, which is not counted, warms them up.

    One round alone is there to show that it works, and has nothing before it.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    if rounds > 1:
        for run in contenders.values():
            run()
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(seconds(run))
    return times


def each(times: Sequence[float], count: int) -> list[float]:
    """Turn the seconds of whole runs into microseconds for each of `count`."""
    return [time / count * 1e6 for time in times]


def python(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, executable: str = sys.executable
) -> str:
    """Run a Python, this one by default, in a process of its own, to its end; give what it printed."""
    finished = subprocess.run(
        [executable, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if finished.returncode:
        msg = f"`python {' '.join(arguments)}` ended with status {finished.returncode}:\n{finished.stderr}"
        raise RuntimeError(msg)
    return finished.stdout
