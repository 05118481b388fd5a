"""One observer in one flow run: its queue, and the thread on which its hooks are called."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    Hook = Callable[..., Any]

PATIENCE: Final = 10.0
"""How long one call of a hook may take, in seconds, before the flow stops waiting for it."""

_logger = logging.getLogger("riverrun.observers")


class _Here(threading.local):
    observes = False


_here: Final = _Here()


def is_observing() -> bool:
    """Say whether an observer's hook is called in this thread: what it does itself is not observed."""
    return _here.observes


class Listener:
    """Tells one observer what happens, in order, off the threads where it happens."""

    def __init__(self, name: str, label: str, hooks: dict[str, Hook], context: Context) -> None:
        from queue import SimpleQueue

        self.name = name
        self.hooks = hooks
        """What it listens to, by the name of the hook."""
        self.is_off = False
        """Whether it has raised, or hangs: then it is told nothing more."""
        self._hangs = False
        self._label = label
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._present = ""
        """The hook that is being called."""
        self._since: float | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=context.run, args=[self._serve], name=f"riverrun-observer-{name}", daemon=True
        )
        self._thread.start()

    def tell(self, hook: str, make: Callable[..., object], *args: object) -> None:
        """Let a hook be called soon, with the event that `make(*args)` gives."""
        self._queue.put((hook, make, args))

    def wait(self) -> None:
        """Wait until it has been told everything so far; not for ever, if it hangs."""
        done = threading.Event()
        self._queue.put(done)
        while not self._hangs:  # after one that raised, the rest is gone through in no time
            since = self._since
            left = PATIENCE if since is None else since + PATIENCE - time.monotonic()
            if done.wait(max(left, 0)):
                return
            if since is not None and self._since == since:
                self._give_up()
                return

    def stop(self) -> None:
        """Tell it what is left, and end its thread."""
        self.wait()
        self._queue.put(None)
        if not self._hangs:  # else the thread ends with that call, whenever that is
            self._thread.join(PATIENCE)

    def call_here(self, hook: str, event: object) -> Any:
        """Call a hook in this thread; give what it returns, or None if it raised."""
        if self.is_off:
            return None
        before, _here.observes = _here.observes, True
        try:
            return self.hooks[hook](event=event)
        except BaseException as error:  # `sys.exit()` and `pytest.fail()` raise no Exception
            interrupts = isinstance(error, KeyboardInterrupt) or getattr(error, "is_termination", False)
            if interrupts and threading.current_thread() is threading.main_thread():
                raise  # it is meant for the flow, which happens to be in here
            self._switch_off(hook, error)
        finally:
            _here.observes = before
        return None

    def _serve(self) -> None:
        _here.observes = True
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            elif not self.is_off:
                self._present, make, args = item
                self._since = time.monotonic()
                try:
                    self.hooks[self._present](event=make(*args))
                except BaseException as error:  # noqa: BLE001 - reported
                    self._switch_off(self._present, error)
                self._since = None
            item = make = args = None  # nothing is kept alive while it waits for more

    def _may_be_switched_off(self) -> bool:
        with self._lock:
            before, self.is_off = self.is_off, True
            return not before

    def _switch_off(self, hook: str, error: BaseException) -> None:
        if self._may_be_switched_off():
            text = "%s raised in `%s`: it is switched off for this flow run, which goes on."
            _logger.error(text, self._label, hook, exc_info=error)

    def _give_up(self) -> None:
        self._hangs = True
        if self._may_be_switched_off():
            _logger.error(
                "%s has been in `%s` for more than %g seconds: it is switched off for this flow run, which goes on. "
                "%d later events are not told to it.",
                self._label, self._present, PATIENCE, max(self._queue.qsize() - 1, 0),
            )  # fmt: skip
