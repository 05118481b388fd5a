"""Memory that a flow keeps and memory that it needs, each sample taken in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from figures import THREADS, Figure
from timing import python

if TYPE_CHECKING:
    from collections.abc import Mapping

    from figures import Sizes

HERE = Path(__file__).parent
SCRIPT = HERE / "fresh_process.py"
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Has glibc return every large block to the system when it is freed, instead of keeping some for each thread."""


def _measured(arguments: list[str], environment: Mapping[str, str] | None = None) -> float:
    return float(python(str(SCRIPT), *arguments, folder=HERE, environment=environment))


def kept(sizes: Sizes) -> list[Figure]:
    """What the flow's process keeps of each finished task run, besides the value."""
    count = sizes.kept
    what = f"memory kept of each finished task run, {count:,} of them"
    return [
        Figure(
            f"kept-{runner}",
            f"{what}, {runner}",
            "bytes",
            [_measured(["kept", str(count), runner]) for _ in range(sizes.rounds)],
            [],
            "value",
            400.0,
        )
        for runner in ("sequential", "concurrent")
    ]


def values(sizes: Sizes) -> list[Figure]:
    """The peak of a flow that consumes values of 10 MB one by one; beside the standard pool."""
    what = f"peak, {sizes.values:,} values of 10 MB consumed one by one, concurrent"
    limit = (THREADS + 4) * 10.0
    window, raw_window = _beside_the_pool("window", sizes)
    freed, raw_freed = _beside_the_pool("window", sizes, GIVE_BACK)
    in_turn, raw_in_turn = _beside_the_pool("in-turn", sizes)
    way = f"{what}, {THREADS} futures at a time"
    same = "  the same, freed blocks given back at once"
    return [
        Figure("values-window", way, "MB", window, raw_window, "value", limit, strictly=True),
        Figure("values-window-given-back", same, "MB", freed, raw_freed, "value"),
        Figure(
            "values-in-turn", f"{what}, `make(i).result()`", "MB", in_turn, raw_in_turn, "value", limit, strictly=True
        ),
    ]


def _beside_the_pool(
    way: str, sizes: Sizes, environment: Mapping[str, str] | None = None
) -> tuple[list[float], list[float]]:
    arguments = [str(sizes.values), way, str(THREADS)]
    pairs = [
        (_measured(["values", *arguments], environment), _measured(["raw-values", *arguments], environment))
        for _ in range(sizes.rounds)
    ]
    return [ours for ours, _ in pairs], [raw for _, raw in pairs]
