"""Which run the present code belongs to: one context variable, so that it follows threads, coroutines and callbacks."""

from __future__ import annotations

import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import logging


class Scope(Protocol):
    """A flow run, or one attempt at a task run: what a call of a task or a flow finds around itself."""

    is_flow: bool
    """True for a flow run: a call of a task is submitted. False for a task run: it runs in place."""
    log_prints: bool

    def log_identity(self) -> tuple[str, str, dict[str, Any]]:
        """Give the kind of run for people (`Flow run`, `Task run`), its name, and the fields for its log records."""
        ...

    @property
    def logger(self) -> logging.Logger:
        """The logger that the run's records go to."""
        ...


class ThreadState(threading.local):
    """Whether this thread is telling those who wait for runs, and the futures it has to tell about next."""

    cascading = False

    def __init__(self) -> None:
        self.others: deque[Any] = deque()


this_thread: Final = ThreadState()

current_scope: Final[ContextVar[Any]] = ContextVar("riverrun_scope", default=None)
"""The innermost scope, or None outside of every flow. Typed as Any: the engine knows which two classes it holds."""
