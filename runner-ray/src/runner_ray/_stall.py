"""The warning that a flow run waits for a cluster that may grow, and has no CPU."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from runner_ray import _wanted
from runner_ray._start_errors import capital

if TYPE_CHECKING:
    from runner_ray._guests import Guests
    from runner_ray._open import OpenCalls

logger = logging.getLogger("riverrun.task_runners.ray")


class Stall:
    """Looks whether calls wait, and no node has a CPU. Where no node can come, such calls are ended (`_watch`).

    Args:
        after: seconds of that until the warning.
        where: what the cluster is called.
        guests: the nodes.
        sendings: the calls that have not ended.
    """

    def __init__(self, after: float, where: str, guests: Guests, sendings: OpenCalls) -> None:
        self._after = after
        self._where = capital(where)
        self._guests = guests
        self._open = sendings
        self._since: float | None = None
        self._is_told = False

    def look(self) -> None:
        """Look; to be called now and then."""
        if not self._guests.may_grow or not self._open:
            self._since = None
            return
        if _wanted.fits({"CPU": 1.0}, self._guests.nodes()):
            self._since = None
            if self._is_told:
                self._is_told = False
                logger.info("%s has a node with a CPU again.", self._where)
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= self._after and not self._is_told:
            self._is_told = True
            logger.warning(
                "%s has had no node with a CPU for %g s, and %s: the flow goes on when one comes. See with "
                "`ray status` whether the autoscaler starts one.",
                self._where, self._after, self._waiting(),
            )  # fmt: skip

    def _waiting(self) -> str:
        count = len(self._open)
        return "1 task run waits" if count == 1 else f"{count} task runs wait"
