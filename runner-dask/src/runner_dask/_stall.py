"""The warning that a flow run waits for a cluster on which there is no worker."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner_dask._handshake import Guests
    from runner_dask._open import OpenCalls

logger = logging.getLogger("riverrun.task_runners.dask")


class Stall:
    """Looks whether calls wait, and no worker is there.

    Args:
        after: seconds of that until the warning.
        address: the scheduler's.
        guests: the workers.
        sendings: the calls that have not ended.
    """

    def __init__(self, after: float, address: str, guests: Guests, sendings: OpenCalls) -> None:
        self._after = after
        self._address = address
        self._guests = guests
        self._open = sendings
        self._since: float | None = None
        self._is_told = False

    def look(self) -> None:
        """Look; to be called now and then."""
        has_worker = any(self._guests.offers())
        if has_worker and self._is_told:
            self._is_told = False
            logger.info("The Dask cluster at %s has a worker again.", self._address)
        if has_worker or not self._open:
            self._since = None
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= self._after and not self._is_told:
            self._is_told = True
            logger.warning(
                "The Dask cluster at %s has had no worker for %g s, and %s: the flow goes on when one comes. Start "
                "one (`dask worker %s`), or look at why there is none (in the logs of the workers, or of what starts "
                "them).",
                self._address, self._after, self._waiting(), self._address,
            )  # fmt: skip

    def _waiting(self) -> str:
        count = len(self._open)
        return "1 task run waits" if count == 1 else f"{count} task runs wait"
