"""Values of earlier runs, under keys that the user's function makes. Nothing is hashed unless a task asks for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from riverrun import _logging, _settings, _timers
from riverrun.states import Cached, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from riverrun._futures import TaskRun
    from riverrun._pending_run import PendingRun

_memory: Final[dict[tuple[str, str], tuple[float, Any]]] = {}
_lock: Final = threading.Lock()


class CacheContext(NamedTuple):
    """What a `cache_key_fn` gets as its first argument."""

    task: Any
    task_run: TaskRun


class Cache:
    """The cache of one task: in memory, and in files of the user's own where results persist.

    Args:
        key_fn: `fn(context, parameters)` gives the key, or None for a run that is not to be cached.
        expiration: how long a value serves, in seconds; None: for ever.
        persist: whether values go to files below `RIVERRUN_HOME` too, to serve other processes.
    """

    def __init__(
        self, key_fn: Callable[[Any, dict[str, Any]], str | None], expiration: float | None, *, persist: bool
    ) -> None:
        self._key_fn = key_fn
        self._expiration = expiration
        self._persist = persist

    def look_up(self, job: PendingRun, parameters: dict[str, Any]) -> State | None:
        """Give the state of a cached run, or None; the key is kept on the job for `store`."""
        key = self._key_fn(CacheContext(job.task, job.run), parameters)
        if key is None:
            return None
        job.cache_key = (job.task.run_key, str(key))
        with _lock:
            found = _memory.get(job.cache_key)
        if found is None and self._persist:
            found = _read(_path(job.cache_key))
        if found is None or (self._expiration is not None and _timers.clock.time() - found[0] > self._expiration):
            return None
        return Cached(f"Value of an earlier run with cache key {str(key)!r}.", found[1])

    def store(self, job: PendingRun, value: Any) -> None:
        """Keep a value; where it cannot be written, a warning says so and the run goes on."""
        key = job.cache_key
        if key is None:
            return
        entry = (_timers.clock.time(), value)
        with _lock:
            _memory[key] = entry
        if self._persist:
            try:
                _write(_path(key), entry)
            except Exception as error:  # noqa: BLE001 - a full disk, or a value that cannot be pickled
                _logging.task_logger.warning(
                    "The result of task run %r is not persisted: %r", job.run.name, error, extra=job.log_fields()
                )


@contextlib.contextmanager
def emptied() -> Iterator[None]:
    """Begin with no value in memory, and have those of before again at the end."""
    with _lock:
        before = dict(_memory)
        _memory.clear()
    try:
        yield
    finally:
        with _lock:
            _memory.clear()
            _memory.update(before)


def clear() -> None:
    """Forget the values in memory."""
    with _lock:
        _memory.clear()


def _path(key: tuple[str, str]) -> pathlib.Path:
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()
    return pathlib.Path(_settings.load().home).expanduser() / "results" / f"{name}.pkl"


def _write(path: pathlib.Path, entry: tuple[float, Any]) -> None:
    import cloudpickle

    data = cloudpickle.dumps(entry)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        pathlib.Path(temporary).replace(path)  # whole, or not at all
    except BaseException:
        with contextlib.suppress(OSError):
            pathlib.Path(temporary).unlink()
        raise


def _read(path: pathlib.Path) -> tuple[float, Any] | None:
    import cloudpickle

    try:
        with path.open("rb") as file:
            # Loading a pickle runs code: what somebody else has put there is not loaded.
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
                _logging.task_logger.warning("The cached result %s belongs to another user and is not used.", path)
                return None
            return cloudpickle.load(file)  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - written by another version, or cut short
        _logging.task_logger.warning("The cached result %s cannot be read and is not used: %r", path, error)
        return None
