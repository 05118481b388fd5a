"""What observers want to be around a run's function, here or on a worker: context managers, made by what they gave.

Nothing that goes wrong with one of them changes the run: it is logged, and the function runs without it. What goes
wrong in one run goes wrong in the next, so each process says it once for each flow run.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    Surrounding = tuple[str, Callable[[], AbstractContextManager[object]] | bytes]
    """The name of the observer, and what it gave: as it is, or pickled on its way to a worker."""

_logger = logging.getLogger("riverrun.observers")
_MOST_TOLD: Final = 1_000
_told: Final[set[tuple[str, str, str]]] = set()
"""What was said: which text, of which observer, in which flow run."""


class Surrounded:
    """A context manager that enters all those of a scope, and leaves them in the opposite order."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope
        self._stack = ExitStack()

    def __enter__(self) -> None:
        for name, given in self._scope.surroundings:
            try:
                self._stack.enter_context(_unpacked(given)())
            except Exception as error:  # noqa: BLE001 - told
                text = "What observer `%s` wants around run %r could not be entered; such runs go without it."
                _tell(text, name, self._scope, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
        except Exception as raised:  # noqa: BLE001 - told
            if raised is not error:
                names = ", ".join(name for name, _ in self._scope.surroundings)
                _tell(
                    "What one of the observers (%s) wants around run %r could not be left.", names, self._scope, raised
                )


def packed(scope: Any) -> tuple[Surrounding, ...]:
    """Pickle those of a scope one by one, for a worker; one that cannot be pickled is left out."""
    import cloudpickle

    left = []
    for name, given in scope.surroundings:
        try:
            left.append((name, given if isinstance(given, bytes) else cloudpickle.dumps(given)))
        except Exception as error:  # noqa: BLE001 - told
            text = "What observer `%s` wants around run %r cannot be pickled to travel to a worker: it is left out."
            _tell(text, name, scope, error)
    return tuple(left)


def _tell(text: str, observer: str, scope: Any, error: Exception) -> None:
    fields = scope.log_fields()
    key = text, observer, fields.get("flow_run_id", "")
    if key in _told:
        return
    if len(_told) >= _MOST_TOLD:  # a worker may live for long
        _told.clear()
    _told.add(key)
    _logger.error(text, observer, scope.name, exc_info=error, extra=fields)


def _unpacked(given: Any) -> Any:
    if isinstance(given, bytes):
        import cloudpickle

        return cloudpickle.loads(given)
    return given
