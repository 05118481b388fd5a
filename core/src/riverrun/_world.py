"""The one seam where a simulation takes the place of threads and of waiting (`riverrun.testing`).

Outside of simulations `world` is None, and each place that looks here has done with one `if`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class World(Protocol):
    """What decides, in a simulation, what happens next."""

    def reached(self, point: str) -> None:
        """Take it that the calling thread is at a named point, where it holds no lock: others may go on meanwhile."""
        ...

    def wait(self, attempt: Callable[[float], bool], timeout: float) -> bool:
        """Let others go on until `attempt(0)` is true.

        Args:
            attempt: tries to end the wait; it must not block.
            timeout: seconds to wait at most; -1 for as long as it takes.

        Returns:
            Whether it is true; false when the time is over.
        """
        ...

    def start_thread(self, target: Callable[[], object], name: str) -> None:
        """Run a function as a thread would, beside the caller."""
        ...


world: World | None = None
"""The simulation that this process is in; None in real life. Look it up here at each use."""


def start_thread(target: Callable[[], object], name: str) -> None:
    """Start a thread that does not keep the process alive."""
    if world is not None:
        world.start_thread(target, name)
        return
    threading.Thread(target=target, name=name, daemon=True).start()
