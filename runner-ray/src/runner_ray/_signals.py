"""Who hears SIGTERM: this process's handler, and not Ray's."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Let Ray open or shut down a session in the block, and keep the handler of SIGTERM, on whatever thread this is.

    Ray puts a handler of its own before it when a session opens, in C: that prints a stack trace, lets the handler
    that was there before run, and aborts the process 3 seconds later, wherever it is by then on its way out. When the
    session is shut down, no handler is left at all. Python sets one on the main thread only; this is what it calls.
    """
    if os.name != "posix":
        yield
        return
    import ctypes

    python = ctypes.pythonapi
    python.PyOS_getsig.restype = ctypes.c_void_p
    python.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
    python.PyOS_setsig.restype = ctypes.c_void_p
    handler = python.PyOS_getsig(signal.SIGTERM)
    try:
        yield
    finally:
        python.PyOS_setsig(signal.SIGTERM, handler)
