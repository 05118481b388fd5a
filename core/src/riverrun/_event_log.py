"""What happened last to the task runs of a flow run, for whoever asks why one does not end.

Where calls go to an executor, the machine notes its last 1,000 events; on threads of this process that would cost more
than a short task does, so there it does if the setting `event_log` names a file. The text has each run that is not
final, too. It comes out at the end of a flow run (the setting), at SIGUSR1, and in a test that has run into its limit.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun._flow_runs import FlowRun

LAST_EVENTS: Final = 1000
MOST_RUNS: Final = 100
"""So many of the runs that are not final are named."""
STDERR: Final = "-"
"""What stands for stderr in the setting."""

_under_way: Final[dict[int, FlowRun]] = {}
_ended: Final[deque[tuple[str, Any, dict[int, str]]]] = deque(maxlen=3)
"""Of the last flow runs that noted something: what to call them, the events, and the names of the task runs."""


@contextmanager
def noted(flow_run: FlowRun, file: str | None) -> Iterator[None]:
    """Keep a flow run among those of which the text tells.

    Args:
        flow_run: the flow run; its task runner has started.
        file: where its events are to be written when it ends: a path, `-` for stderr, or None.
    """
    if file is not None or not flow_run.dispatch.is_local:
        flow_run.events = deque(maxlen=LAST_EVENTS)
        flow_run.is_watched = True
    _under_way[id(flow_run)] = flow_run
    try:
        yield
    finally:
        del _under_way[id(flow_run)]
        if flow_run.events is not None:
            names = {run.number: run.name for run in flow_run.runs if hasattr(run, "number")}
            _ended.append((_label(flow_run), flow_run.events, names))
            if file is not None:
                _write(file, "\n".join(_lines(*_ended[-1])) + "\n")


def _write(file: str, text: str) -> None:
    from riverrun import _logging

    try:
        if file == STDERR:
            sys.stderr.write(text)
            return
        with open(file, "a", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        _logging.root_logger.warning("The events of a flow run could not be written to %r: %s", file, error)


def told() -> str:
    """Return what is known: of flow runs under way, and of the last ones that have ended; an empty text for none."""
    lines: list[str] = []
    for flow_run in list(_under_way.values()):
        lines += _of(flow_run)
    if not lines:
        for one in list(_ended):
            lines += _lines(*one)
    return "\n".join(lines)


def _of(flow_run: FlowRun) -> list[str]:
    pending = list(flow_run.live.values())
    lines = [f"{_label(flow_run)}, {len(pending)} task runs are not final:"]
    lines += [
        f"    {run.run.name}: {run.phase.name}, attempt {run.attempt}, {run.missing} upstreams missing"
        for run in pending[:MOST_RUNS]
    ]
    if len(pending) > MOST_RUNS:
        lines.append(f"    ... and {len(pending) - MOST_RUNS} more")
    names = {run.number: run.name for run in list(flow_run.runs) if hasattr(run, "number")}
    return lines + (_lines(_label(flow_run), flow_run.events, names) if flow_run.events is not None else [])


def _label(flow_run: FlowRun) -> str:
    return f"Flow run {flow_run.name!r}"


def _lines(label: str, events: Any, names: dict[int, str]) -> list[str]:
    noted = _copied(events)
    lines = [f"{label}, the last {len(noted)} events:"]
    now = time.monotonic()
    for moment, number, event, phase, attempt, do in noted:
        name = names.get(number, f"run {number}")
        lines.append(f"    {moment - now:+.6f} s  {name}: {event} -> {phase.name}, attempt {attempt}, {do.value}")
    return lines


def _copied(events: Any) -> list[Any]:
    while True:
        try:
            return list(events)
        except RuntimeError:  # another thread has noted something meanwhile
            continue


@contextmanager
def told_on_signal() -> Iterator[None]:
    """Write the text to stderr at SIGUSR1, in the main thread; a handler of the application's stays."""
    if threading.current_thread() is not threading.main_thread() or not _is_ours_to_take():
        yield
        return
    import signal

    def tell(*_: Any) -> None:
        sys.stderr.write(told() + "\n")
        sys.stderr.flush()

    signal.signal(signal.SIGUSR1, tell)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGUSR1) is tell:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def _is_ours_to_take() -> bool:
    import signal

    return hasattr(signal, "SIGUSR1") and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
