"""Which observers there are: those that the settings name, and those that code has registered."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from riverrun._listeners import is_observing
from riverrun._observation import Observation
from riverrun.exceptions import ObserverNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from riverrun._observer_loading import Observer
    from riverrun._settings import Settings

registered: list[Registration] = []
"""What code has registered, in this order."""
_registering = threading.Lock()


class Registration:
    """An observer that was registered in code; also a context manager, which takes it back at its end."""

    def __init__(self, observer: object) -> None:
        self.observer = observer

    def unregister(self) -> None:
        """Take the observer back: flow runs that begin later are not told to it; a second call does nothing."""
        with _registering:
            registered[:] = [other for other in registered if other is not self]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unregister()

    def __repr__(self) -> str:
        return f"<Registration of {self.observer!r}>"


def register(observer: object) -> Registration:
    """Let an observer be told what happens to the flow runs of this process that begin from now on.

    Args:
        observer: an object or a module with hooks; a class of such objects, of which each flow run gets a new one
            (subflow runs share that of the flow run around them); or the name of an observer that is installed.

    Returns:
        What takes it back: with `.unregister()`, or as a context manager.

    Raises:
        ConfigurationError: it has no hook of an observer, or one that does not fit.
        ObserverError: no observer of that name can be used.

    Example:
        >>> from riverrun import flow, hookimpl, observers
        >>> class Ends:
        ...     @hookimpl
        ...     def riverrun_flow_run_finished(self, event):
        ...         print(event.flow_name, "ended as", event.state.name)
        >>> @flow(task_runner="sequential")
        ... def hello():
        ...     return "Hello!"
        >>> with observers.register(Ends()):
        ...     greeting = hello()
        hello ended as Completed
    """
    _loaded(observer, make=False)  # what is wrong with it is told here, not when a flow starts
    registration = Registration(observer)
    with _registering:
        registered.append(registration)
    return registration


def _loaded(observer: object, *, make: bool = True) -> Observer:
    from riverrun._observer_loading import by_name, from_object

    return by_name(observer, make=make) if isinstance(observer, str) else from_object(observer, make=make)


@contextmanager
def restored() -> Iterator[None]:
    """Take back at the end what code registers meanwhile."""
    with _registering:
        before = list(registered)
    try:
        yield
    finally:
        with _registering:
            registered[:] = before


def check(settings: Settings) -> None:
    """See that the observers which the settings name can be used.

    Raises:
        ObserverError: one cannot be used; the subclass and the text say why.
    """
    _named(settings, make=False)


def _named(settings: Settings, *, make: bool = True) -> list[Observer]:
    try:
        return [_loaded(name, make=make) for name in dict.fromkeys(settings.observers)]
    except ObserverNotFound as error:
        raise type(error)(f"{error} (The name comes from {settings.sources['observers']}.)") from None


def opened(settings: Settings) -> Observation | None:
    """Begin to observe an outermost flow run.

    Returns:
        What tells the observers; None if there are none.

    Raises:
        ObserverError: one that was named cannot be used.
    """
    if is_observing():  # a flow that an observer runs: it would be observed by another of the same kind, and so on
        return None
    observers = [*_named(settings), *(_loaded(registration.observer) for registration in list(registered))]
    return Observation(observers) if observers else None
