"""The nodes of the cluster: who is there, with what, and whether they can run the flow's tasks."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError

from runner_ray import _head, _notes, _wanted
from runner_ray._introduction import Questions
from runner_ray._start_errors import capital

if TYPE_CHECKING:
    from collections.abc import Mapping

    from riverrun.workers import Parcel

    from runner_ray._runner import RayTaskRunner
    from runner_ray._sending import Value
    from runner_ray._sessions import Session

logger = logging.getLogger("riverrun.task_runners.ray")
LOOK_EVERY = 0.2
"""Seconds between two looks for a node with a CPU."""
FRESH = 5.0
"""Seconds for which what is known about the nodes is not asked for again."""


class Guests:
    """The nodes of the cluster.

    Args:
        runner: the options.
        session: the session of Ray.
    """

    def __init__(self, runner: RayTaskRunner, session: Session) -> None:
        self._runner = runner
        self._session = session
        self._questions = Questions()
        self._nodes: list[dict[str, Any]] = []
        self._since = 0.0
        self._satisfied: set[Any] = set()
        """What was asked for, and some node has."""
        self._warned: set[Any] = set()
        self._folder: str | None = None
        self.may_grow = False
        self.parcels: list[Parcel] = []

    def welcome(self) -> None:
        """See that there is a node that can run tasks.

        Raises:
            TaskRunnerStartError: there is none; the text says why not.
        """
        from riverrun import workers

        if self._runner.ship:
            self.parcels = workers.pack(self._runner.ship)
        if not self._session.is_client:
            self._folder = _notes.folder()
        if self._session.temporary and "runtime_env" not in (self._runner.init_kwargs or {}):
            self._refuse_no_cpu(workers.Deadline(1.0))
            return
        deadline = workers.Deadline(self._runner.start_timeout)
        answers = self._questions.introduced(self._first_nodes(deadline), deadline)
        self.may_grow = any(answer.may_grow for answer in answers.values())
        workers.check_environments(
            workers.environment(("ray", "runner-ray")),
            {who: answer.environment for who, answer in answers.items()},
            runner="RayTaskRunner",
            where=self._session.where,
            log=logger,
            required=("runner-ray",),
        )
        self._refuse_no_cpu(deadline)

    def _first_nodes(self, deadline: Any) -> list[dict[str, Any]]:
        """Wait until the head has said which nodes there are.

        Raises:
            TaskRunnerStartError: it has not by then.
        """
        while not (nodes := self.nodes(fresh=True)):
            if not deadline.left:
                raise TaskRunnerStartError(
                    f"{capital(self._session.where)} did not say within "
                    f"{deadline.seconds:g} s which nodes it has: its head is busy, or gone. See with `ray status` "
                    "whether it answers, or allow more time with start_timeout=SECONDS."
                )
            time.sleep(LOOK_EVERY)
        return nodes

    def _refuse_no_cpu(self, deadline: Any) -> None:
        """Wait until a node has a CPU.

        Raises:
            TaskRunnerStartError: none has by then.
        """
        while not _wanted.fits({"CPU": 1.0}, self.nodes(fresh=True)):
            if self.may_grow:
                logger.warning("%s has no CPU yet: tasks wait until it gets a node that has.", self._session.where)
                return
            if not deadline.left:
                alive = [node for node in self._nodes if node["Alive"]]
                raise TaskRunnerStartError(
                    f"{capital(self._session.where)} has {len(alive)} "
                    f"node{'' if len(alive) == 1 else 's'} and no CPU: no task could run. Start a node that has one "
                    "(`ray start --address=... --num-cpus=2`), or see to it that `num_cpus` is not 0."
                )
            time.sleep(LOOK_EVERY)

    def nodes(self, *, fresh: bool = False) -> list[dict[str, Any]]:
        """Give the nodes, as `_head.nodes` does; as they were, if the head does not answer.

        Args:
            fresh: whether Ray is asked anew in any case.
        """
        if (fresh or time.monotonic() - self._since > FRESH) and self._session.is_reachable:
            with suppress(Exception):
                self._nodes = _head.nodes()
                self._since = time.monotonic()
        return self._nodes

    def _alive(self) -> list[dict[str, Any]]:
        """Give the nodes that can be asked something now: none, if the head does not answer."""
        return [node for node in self.nodes(fresh=True) if node["Alive"]] if self._session.is_reachable else []

    def refuse_unmet(self, name: str, needs: dict[str, float], options: Mapping[str, Any]) -> None:
        """Say at once what would wait for ever.

        Args:
            name: of the task run.
            needs: what it needs of a node.
            options: its options.

        Raises:
            TaskRunnerOptionError: no node has it, and none is going to.
        """
        if options.get("scheduling_strategy") is not None and not isinstance(options["scheduling_strategy"], str):
            return  # a placement group has resources of its own; of a node that is gone, Ray tells
        if not self.may_grow and not options.get("fallback_strategy"):
            _wanted.refuse_labels(name, options.get("label_selector") or {}, self.nodes)
        asked = frozenset(needs.items())
        if asked in self._satisfied or asked in self._warned:
            return
        try:
            _wanted.refuse_unmet(name, needs, lambda: self.nodes(fresh=True), may_grow=self.may_grow)
        finally:
            (self._satisfied if _wanted.fits(needs, self._nodes) else self._warned if self.may_grow else set()).add(
                asked
            )

    def look_again(self) -> None:
        """Forget what the nodes could do: one of them is gone, perhaps."""
        self._satisfied.clear()

    def not_begun(self, values: list[Value]) -> list[Value]:
        """Give those of some calls that no worker of this machine has begun, as far as can be seen."""
        if self._folder is None:
            return values
        begun = _notes.begun(self._folder)
        return [value for value in values if value.key not in begun]

    def never_began(self, keys: list[str]) -> set[str]:
        """Give those of some calls of which it is certain that no worker has begun them, and that Ray has given up.

        Args:
            keys: the calls'.
        """
        if not keys:
            return set()
        begun: set[str] = set() if self._folder is None else _notes.started(keys, self._folder)
        left = [key for key in keys if key not in begun]
        others = self._others() if left else []
        if not others:
            return set(left if self._folder is not None else ())
        return set(left) - self._questions.started(others, left)

    def witness(self, key: str) -> tuple[dict[str, Any] | None, bool]:
        """Ask for the worker that began a call.

        Args:
            key: the call's.

        Returns:
            What `_notes.find` gives; None if no worker has begun it, as far as can be seen. And whether all were asked.
        """
        if self._folder is not None and (seen := _notes.find(key, self._folder)) is not None:
            return seen, True
        others = self._others()
        if not others:
            return None, self._folder is not None
        return self._questions.witnesses(others, key)

    def _others(self) -> list[dict[str, Any]]:
        """Give the nodes whose journals this process cannot read itself."""
        others = self._alive()
        if others and self._folder is not None:
            import ray

            mine = ray.get_runtime_context().get_node_id()
            here = next((node["NodeManagerAddress"] for node in others if node["NodeID"] == mine), None)
            others = [node for node in others if node["NodeManagerAddress"] != here]
        return others

    def end_workers(self, keys: list[str]) -> None:
        """End the workers that are running some calls, on whatever nodes they are.

        Args:
            keys: the calls'.
        """
        if nodes := self._alive():
            self._questions.end_workers(nodes, keys)

    def goodbye(self) -> None:
        """Forget the nodes: the flow run has ended."""
        self._nodes = []
