"""The figures as a plain text table and as JSON."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from figures import THREADS

if TYPE_CHECKING:
    from figures import Figure, Sizes

HEAD = ["what", "ours", "baseline", "compared", "to reach", "reached"]
NONE = "-"


def machine() -> dict[str, Any]:
    """Say where and when the figures were taken."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": THREADS,
    }


def as_text(figures: list[Figure], errors: dict[str, str], sizes: Sizes) -> str:
    """Give the table, with what was measured above it and what raised below."""
    here = machine()
    head = (
        f"Riverrun beside raw baselines: Python {here['python']}, {here['cores']} cores, {THREADS} threads, "
        f"{here['date']}; medians of {sizes.rounds} (processes: {sizes.process_rounds}), log level WARNING"
    )
    lines = [head]
    if sizes.quick:
        lines.append("QUICK: small counts and few rounds. These figures show that the benchmarks work, no more.")
    lines += ["", *_table([HEAD, *map(_row, figures)])]
    lines += [f"{name} raised {error}" for name, error in errors.items()]
    return "\n".join(lines)


def as_json(figures: list[Figure], errors: dict[str, str], sizes: Sizes) -> str:
    """Give the same for a program, with every sample."""
    rows = [
        {
            "name": figure.name,
            "what": figure.what.strip(),
            "unit": figure.unit,
            "ours": figure.our_median,
            "baseline": figure.baseline_median,
            "ratio": figure.ratio,
            "difference": figure.difference,
            "compares": figure.compares,
            "to_reach": figure.limit,
            "reached": figure.reached,
            "samples": {"ours": figure.ours, "baseline": figure.baseline},
        }
        for figure in figures
    ]
    taken = {"quick": sizes.quick, "rounds": sizes.rounds, "process_rounds": sizes.process_rounds}
    return json.dumps({**machine(), **taken, "figures": rows, "errors": errors}, indent=2) + "\n"


def _row(figure: Figure) -> list[str]:
    reached = {None: NONE, True: "yes", False: "NO"}[figure.reached]
    return [
        figure.what,
        _number(figure.our_median, figure.unit),
        _number(figure.baseline_median, figure.unit),
        _compared(figure),
        _to_reach(figure),
        reached,
    ]


def _compared(figure: Figure) -> str:
    if figure.compares == "difference":
        return _number(figure.difference, figure.unit, sign="+")
    return _number(figure.ratio, "x")


def _to_reach(figure: Figure) -> str:
    if figure.limit is None:
        return NONE
    unit = "x" if figure.compares == "ratio" else figure.unit
    sign = "+" if figure.compares == "difference" else ""
    return f"{'<' if figure.strictly else '<='} {sign}{figure.limit:g} {unit}"


def _number(value: float | None, unit: str, sign: str = "") -> str:
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:{sign},.{digits}f} {unit}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = [
            (cell.ljust if index in {0, 4, 5} else cell.rjust)(widths[index]) for index, cell in enumerate(row)
        ]
        lines.append("  ".join([first, *others]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines
