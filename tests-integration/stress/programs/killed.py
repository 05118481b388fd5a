"""A flow of a random graph, whose workers are killed: it writes down what it was, and what became of each run.

Every execution of a task adds a line to the file `executions`: the number of the task, its process, and its arguments.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import under_watch
from riverrun import flow, task

LARGE = 20_000
"""Bytes; such a value does not come along with the news that its run has ended: it is where it was made."""


class Planned(Exception):
    pass


def drawn_graph(rng: Any) -> list[dict[str, Any]]:
    """Draw tasks, each with the numbers of those before whose values it takes: none, one (a chain) or many (a fan)."""
    graph: list[dict[str, Any]] = []
    for number in range(rng.randint(20, 60)):
        shape = rng.choice(["alone", "chain", "chain", "fan"]) if number else "alone"
        takes = {"alone": 0, "chain": 1, "fan": rng.randint(2, 5)}[shape]
        kind = rng.choices(["good", "flaky", "bad"], [85, 10, 5])[0]
        graph.append({
            "number": number,
            "takes": rng.sample(range(number), min(takes, number)),
            "kind": kind,
            "fails": {"good": 0, "flaky": rng.randint(1, 2), "bad": 1_000}[kind],
            "retries": {"good": 0, "flaky": 2, "bad": rng.randint(0, 1)}[kind],
            "seconds": round(rng.choice([0.0, 0.02, 0.1, 0.3]), 3),
            "is_large": rng.random() < 0.3,
        })  # fmt: skip
    return graph


def main() -> None:
    rng = under_watch.lots()
    graph = drawn_graph(rng)
    mapped = rng.randint(0, 20)
    max_worker_losses = rng.choice([0, 2, 2, 2, 6])
    under_watch.write("plan", {"graph": graph, "mapped": mapped, "max_worker_losses": max_worker_losses})
    executions = str(under_watch.FOLDER / "executions")

    def noted(number: int, values: list[int]) -> int:
        """Add a line, in one piece; say how many of this task there are."""
        line = json.dumps([number, os.getpid(), values])
        with open(executions, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{line}\n")
        with open(executions) as file:  # noqa: PTH123
            return sum(json.loads(line)[0] == number for line in file)

    @task
    def node(what: dict[str, Any], values: list[tuple[int, bytes]]) -> tuple[int, bytes]:
        numbers = [value for value, _ in values]
        count = noted(what["number"], numbers)
        time.sleep(what["seconds"])
        if count <= what["fails"]:
            raise Planned("planned")
        return what["number"] + sum(numbers), b"x" * (LARGE if what["is_large"] else 0)

    @task
    def each(number: int) -> int:
        noted(1_000 + number, [])
        time.sleep(0.02)
        return number * number

    @flow(task_runner=under_watch.made_runner(max_worker_losses=max_worker_losses))
    def graph_of_tasks() -> str:
        under_watch.mark("body")
        futures: list[Any] = []
        for what in graph:
            call = node.with_options(retries=what["retries"], retry_delay_seconds=0.05)
            futures.append(call(what, [futures[number] for number in what["takes"]]))
        squares = list(each.map(range(mapped))) if mapped else []
        became = [ending(future) for future in [*futures, *squares]]
        for future, ended in zip([*futures, *squares], became, strict=True):
            ended["run_count"] = future.task_run.run_count  # a value that was lost since was made again for another run
        under_watch.mark("body-over")
        under_watch.write("became", became)
        return "ended"

    graph_of_tasks()
    under_watch.mark("ended")


def ending(future: Any) -> dict[str, Any]:
    """Wait for a run; say what has become of it, in plain data."""
    state = future.wait()
    ended: dict[str, Any] = {"name": state.name, "message": state.message, "is_final": state.is_final()}
    if state.is_completed():
        try:
            value = future.result()
        except Exception as error:  # noqa: BLE001 - the value may be lost with a worker
            ended |= {"lost": type(error).__name__, "why": str(error)}
        else:
            ended["value"] = [value[0], len(value[1])] if isinstance(value, tuple) else value
    ended["error"] = type(future.result(raise_on_failure=False)).__name__ if not state.is_completed() else None
    return ended


if __name__ == "__main__":
    main()
    sys.exit(0)
