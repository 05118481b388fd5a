"""A thread that looks whether the cluster is there, and whether what waits there can ever run."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runner_ray import _wanted
from runner_ray._stall import Stall

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner_ray._guests import Guests
    from runner_ray._open import OpenCalls
    from runner_ray._sessions import Session

BEAT = 1.0
"""Seconds between two looks."""
PATIENCE = 5.0
"""Seconds that a head may be away, while it is started again, say, before the cluster counts as gone."""
LOOK_FOR_UNMET = 5.0
"""Seconds between two looks for calls that no node can run any more."""


class Watch:
    """Looks after the connection of one flow run.

    Args:
        session: the session of Ray.
        guests: the nodes.
        sendings: the calls that have not ended.
        disconnected: called with the reason when the cluster is gone.
        stall_after: seconds for which calls wait without a CPU until that is told.
    """

    def __init__(
        self,
        session: Session,
        guests: Guests,
        sendings: OpenCalls,
        disconnected: Callable[[str], object],
        *,
        stall_after: float,
    ) -> None:
        self._session = session
        self._guests = guests
        self._open = sendings
        self._stall = Stall(stall_after, session.where, guests, sendings)
        self._disconnected = disconnected
        self._stopped = threading.Event()
        self._away_since: float | None = None
        self._next_look = time.monotonic() + LOOK_FOR_UNMET
        self._raylet = _raylet_socket(session)
        self._said = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="riverrun-ray-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def check(self) -> None:
        """See that there is a session at all."""
        import ray

        if self._session.gone:  # another flow run that shares it has seen that
            self._gone(self._session.gone)
        elif not ray.is_initialized():
            self._gone("the session of Ray was shut down during the flow run.")

    def look_closely(self) -> None:
        """See that the node of this process is there, now."""
        self.check()
        if self._raylet and not _listens(self._raylet):
            self._lost("its node on this machine is gone.")

    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            with suppress(Exception):  # whatever Ray raises while its cluster goes down: the next look tells
                self.look_closely()
                self._look_for_head()
                self._look_for_unmet()
                self._stall.look()

    def _look_for_head(self) -> None:
        place = self._session.place
        if place is None or place.answers():
            self._away_since = None
            return
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since >= PATIENCE:
            self._lost(f"its head at {place.host}:{place.port} has not answered for {PATIENCE:g} s.")

    def _look_for_unmet(self) -> None:
        """End calls that have waited for a node that is gone: Ray would let them wait for ever."""
        now = time.monotonic()
        if now < self._next_look or not self._open or self._away_since is not None or self._said:
            return
        self._next_look = now + LOOK_FOR_UNMET
        nodes = self._guests.nodes(fresh=True)
        if self._guests.may_grow or all(node["Alive"] for node in nodes):
            return
        self._guests.look_again()
        for sending in self._open.all():
            if not _wanted.fits(sending.needs, nodes):
                from riverrun.exceptions import CrashedRun

                text = _wanted.unmet(sending.name, sending.needs, nodes)
                self._open.lose(sending, CrashedRun(f"{text} A node that had it is gone."), final=True)

    def _lost(self, why: str) -> None:
        session = self._session
        session.gone = why = f"lost the connection to {session.where}: {why}"  # before anybody is told, and goes on
        try:
            self._gone(why)
        finally:
            session.close_lost()

    def _gone(self, why: str) -> None:
        with self._lock:
            if self._said:
                return
            self._said = True
        self._disconnected(why)


def _raylet_socket(session: Session) -> str:
    """Give the path of the socket of this machine's raylet; empty where it is not known."""
    if session.is_client:
        return ""
    import ray

    with suppress(Exception):
        node: Any = ray._private.worker._global_node  # noqa: SLF001 - there is no public way to it
        return str(node.raylet_socket_name)
    return ""


def _listens(path: str) -> bool:
    if not hasattr(socket, "AF_UNIX"):
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it is busy
    return True
