"""A page about one flow run: one HTML file that needs no other, no script and no network.

Parameters are shown by name and type only, because a value may be a secret, and a page gets passed on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

from riverrun._report_style import STYLE
from riverrun._run_rows import RunRow, rows_of
from riverrun._tables import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from riverrun._flow_runs import FlowRun
    from riverrun.abc import TaskRunner

MOST_ROWS = 2_000
"""So many runs are listed, failed ones first; beyond that a browser gets slow. The counts are of all."""
_MOST_BARS = 300


class ReportPathError(Exception):
    """The report cannot be written where it was asked for; told before anything runs."""


def check_path(path: str) -> None:
    """Refuse a path at which no file can be written.

    Raises:
        ReportPathError: its folder does not exist or cannot be written to, or it is a folder itself.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise ReportPathError(
            f"`--report {path}` is a folder. Name a file in it: --report {os.path.join(path, 'report.html')}"
        )
    if not os.path.isdir(folder):
        raise ReportPathError(f"`--report {path}` cannot be written: there is no folder `{folder}`. Make it first.")
    if not os.access(folder, os.W_OK):
        raise ReportPathError(f"`--report {path}` cannot be written: no right to write in `{folder}`.")


def write(path: str, flow_run: FlowRun, runner: TaskRunner) -> None:
    """Write the page, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    page = render(flow_run, runner).encode("utf-8", "replace")
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(page)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def render(flow_run: FlowRun, runner: TaskRunner) -> str:
    """Give the page as text."""
    rows = list(rows_of(flow_run))
    shown = [*(row for row in rows if row.failed), *(row for row in rows if not row.failed)][:MOST_ROWS]
    title = f"{flow_run.flow_name}: {flow_run.name}"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>Flow run <em>{escape(flow_run.name)}</em> {_badge(flow_run.state)}</h1>",
        _facts(flow_run, runner),
        _counts(rows),
        _failures([row for row in shown if row.failed]),
        _timeline(flow_run, rows),
        _table(flow_run, shown, len(rows)),
        "</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _badge(state: Any) -> str:
    return f'<span class="badge {_css(state)}">{escape(state.name)}</span>'


def _css(state: Any) -> str:
    return "not-ready" if state.is_not_ready() else str(state.type.value).lower()


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _facts(flow_run: FlowRun, runner: TaskRunner) -> str:
    end = flow_run.end_time or time.time()
    parameters = ", ".join(f"{name}: {type(value).__name__}" for name, value in flow_run.parameters.items())
    facts = {
        "Flow": flow_run.flow_name,
        "Message": flow_run.state.message or "",
        "Started": _clock(flow_run.start_time),
        "Ended": _clock(end),
        "Duration": duration(end - flow_run.start_time),
        "Attempts": str(flow_run.run_count),
        "Task runner": type(runner).__name__,
        "Parameters": parameters or "none",
        "Id": flow_run.id,
    }
    lines = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>\n" for name, text in facts.items() if text)
    return f"<dl>\n{lines}</dl>"


def _counts(rows: Sequence[RunRow]) -> str:
    if not rows:
        return "<p>It submitted no task runs.</p>"
    counts = Counter((_css(row.state), row.state.name) for row in rows)
    badges = "".join(
        f'<li><span class="badge {css}">{escape(name)}</span> {count:,}</li>'
        for (css, name), count in counts.most_common()
    )
    return f'<h2>Runs</h2>\n<ul class="counts">{badges}</ul>'


def _failures(failed: Iterable[RunRow]) -> str:
    lines = [
        f"<li>{_badge(row.state)} <strong>{escape(row.run.name)}</strong>"
        f"<pre>{escape(row.state.message or '')}</pre></li>"
        for row in failed
    ]
    return '<h2>Failed</h2>\n<ul class="failures">\n{}\n</ul>'.format("\n".join(lines)) if lines else ""


def _timeline(flow_run: FlowRun, rows: Sequence[RunRow]) -> str:
    """Draw a bar for each run, over the time of the flow run."""
    begin = flow_run.start_time
    whole = max((flow_run.end_time or time.time()) - begin, 1e-6)
    started = [row for row in rows if row.run.start_time is not None]
    bars = []
    for line, row in enumerate(started[:_MOST_BARS]):
        # Clocks of other machines may differ: a bar stays inside the picture.
        left = min(max((row.run.start_time - begin) / whole, 0), 1) * 1000
        width = max(min((row.seconds or 0) / whole * 1000, 1000 - left), 1.5)
        took = "not finished" if row.seconds is None else duration(row.seconds)
        title = escape(f"{row.run.name}: {row.state.name}, {took}")
        y = line * 8
        bars.append(
            f'<rect class="{_css(row.state)}" x="{left:.1f}" y="{y}" width="{width:.1f}" height="6">'
            f"<title>{title}</title></rect>"
        )
    if not bars:
        return ""
    more = f" The first {_MOST_BARS:,} of {len(started):,} runs." if len(started) > _MOST_BARS else ""
    height = len(bars) * 8
    return (
        f"<h2>Timeline</h2>\n<p>From start to end: {duration(whole)}.{more}</p>\n"
        f'<svg viewBox="0 0 1000 {height}" preserveAspectRatio="none" height="{height}" role="img" '
        f'aria-label="When each run started and ended">\n' + "\n".join(bars) + "\n</svg>"
    )


def _table(flow_run: FlowRun, shown: Sequence[RunRow], total: int) -> str:
    if not shown:
        return ""
    more = f"<p>{total - len(shown):,} more that did not fail are not listed.</p>\n" if total > len(shown) else ""
    lines = "\n".join(_line(flow_run, row) for row in shown)
    head = "".join(f"<th>{name}</th>" for name in ("Name", "State", "Start", "Duration", "Attempts", "Message"))
    return f"<h2>Task runs</h2>\n{more}<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _line(flow_run: FlowRun, row: RunRow) -> str:
    run = row.run
    start = "" if run.start_time is None else f"+{duration(run.start_time - flow_run.start_time)}"
    took = "" if row.seconds is None else duration(row.seconds)
    kind = " <small>subflow</small>" if row.is_flow else ""
    cells = (
        f'<td style="padding-left:{row.depth + 0.5:g}em">{escape(run.name)}{kind}</td>',
        f"<td>{_badge(row.state)}</td>",
        f"<td>{start}</td><td>{took}</td><td>{run.run_count}</td>",
        f"<td>{escape(row.state.message or '')}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>"
