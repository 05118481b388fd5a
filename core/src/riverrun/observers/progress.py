"""The observer `progress`: how far a flow run is, live, on a terminal. Elsewhere it shows nothing.

Log lines, and what the flow prints in this process, come out above it.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from riverrun import hookimpl

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import RenderableType

    from riverrun.observers import FlowRunFinished, FlowRunStarted, TaskRunStateChanged
    from riverrun.states import State

_terminal: Final = threading.Lock()
"""Held by the one flow run that is shown: two that are redrawn at once would overwrite each other."""


REFRESH_EVERY: Final = 1 / 8
"""Seconds."""


class _Console(Console):
    """A console that draws for one thread at a time.

    Rich works out how much to erase, and writes it later. If two threads did that at once, one for a log line and one
    for a picture that has grown, a log line would be erased, or an old picture would stay.
    """

    def __init__(self) -> None:
        self._drawing = threading.RLock()
        super().__init__(stderr=True)

    def __enter__(self) -> Self:
        self._drawing.acquire()
        super().__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(exc_type, exc_value, traceback)
        finally:
            self._drawing.release()


class _Row:
    """The runs of one task, counted."""

    def __init__(self) -> None:
        self.total = self.running = self.completed = self.failed = self.others = 0

    def add(self, state: State) -> None:
        if state.is_completed():
            self.completed += 1
        elif state.is_failed() or state.is_crashed():
            self.failed += 1
        else:
            self.others += 1

    def remarks(self) -> Text:
        counts = (("running", self.running, "cyan"), ("failed", self.failed, "red"), ("not run", self.others, "yellow"))
        return Text("  ").join(Text(f"{count} {what}", style) for what, count, style in counts if count)

    def cells(self, label: str) -> tuple[RenderableType, ...]:
        done = self.completed + self.failed + self.others
        style = "red" if self.failed else "green"
        bar = ProgressBar(total=self.total, completed=done, width=24, complete_style=style, finished_style=style)
        return Text(label), bar, Text(f"{done}/{self.total}"), self.remarks()


class ProgressObserver:
    """Shows a line for each task: how many of its runs are done, running, failed."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._over = threading.Event()
        self._rows: dict[str, _Row] = {}
        self._known: dict[str, bool] = {}
        """The task runs that are not final, by id: whether each is running."""
        self._root = ""
        self._heading = ""
        self._began = 0.0
        self._end: tuple[State, float] | None = None

    @hookimpl
    def riverrun_flow_run_started(self, event: FlowRunStarted) -> None:
        """Begin to show the outermost flow run."""
        if self._root:
            return
        self._root = event.flow_run_id
        self._heading = f"{event.flow_name} ({event.flow_run_name})"
        self._began = event.time
        if not sys.stderr.isatty() or not _terminal.acquire(blocking=False):
            return
        console = _Console()
        if console.is_dumb_terminal:
            _terminal.release()
            return
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            auto_refresh=False,  # rich's own thread takes its locks in another order than one that prints
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file is no business of the terminal's
        )
        try:
            with console:
                self._live.start()
        except BaseException:
            self._live = None
            _terminal.release()
            raise
        threading.Thread(target=self._refresh, args=[self._live], name="riverrun-progress", daemon=True).start()

    @hookimpl
    def riverrun_task_run_state_changed(self, event: TaskRunStateChanged) -> None:
        """Count a task run."""
        label = event.task_name if event.flow_run_id == self._root else f"{event.flow_name} > {event.task_name}"
        row = self._rows.get(label)
        if row is None:
            row = self._rows[label] = _Row()
        before = self._known.pop(event.task_run_id, None)
        if before is None:
            row.total += 1
        row.running += event.state.is_running() - bool(before)
        if event.state.is_final():
            row.add(event.state)
        else:
            self._known[event.task_run_id] = event.state.is_running()

    @hookimpl
    def riverrun_flow_run_finished(self, event: FlowRunFinished) -> None:
        """Leave the last picture where it is."""
        if event.flow_run_id != self._root:
            return
        self._end = event.state, event.time
        live, self._live = self._live, None
        if live is not None:
            try:
                with live.console:
                    self._over.set()
                    live.stop()
            finally:
                _terminal.release()

    def _refresh(self, live: Live) -> None:
        while not self._over.wait(REFRESH_EVERY):
            with live.console:
                if not self._over.is_set():
                    live.refresh()

    def _picture(self) -> RenderableType:
        """Draw what is known now; rich asks for it."""
        state, until = self._end or (None, time.time())
        heading = Text.assemble((self._heading, "bold"), f"  {until - self._began:.1f} s")
        if state is not None:
            heading.append(f"  {state.name}", "green" if state.is_completed() else "red")
        table = Table.grid(padding=(0, 2))
        for label, row in list(self._rows.items()):
            table.add_row(*row.cells(label))
        return Group(heading, table) if self._rows else heading
