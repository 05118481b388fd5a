"""The runs inside a flow run, subflows included, as rows for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.states import State


class RunRow(NamedTuple):
    """One task run or subflow run."""

    run: Any
    depth: int
    """How many subflows it is in."""
    is_flow: bool

    @property
    def state(self) -> State:
        """The state of the run."""
        state: State = self.run.state
        return state

    @property
    def seconds(self) -> float | None:
        """How long it ran; None if it did not start, or did not end."""
        start, end = self.run.start_time, self.run.end_time
        return None if start is None or end is None else max(end - start, 0.0)

    @property
    def failed(self) -> bool:
        """Whether it failed or crashed of itself."""
        return self.state.is_failed() or self.state.is_crashed()


def rows_of(flow_run: Any, depth: int = 0) -> Iterator[RunRow]:
    """Give all runs inside a flow run, in the order of submission, each subflow's runs behind it."""
    for run in list(flow_run.runs):
        is_flow = hasattr(run, "runs")
        yield RunRow(run, depth, is_flow)
        if is_flow:
            yield from rows_of(run, depth + 1)


def task_run_count(flow_run: Any) -> int:
    """Count the task runs inside a flow run, those of subflows included."""
    return sum(task_run_count(run) if hasattr(run, "runs") else 1 for run in list(flow_run.runs))
