"""The calls of a flow run that have not ended: each is taken out by one thread, which is the one that tells its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riverrun.exceptions import CrashedRun

    from runner_dask._sending import Sending


class OpenCalls:
    """Calls by key, for any thread. There is no lock: garbage collection may call `forget` within any other method."""

    def __init__(self) -> None:
        self._by_key: dict[str, Sending] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, sending: Sending) -> None:
        """Take a call in."""
        self._by_key[sending.key] = sending

    def get(self, key: str) -> Sending | None:
        """Give a call, if it is still open."""
        return self._by_key.get(key)

    def take(self, sending: Sending) -> bool:
        """Take a call out; true for one caller only, who tells what has become of it, or has withdrawn it."""
        return self._by_key.pop(sending.key, None) is sending

    def forget(self, key: str) -> None:
        """Take a call out of which nobody wants to hear anything."""
        self._by_key.pop(key, None)

    def all(self) -> list[Sending]:
        """Give all of them, as they are now."""
        while True:
            try:
                return list(self._by_key.values())
            except RuntimeError:  # another thread has added one, or taken one out: without a GIL that may happen
                continue

    def lose(self, sending: Sending, error: CrashedRun, *, begun: bool = True, final: bool = False) -> None:
        """Tell that a call is lost, if it is still open.

        Args:
            sending: the call.
            error: what is known about it.
            begun: false if it is certain that it has not begun. A call that could not be withdrawn counts as begun.
            final: whether nobody is left who could run it again.
        """
        if self.take(sending):
            sending.report.lost(error, begun=begun or sending.begun, final=final)
