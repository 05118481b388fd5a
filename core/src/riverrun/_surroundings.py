"""What observers want to be around a run's function, here or on a worker: context managers, made by what they gave.

Nothing that goes wrong with one of them changes the run: it is logged, and the function runs without it.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from types import TracebackType

    Surrounding = tuple[str, Callable[[], AbstractContextManager[object]] | bytes]
    """The name of the observer, and what it gave: as it is, or pickled on its way to a worker."""

_logger = logging.getLogger("riverrun.observers")


class Surrounded:
    """A context manager that enters all of them, and leaves them in the opposite order."""

    def __init__(self, surroundings: Iterable[Surrounding], run_name: str) -> None:
        self._surroundings = surroundings
        self._run_name = run_name
        self._stack = ExitStack()

    def __enter__(self) -> None:
        for name, given in self._surroundings:
            try:
                self._stack.enter_context(_unpacked(given)())
            except Exception:
                text = "What observer `%s` wants around run %r could not be entered; the run goes without it."
                _logger.exception(text, name, self._run_name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
        except Exception as raised:
            if raised is not error:
                _logger.exception("What an observer wants around run %r could not be left.", self._run_name)


def packed(surroundings: Iterable[Surrounding]) -> tuple[Surrounding, ...]:
    """Pickle them one by one, for a worker; one that cannot be pickled is left out."""
    import cloudpickle

    left = []
    for name, given in surroundings:
        try:
            left.append((name, given if isinstance(given, bytes) else cloudpickle.dumps(given)))
        except Exception:
            text = "What observer `%s` wants around a task run cannot be pickled to travel to a worker: it is left out."
            _logger.exception(text, name)
    return tuple(left)


def _unpacked(given: Any) -> Any:
    if isinstance(given, bytes):
        import cloudpickle

        return cloudpickle.loads(given)
    return given
