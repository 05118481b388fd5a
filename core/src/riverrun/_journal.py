"""What a worker process is doing, in a small file that survives it: which calls began and ended, their last lines.

A call is noted with one write to an open file, so that what was noted is there when the process was killed the moment
after. The file must lie where it is not removed together with the process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "riverrun-journal-"
LATELY = 100  # calls that have ended, and that are kept when a file is rewritten
LINES = 20  # of one call that are kept for sure
WIDTH = 2000  # characters of a line
LIMIT = 1 << 20  # bytes, above which a file is rewritten when nothing runs; at 8 times that, in any case
PEAK = 0.15  # seconds between two looks at the memory, while something runs
PEAK_STEP = 1 << 20  # bytes by which the peak has to grow to be noted
OLD = 60.0  # seconds after which the file of a dead process may be removed by another worker


class JournalFile:
    """The open file of one worker process, written from any thread.

    Args:
        path: the file to write; it must not exist.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._size = self._peak = 0
        self._lines: dict[str, deque[str]] = {}  # of the calls that run
        self._ended: deque[str] = deque(maxlen=LATELY)  # the calls that have ended last: their end may not be told yet
        self._busy = threading.Event()
        self._is_open = True
        self.peak()
        threading.Thread(target=self._watch_memory, name="riverrun-memory", daemon=True).start()

    def begin(self, key: str) -> None:
        """A call begins."""
        with self._lock:
            self._lines[key] = deque(maxlen=LINES)
            self._write("b", key)
        self._busy.set()

    def end(self, key: str) -> None:
        """A call has ended."""
        with self._lock:
            self._lines.pop(key, None)
            self._ended.append(key)
            self._write("e", key)
            if not self._lines:
                self._busy.clear()
                if self._size > LIMIT and self._is_open:
                    self._rewrite()

    def line(self, key: str, text: str) -> None:
        """A call has logged or printed something."""
        for row in text.splitlines():
            with self._lock:
                if (kept := self._lines.get(key)) is not None:
                    kept.append(row[:WIDTH])
                self._write("l", key, row[:WIDTH])

    def peak(self) -> int:
        """The most memory that this process has had, in bytes; noted if it has grown."""
        try:
            import resource
        except ImportError:  # Windows
            return 0
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if used >= self._peak + PEAK_STEP:
            with self._lock:
                self._peak = used
                self._write("p", str(used))
        return used

    def close(self) -> None:
        """Remove the file."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                os.close(self._file)
        self._busy.set()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _write(self, *fields: str) -> None:
        if not self._is_open:
            return
        row = _row(*fields)
        with contextlib.suppress(OSError):  # a full disk costs an explanation, never a call
            os.write(self._file, row)
        self._size += len(row)
        if self._size > 8 * LIMIT:
            self._rewrite()

    def _rewrite(self) -> None:
        """Keep of a file that has grown only what a reader may ask for."""
        rows = [_row("p", str(self._peak))]
        rows += [_row(kind, key) for key in self._ended for kind in ("b", "e")]
        for key, kept in self._lines.items():
            rows += [_row("b", key), *(_row("l", key, text) for text in kept)]
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.write(self._file, b"".join(rows))
        self._size = sum(map(len, rows))

    def _watch_memory(self) -> None:
        while self._busy.wait() and self._is_open:
            self.peak()
            time.sleep(PEAK)


def _row(*fields: str) -> bytes:
    return ("\t".join(map(_plain, fields)) + "\n").encode("utf-8", "replace")


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def sweep(folder: str) -> None:
    """Remove the journals of processes that were killed, once their clients have had time to read them.

    Args:
        folder: where journals lie.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            pid = entry.name.removeprefix(PREFIX).partition("-")[0]
            if entry.name.startswith(PREFIX) and pid.isdigit() and time.time() - entry.stat().st_mtime > OLD:
                try:
                    os.kill(int(pid), 0)
                except ProcessLookupError:
                    _sweep_away(entry)
                except OSError:
                    pass  # it is alive, and another user's


def _sweep_away(entry: os.DirEntry[str]) -> None:
    """Remove the journal of a process that was seen dead before; its last line may be much older than its end."""
    if entry.stat().st_mode & 0o200:
        os.chmod(entry.path, 0o400)  # which says that it was
        os.utime(entry.path)
    else:
        os.unlink(entry.path)


# The client's side.


@dataclass
class Journal:
    """What a worker process has noted, as far as it got.

    Args:
        peak_rss: the most memory that the process was seen to have, in bytes; 0 if that is not known.
    """

    peak_rss: int = 0
    _began: dict[str, bool] = field(default_factory=dict)  # whether it ended, by key, in the order of their beginnings
    _rows: dict[str, deque[str]] = field(default_factory=dict)

    def note(self, kind: str, key: str, text: str) -> None:
        """Take in a row of the file."""
        if kind == "b":
            self._began[key] = False
        elif kind == "e":
            self._began[key] = True
            self._rows.pop(key, None)
        elif kind == "l":
            self._rows.setdefault(key, deque(maxlen=LINES)).append(text)
        elif kind == "p" and key.isdigit():
            self.peak_rss = max(self.peak_rss, int(key))

    def started(self, key: str) -> bool:
        """Whether a call began there (and was not long over when the file was shortened)."""
        return _plain(key) in self._began

    def running(self) -> list[str]:
        """The keys of the calls that had begun and not ended."""
        return [key for key, is_over in self._began.items() if not is_over]

    def lines(self, key: str, n: int = 10) -> list[str]:
        """The last lines that a call logged or printed, `n` at most."""
        return list(self._rows.get(_plain(key), ()))[-n:]


def read(path: str) -> Journal | None:
    """Read the journal of a worker process, which may be dead.

    Args:
        path: as the worker gave it.

    Returns:
        What it says; nothing if it cannot be reached from here (the worker ran on another machine).
    """
    journal = Journal()
    if not path:
        return None
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            for kind, key, text in _rows(file):
                journal.note(kind, key, text)
    except OSError:
        return None
    return journal


def _rows(file: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    for row in file:
        kind, _, rest = row.rstrip("\n").partition("\t")
        key, _, text = rest.partition("\t")
        yield kind, key, text
