"""How the processes are started: by a server that forks, and without the script that the flow is in."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import BaseContext

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"  # Windows forks nothing
_base: Any = multiprocessing.get_context(METHOD)
_hiding = threading.RLock()


def context() -> BaseContext:
    """Give the way to start a process."""
    if METHOD == "forkserver":
        _base.set_forkserver_preload(["runner_process._start"])  # what it imports, no process imports again
    return _Context()


class _Process(_base.Process):  # type: ignore[misc] # the class depends on the system
    """A process that does not import the script: what that defines travels with its code.

    So a script needs no `if __name__ == "__main__":` around the call of its flow.
    """

    def start(self) -> None:
        with _hidden_script():
            super().start()


class _Context(type(_base)):  # type: ignore[misc] # likewise
    Process = _Process


class _Nameless(ModuleType):
    """A `__main__` that comes from no file; in all else, the one that is there."""

    def __init__(self, main: ModuleType) -> None:
        super().__init__("__main__")
        self._main = main

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":
            raise AttributeError(name)
        return getattr(self._main, name)


@contextmanager
def _hidden_script() -> Iterator[None]:
    with _hiding:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = _Nameless(main)
        try:
            yield
        finally:
            sys.modules["__main__"] = main
