"""The module `threading` as the engine sees it in a simulation: locks, events and threads of the simulated world.

Its modules look these up in `threading` when they make one. What was made before, or under another name, stays real,
and must not be held where the simulation may put a thread to sleep.
"""

from __future__ import annotations

import functools
import pkgutil
import sys
import threading
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from riverrun.testing._simulation._world import World

_KEPT = "riverrun.testing"
"""Modules that need the real ones."""


@contextmanager
def replaced(world: World) -> Iterator[None]:
    """Let Riverrun's modules find the simulated ones in `threading`."""
    _import_all()
    simulated = _Threading(world)
    changed = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("riverrun.") and not name.startswith(_KEPT) and vars(module).get("threading") is threading
    ]
    for module in changed:
        vars(module)["threading"] = simulated
    try:
        yield
    finally:
        for module in changed:
            vars(module)["threading"] = threading


@functools.cache
def _import_all() -> None:
    """Import what the engine may import on demand: a module that comes later would find the real one."""
    import riverrun

    others = ("testing", "observers", "_cli", "__main__", "_conformance_jobs")
    for module in pkgutil.iter_modules(riverrun.__path__, "riverrun."):
        if not module.name.removeprefix("riverrun.").startswith(others):
            with suppress(ImportError):  # `riverrun.task_runner` only says that it is not the one
                _import_with_all_inside(module.name)


def _import_with_all_inside(name: str) -> None:
    package = import_module(name)
    for module in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{name}."):
        _import_with_all_inside(module.name)


class _Threading:
    """Stands in for the module."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)

    def Lock(self) -> Lock:  # noqa: N802 - the names of the module
        return Lock(self._world)

    def RLock(self) -> RLock:  # noqa: N802
        return RLock(self._world)

    def Event(self) -> Event:  # noqa: N802
        return Event(self._world)

    def Thread(self, *args: Any, **kwargs: Any) -> Thread:  # noqa: N802
        return Thread(self._world, *args, **kwargs)


class Lock:
    """A lock; taking it is a moment in which others may go on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as in `threading`
        """Take it, or wait for it."""
        if not blocking or timeout == 0:
            return self._take(0)
        self._world.reached("lock")
        return self._take(0) or self._world.wait(self._take, timeout)

    def _take(self, _: float) -> bool:
        if self._held:
            return False
        self._held = True
        return True

    def release(self) -> None:
        """Give it back."""
        if not self._held:
            raise RuntimeError("release unlocked lock")
        self._held = False

    def locked(self) -> bool:
        """Say whether somebody has it."""
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock:
    """A lock that its owner may take again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owner = 0
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002
        """Take it, or wait for it."""
        me = threading.get_ident()

        def take(_: float) -> bool:
            if self._owner not in {0, me}:
                return False
            self._owner = me
            self._depth += 1
            return True

        if take(0):
            return True
        return blocking and self._world.wait(take, timeout)

    def release(self) -> None:
        """Give it back."""
        self._depth -= 1
        if not self._depth:
            self._owner = 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    """Something that comes once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False

    def set(self) -> None:
        """Let it have come."""
        self._set = True

    def clear(self) -> None:
        """Let it be to come."""
        self._set = False

    def is_set(self) -> bool:
        """Say whether it has come."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it."""
        return self._set or self._world.wait(lambda _: self._set, -1 if timeout is None else timeout)


class Thread:
    """A thread of the world."""

    def __init__(  # noqa: PLR0917 - as in `threading`
        self,
        world: World,
        group: None = None,  # noqa: ARG002
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._world = world
        self._target = target
        self.name = name or "thread"
        self._args = args
        self._kwargs = kwargs or {}
        self.daemon = daemon
        self._state = "new"

    def start(self) -> None:
        """Let it begin."""
        self._state = "alive"
        self._world.soon(self._run, self.name)

    def _run(self) -> None:
        try:
            if self._target is not None:
                self._target(*self._args, **self._kwargs)
        finally:
            self._state = "ended"

    def is_alive(self) -> bool:
        """Say whether it has begun and not ended."""
        return self._state == "alive"

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._world.wait(lambda _: self._state == "ended", -1 if timeout is None else timeout)
