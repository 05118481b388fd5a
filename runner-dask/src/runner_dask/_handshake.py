"""The workers of the cluster: who is there, with what, and whether they can run the flow's tasks."""

from __future__ import annotations

import logging
import platform
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from riverrun.exceptions import TaskRunnerStartError

from runner_dask._annotations import Offer
from runner_dask._by_value import ByValue
from runner_dask._losses import Joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.workers import Deadline

    from runner_dask._clusters import Opened
    from runner_dask._runner import DaskTaskRunner

logger = logging.getLogger("riverrun.task_runners.dask")

ANSWERS: Final = 5.0
"""Seconds that the workers have at least to answer, also where all of `start_timeout` was taken by the way to them."""
AGAIN: Final = 0.05
"""Seconds until workers are asked again after one of them has died: by then the scheduler may know."""
INTRODUCTION: Final = 5.0
"""Seconds that workers may take to introduce themselves, once their plugin is there."""


class Guests:
    """The workers that have introduced themselves.

    Args:
        runner: the options.
        opened: the cluster.
    """

    def __init__(self, runner: DaskTaskRunner, opened: Opened) -> None:
        self._runner = runner
        self._opened = opened
        self._client = opened.client
        self._known: dict[str, Joined] = {}
        self._offers: dict[str, Offer] = {}
        self._environments: dict[str, Any] = {}
        self._errors: dict[str, str] = {}
        self._changed = threading.Condition()
        self._is_open = False

    def welcome(self) -> None:
        """Put our plugins on the scheduler and on the workers, and see that these can run tasks.

        Raises:
            TaskRunnerStartError: they cannot; the text says why not.
        """
        from riverrun import workers

        from runner_dask._presence import Presence
        from runner_dask._unheard import no_answer
        from runner_dask._watch import Watch

        parcels = workers.pack(self._runner.ship) if self._runner.ship else []

        def ask() -> Any:
            if not self._opened.temporary:
                self._check_pythons()
                self._check_scheduler()
            self._client.register_plugin(Watch(self._client.id))
            return self._introduced(Presence(self._client.id, parcels), deadline)

        deadline = self._opened.deadline
        try:  # Dask waits for ever for a worker that is stopped, or whose machine is
            there = workers.Call(ask, name="dask-welcome").result(max(deadline.left, ANSWERS))
        except workers.Overdue:
            raise TaskRunnerStartError(no_answer(self._client, set(self._known), deadline)) from None
        with self._changed:
            self._changed.wait_for(lambda: self._known.keys() >= (there or {}).keys(), INTRODUCTION)
            errors, environments = dict(self._errors), dict(self._environments)
            self._is_open = True
        for worker, error in errors.items():
            raise TaskRunnerStartError(_unable(f"worker {worker}", error))
        if not self._opened.temporary:
            self._compare(environments)

    def _introduced(self, presence: Any, deadline: Deadline) -> Any:
        """Put the plugin on all workers. One that dies as it is asked is none any more: the others are asked again."""
        from runner_dask._connections import wait_for_worker

        while True:
            if not self._opened.adaptive:
                wait_for_worker(self._client, deadline)
            try:
                return self._client.register_plugin(presence)
            except OSError as error:  # a connection broke
                if not deadline.left:
                    raise TaskRunnerStartError(
                        f"The Dask cluster at {self._client.scheduler.address} lost a worker while the flow run "
                        f"started ({error}), and its others did not answer within {deadline.seconds:g} s. Try again, "
                        "or allow more time with start_timeout=SECONDS."
                    ) from error
            time.sleep(AGAIN)

    def _check_pythons(self) -> None:
        """Compare the versions of Python before anything is sent: a process with another one may not survive that."""
        versions = self._client.get_versions()
        address = self._client.scheduler.address
        there = {f"scheduler {address}": versions["scheduler"]}
        there.update((f"worker {worker}", found) for worker, found in versions["workers"].items())
        mine = ".".join(platform.python_version_tuple()[:2])
        for who, found in there.items():
            theirs = str(dict((found or {}).get("host", ())).get("python", mine))
            if ".".join(theirs.split(".")[:2]) != mine:
                version = ".".join(theirs.split(".")[:3])
                raise TaskRunnerStartError(
                    f"The Dask {who} cannot run the tasks of this flow: it has Python {version}, and this process "
                    f"has Python {platform.python_version()}. Functions travel as byte code, so all need the same "
                    f"minor version: use Python {mine} there."
                )

    def _check_scheduler(self) -> None:
        """Dask's scheduler reads what is sent to it, so it needs the same packages as the workers."""
        error = self._client.run_on_scheduler(Look())
        if error:
            raise TaskRunnerStartError(_unable(f"scheduler {self._client.scheduler.address}", error))

    def _compare(self, environments: dict[str, Any]) -> None:
        from riverrun import workers

        address = self._client.scheduler.address
        workers.check_environments(
            workers.environment(("dask", "distributed")),
            environments,
            runner="DaskTaskRunner",
            where=f"the Dask cluster at {address}",
            log=logger,
        )

    def goodbye(self, *, workers: bool) -> None:
        """Take our plugins off the cluster.

        Args:
            workers: whether there are workers.
        """
        from runner_dask._forget import forget

        forget(self._client, workers=workers)

    def joined(self, event: dict[str, Any]) -> None:
        """Take a worker's introduction."""
        address = event["worker"]
        with self._changed:
            self._known[address] = Joined.of(event)
            resources = {name: float(amount) for name, amount in event["resources"].items()}
            self._offers[address] = Offer(
                address, event["threads"], event["memory_limit"], resources, event["name"], event["host"]
            )
            if event["error"]:
                self._errors[address] = event["error"]
            else:
                from riverrun.workers import Environment

                self._environments[address] = Environment(**event["environment"])
            late = self._is_open
            self._changed.notify_all()
        if late and event["error"]:
            logger.error("%s", _unable(f"worker {address}", event["error"]))
        elif late and not self._opened.temporary:
            try:
                self._compare({address: self._environments[address]})
            except TaskRunnerStartError as error:
                logger.error("%s", error)  # noqa: TRY400 - the text says it all

    def left(self, address: str) -> None:
        """Note that a worker is gone; what is known about it is kept, to explain losses."""
        self._offers.pop(address, None)

    def known(self, address: str) -> Joined:
        """Give what is known about a worker."""
        return self._known.get(address) or Joined(address)

    def has(self, address: str) -> bool:
        """Say whether a worker is there, as far as is known."""
        return address in self._offers

    def offers(self) -> Iterator[Offer]:
        """Give what the workers have that are there."""
        return iter(list(self._offers.values()))


class Look(ByValue):
    """Run on the scheduler: tells what it lacks to read what this package sends."""

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return ()

    def __call__(self) -> str:
        """Give the text of the error, or an empty text."""
        try:
            from runner_dask import _worker  # noqa: F401
        except Exception as error:  # noqa: BLE001 - whatever an import does
            return f"{type(error).__name__}: {error}"
        return ""


def _unable(who: str, error: str) -> str:
    from importlib.metadata import version

    return (
        f"The Dask {who} cannot run the tasks of this flow: {error}. Install the same there as here: "
        f"pip install 'core[dask]=={version('core')}'."
    )
