"""Questions to the nodes of a cluster, asked by a task on each of them.

Their functions travel with their code: a node may have nothing of Riverrun installed, and this is how that is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

if TYPE_CHECKING:
    from riverrun.workers import Deadline

WITNESS = 5.0
"""Seconds for an answer about a call that was lost."""


class Answer(NamedTuple):
    """What a node says about itself.

    Args:
        environment: its `riverrun.workers.Environment`, or the exception that came instead.
        may_grow: whether an autoscaler watches over the cluster.
    """

    environment: Any
    may_grow: bool = False


class Questions:
    """Asks nodes.

    The function that runs on them is exported when the first question is asked, at the start of a flow run. Exporting
    asks the head, and the questions that come later are asked because something was lost: the head, perhaps.
    """

    def __init__(self) -> None:
        import ray

        self._ray = ray
        # A worker may be ending as it is asked, because of the flow run before this one: Ray asks another then.
        self._function = ray.remote(num_cpus=0, max_retries=3)(_answer)

    def introduced(self, nodes: list[dict[str, Any]], deadline: Deadline) -> dict[str, Answer]:
        """Ask all nodes what they have; one that does not answer in time is left out.

        Args:
            nodes: as `_head.nodes` gives them.
            deadline: until when.
        """
        ray = self._ray
        asked = self._on_each(nodes, "introduce", ("ray", "runner-ray"))
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=max(deadline.left, 0.1), fetch_local=False)
        found: dict[str, Answer] = {}
        for who, reference in asked.items():
            try:
                packed, may_grow = ray.get(reference, timeout=0)
                found[who] = Answer(cloudpickle.loads(packed), may_grow)
            except ray.exceptions.GetTimeoutError:
                continue
            except Exception as error:  # noqa: BLE001 - it could not run there: that is its answer
                found[who] = Answer(error)
        return found

    def witnesses(self, nodes: list[dict[str, Any]], key: str) -> tuple[dict[str, Any] | None, bool]:
        """Ask nodes for the worker that began a call.

        Args:
            nodes: as `_head.nodes` gives them.
            key: the call's.

        Returns:
            What `_notes.find` gives on one of them; and whether all have answered.
        """
        answers = self._answers(nodes, "find", key)
        return next((dict(seen) for seen in answers if seen is not None), None), len(answers) == len(nodes)

    def started(self, nodes: list[dict[str, Any]], keys: list[str]) -> set[str]:
        """Ask nodes which of some calls have begun there.

        Args:
            nodes: as `_head.nodes` gives them.
            keys: the calls'.

        Returns:
            The keys of those that have; all of them if a node does not answer.
        """
        answers = self._answers(nodes, "started", keys)
        return set().union(*answers) if len(answers) == len(nodes) else set(keys)

    def _answers(self, nodes: list[dict[str, Any]], question: str, argument: Any) -> list[Any]:
        asked = list(self._on_each(nodes, question, argument).values())
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=WITNESS, fetch_local=False)
        answers = []
        for reference in ready:
            try:
                answers.append(self._ray.get(reference, timeout=1))
            except Exception:  # noqa: BLE001, S112 - a node that cannot tell is no witness
                continue
        return answers

    def end_workers(self, nodes: list[dict[str, Any]], keys: list[str]) -> None:
        """End the workers that are running some calls, and wait for that; not for long.

        Args:
            nodes: as `_head.nodes` gives them.
            keys: the calls'.
        """
        asked = list(self._on_each(nodes, "end_workers", keys).values())
        self._ray.wait(asked, num_returns=len(asked), timeout=WITNESS, fetch_local=False)

    def _on_each(self, nodes: list[dict[str, Any]], question: str, argument: Any) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}:{node['NodeManagerPort']})": (
                self._function.options(
                    name=f"riverrun-{question}",
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                ).remote(question, argument)
            )
            for node in nodes
            if node["Alive"]
        }


def _by_value(function: Any) -> Any:
    """Let a function travel with its code: cloudpickle does that with all that `__main__` defines."""
    function.__module__ = "__main__"
    return function


@_by_value
def _introduce(packages: tuple[str, ...]) -> tuple[bytes, bool]:
    """Tell what this process has; without this package, and perhaps without Riverrun."""
    import json
    import pickle

    may_grow = False
    try:
        from ray.experimental.internal_kv import _internal_kv_get  # noqa: PLC2701 - all that it has is named so

        status = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
        kinds = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
        # Without an autoscaler, Ray gives each node a kind of its own.
        may_grow = any(not kind.startswith("node_") for kind in kinds)
    except Exception:  # noqa: BLE001, S110 - then there is none, as far as can be seen
        pass
    try:
        from riverrun.workers import environment

        return pickle.dumps(environment(packages)), may_grow
    except Exception as error:  # noqa: BLE001 - it travels
        return pickle.dumps(error), may_grow


@_by_value
def _find(key: str) -> Any:
    from runner_ray import _notes

    return _notes.find(key, _notes.folder())


@_by_value
def _started(keys: list[str]) -> set[str]:
    from runner_ray import _notes

    return _notes.started(keys, _notes.folder())


@_by_value
def _end_workers(keys: list[str]) -> None:
    import os
    import signal
    from contextlib import suppress

    from runner_ray import _notes

    for pid in _notes.running(keys, _notes.folder()):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


_QUESTIONS = {"introduce": _introduce, "find": _find, "started": _started, "end_workers": _end_workers}


@_by_value
def _answer(question: str, argument: Any) -> Any:
    return _QUESTIONS[question](argument)
