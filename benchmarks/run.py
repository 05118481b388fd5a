"""Measures Riverrun beside raw baselines, and prints a table: `python benchmarks/run.py` (or `nox -s bench`).

::

    run.py        what the user types: which benchmarks, how large; the table, the JSON
      catalogue   the benchmarks by name
        threads, memory, processes, crowded, ...    one module for each kind of measurement
          timing, fresh_process                     how a time, and how a process's memory, is taken
          figures                                   what a measurement becomes; how many of everything

It is a report, no test: the exit status is 0 where a figure is not reached, and 1 where a benchmark raised.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from figures import FULL, QUICK

if TYPE_CHECKING:
    from collections.abc import Collection

    from figures import Figure


def settle() -> None:
    """Put the settings of whoever runs this aside, before Riverrun is imported and reads them.

    All figures are for the log level WARNING: one line of a log costs more than a no-op task.
    """
    for name in [name for name in os.environ if name.startswith("RIVERRUN_")]:
        del os.environ[name]
    os.environ["RIVERRUN_LOG_LEVEL"] = "WARNING"


def arguments(names: Collection[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Riverrun, each figure beside its raw baseline.")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help="only this benchmark (repeatable)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller counts, fewer rounds: to see that all works")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each contender runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with every sample, to this file")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return options


def main() -> int:
    """Run what was asked for; give the exit status."""
    settle()
    import report
    from catalogue import BENCHMARKS

    options = arguments(BENCHMARKS)
    if options.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:<16}{(benchmark.__doc__ or '').splitlines()[0]}")
        return 0
    sizes = QUICK if options.quick else FULL
    if options.rounds is not None:
        sizes = sizes.with_rounds(options.rounds)
    figures: list[Figure] = []
    errors: dict[str, str] = {}
    for name in options.only or BENCHMARKS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            figures += BENCHMARKS[name](sizes)
        except Exception as error:  # noqa: BLE001 - the others are measured all the same
            traceback.print_exc()
            errors[name] = f"{type(error).__name__}: {error}"
    print(report.as_text(figures, errors, sizes))
    if options.json is not None:
        options.json.write_text(report.as_json(figures, errors, sizes), encoding="utf-8")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
