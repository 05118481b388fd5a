"""Workers that are killed at any moment of a flow of a random graph: it ends, and everything in it is as it must be."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.stress,
    pytest.mark.timeout(1800),  # what is waited for has limits of its own
    pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL"),
]

LARGE = 20_000
"""Bytes of a large value, as the program makes them."""
MAPPED = 1_000
"""The number of the first element of the map among the executions."""


# -- the judge


def expected_values(graph: Any) -> list[int | None]:
    """Compute in plain Python what each task gives; None: nothing."""
    values: list[int | None] = []
    for what in graph:
        taken = [values[number] for number in what["takes"]]
        values.append(None if None in taken or what["kind"] == "bad" else what["number"] + sum(taken))
    return values


class Judge:
    """Says what is not as it must be."""

    def __init__(self, plan: Any, became: Any, executions: Any, hits: int) -> None:
        self.graph = plan["graph"]
        self.became = became
        self.executions = executions
        self.hits = hits
        self.may_be_lost = hits > plan["max_worker_losses"]
        """Of one worker that is killed, a run loses one attempt at most."""
        self.values = expected_values(self.graph)
        self.counts = Counter(number for number, _, _ in executions)

    def faults(self) -> list[str]:
        found = []
        for what in self.graph:
            ended, count = self.became[what["number"]], self.counts[what["number"]]
            upstreams = {self.became[upstream]["name"] for upstream in what["takes"]}
            said = f"{what} became {ended}, executed {count} times, upstreams {upstreams}"
            wrong = [*self.of_states(what, ended, upstreams), *self.of_executions(what, ended, count)]
            found += [f"{fault}: {said}" for fault in wrong]
        for number, ended in enumerate(self.became[len(self.graph) :]):
            count = self.counts[MAPPED + number]
            is_right = ended["name"] == "Completed" and ended.get("value") == number * number
            is_lost = self.may_be_lost and "WorkerLost" in {ended["error"], ended.get("lost")}
            if not (is_right or is_lost) or count > ended["run_count"]:
                found.append(f"element {number} of the map became {ended}, executed {count} times")
        return found

    def of_states(self, what: Any, ended: Any, upstreams: set[str]) -> Iterator[str]:
        """Look at the state and the value."""
        allowed = {"Failed" if what["kind"] == "bad" else "Completed"}
        if upstreams - {"Completed"}:
            allowed = {"NotReady"}
        if self.may_be_lost:
            # A retry that a loss has used up is missing where the task fails.
            allowed |= {"Crashed", "NotReady", *(["Failed"] if what["kind"] == "flaky" else [])}
        if not ended["is_final"] or ended["name"] not in allowed:
            yield f"not one of {sorted(allowed)}"
        if ended["name"] == "Crashed" and ended["error"] != "WorkerLost":
            yield "crashed for another reason"
        value = [self.values[what["number"]], LARGE * what["is_large"]]
        is_lost = self.may_be_lost and ended.get("lost") == "WorkerLost"
        if ended["name"] == "Completed" and ended.get("value") != value and not is_lost:
            yield f"its value is not {value}"

    def of_executions(self, what: Any, ended: Any, count: int) -> Iterator[str]:
        """Look at how often it was executed, and with what."""
        if count > ended["run_count"]:
            yield "executed more often than its attempts say"
        if ended["name"] in {"Completed", "Failed"} and not count:
            yield "never executed"
        if ended["run_count"] > 1 + what["retries"] + self.hits:
            yield "it has more attempts than retries and losses allow"
        taken = [self.values[upstream] for upstream in what["takes"]]
        for number, _, given in self.executions:
            if number == what["number"] and given != taken:
                yield f"executed with {given} in place of {taken}"


@pytest.mark.parametrize("runner", ["dask-processes", "dask-address", "ray"])
def test_workers_killed_at_any_moment_leave_every_run_with_its_value_or_the_reason(  # noqa: PLR0917 - fixtures
    start_program: Any, request: pytest.FixtureRequest, workers_of: Any, rng: random.Random, seed: int, runner: str
):
    address = request.getfixturevalue("dask_address") if runner == "dask-address" else None
    moments = sorted(rng.uniform(0, 6) for _ in range(rng.randint(1, 4)))
    program = start_program("killed", runner, seed, *(address[:1] if address else ()))
    program.signals.append(f"planned: SIGKILL to a worker {', '.join(f'{at:.3f}' for at in moments)} s after 'body'")
    hits = 0
    waited = 0.0
    for at in moments:
        if not program.wait_for("body", at - waited) or program.has("body-over"):
            break
        waited = at
        workers = workers_of(address[1] if address else program.process.pid)
        if workers:
            victim = rng.choice(sorted(workers, key=lambda process: process.pid))
            hits += 1
            program.signals.append(f"SIGKILL to {victim.pid} ({victim.name()}) at {time.time() - program.began:.3f} s")
            victim.kill()
    status = program.end()
    program.check(status == 0, f"status {status}")
    became = program.wrote("became")
    noted = program.folder / "executions"  # not there if none began: all were lost before
    executions = [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []
    found = Judge(program.wrote("plan"), became, executions, hits).faults()
    program.check(
        not found, "\n".join([f"{len(found)} faults after {hits} kills:", *found, f"executions: {executions}"])
    )
    program.check(not (left := program.left()), f"left behind: {left}")
