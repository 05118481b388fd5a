"""The observer `progress`, on a real terminal (a pty) and without one."""

from __future__ import annotations

import ast
import os
import re
import select
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest
from riverrun import observers

pty = pytest.importorskip("pty", reason="this system has no terminals of that kind")

FLOW = dedent("""
    import sys, threading
    from riverrun import flow, task

    @task
    def nap(i):
        if i == 2:
            raise ValueError("two")
        print("nap", i)
        return i

    @task
    def add(a, b):
        return a + b

    @flow(task_runner="sequential", flow_run_name="inner-run")
    def inner():
        return [nap(i) for i in (5, 6)]

    @flow(task_runner="sequential", flow_run_name="outer-run", name="naps")
    def naps():
        inner()
        print("from the flow")
        futures = [add(nap(i), 1) for i in range(4)]
        sys.stderr.write("half a line, ")
        sys.stderr.write("the other half\\n")
        return futures
""")
LIMIT = 60


def environment(**more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "TERM": "xterm", "COLUMNS": "120", "RIVERRUN_OBSERVERS": "progress", **more}


def on_a_terminal(tmp_path: Path, source: str, *, stdout=None, **more: str) -> str:
    """Run a script whose stderr (and stdout, if it is not given) is a terminal; give what was written to that."""
    script = tmp_path / "script.py"
    script.write_text(source)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.DEVNULL,
        stdout=stdout or slave,
        stderr=slave,
        env=environment(**more),
        cwd=tmp_path,
    )
    os.close(slave)
    written = b""
    deadline = time.monotonic() + LIMIT
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    part = os.read(master, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not part:
                    break
                written += part
        process.wait(max(deadline - time.monotonic(), 1))
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return written.decode()


class Screen:
    """What a terminal shows after it was written to: the few sequences that rich uses."""

    def __init__(self, written: str) -> None:
        self.lines = [""]
        self.row = self.column = 0
        for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b.|[^\x1b]", written):
            self._write(part)

    def _write(self, part: str) -> None:
        if part.startswith("\x1b["):
            number = int(part[2:-1]) if part[2:-1].isdigit() else 1
            if part.endswith("A"):
                self.row = max(self.row - number, 0)
            elif part.endswith("K"):
                self.lines[self.row] = ""
                self.column = 0
            else:
                assert part[-1] in "mhl", repr(part)
        elif part == "\n":
            self.row += 1
            self.column = 0
            if self.row == len(self.lines):
                self.lines.append("")
        elif part == "\r":
            self.column = 0
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
            self.column += 1

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def test_a_terminal_shows_log_lines_above_and_the_tasks_below(tmp_path):
    written = on_a_terminal(tmp_path, FLOW + "\ntry:\n    naps()\nexcept ValueError:\n    print('caught')\n")
    shown = Screen(written).shown()
    text = "\n".join(shown)
    assert shown[-1] == "caught", text
    heading, *rows = shown[-5:-1]
    assert re.fullmatch(r"naps \(outer-run\)  \d+\.\d s  Failed", heading), text
    bars = [re.sub(r" +[━╸╺]+ +", " | ", row) for row in rows]
    assert bars == ["inner > nap | 2/2", "nap | 4/4  1 failed", "add | 4/4  1 not run"], text
    # Every log line and every print is there once, whole, and in order, above the picture.
    above = shown[:-5]
    assert sum("Beginning flow run 'outer-run' for flow 'naps'..." in line for line in above) == 1
    assert [line for line in above if line.startswith(("nap ", "from"))] == [
        "nap 5",
        "nap 6",
        "from the flow",
        "nap 0",
        "nap 1",
        "nap 3",
    ]
    assert above.count("half a line, the other half") == 1
    assert sum("Flow run 'outer-run' finished in state" in line for line in above) == 1
    assert not any("━" in line for line in above), text
    assert "\x1b[?25l" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is there again


@pytest.mark.stress  # a picture that grows and a log line at the same moment: one erased the other
def test_no_log_line_is_erased_on_a_busy_machine(tmp_path):
    def finished(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        shown = Screen(on_a_terminal(folder, FLOW + "\nnaps(return_state=True)\n")).shown()
        return sum("Flow run 'outer-run' finished in state" in line for line in shown)

    with ThreadPoolExecutor(8) as eight_at_once:
        assert list(eight_at_once.map(finished, range(64))) == [1] * 64


def test_a_stdout_that_is_no_terminal_gets_what_the_flow_prints(tmp_path):
    out = tmp_path / "out.txt"
    with out.open("w") as file:
        written = on_a_terminal(tmp_path, FLOW + "\nnaps(return_state=True)\n", stdout=file)
    assert out.read_text().splitlines()[0] == "nap 5"
    assert "━" not in out.read_text()
    assert "nap 5" not in written
    assert "outer-run" in written


def test_prints_that_are_logged_come_out_above_and_stdout_is_itself_afterwards(tmp_path):
    source = FLOW + dedent("""
        before = sys.stdout, sys.stderr
        naps.with_options(log_prints=True)(return_state=True)
        assert (sys.stdout, sys.stderr) == before
        print("the same")
    """)
    shown = Screen(on_a_terminal(tmp_path, source)).shown()
    assert shown[-1] == "the same"
    assert sum("from the flow" in line for line in shown) == 1, "\n".join(shown)


def test_the_terminal_is_given_back_after_an_interrupt(tmp_path):
    source = FLOW + dedent("""
        @flow(task_runner="sequential", name="stops")
        def stops():
            nap(1)
            raise KeyboardInterrupt
        try:
            stops()
        except KeyboardInterrupt:
            print("interrupted")
        stops.with_options(name="again")
        naps(return_state=True)
    """)
    written = on_a_terminal(tmp_path, source)
    shown = Screen(written).shown()
    assert any(re.fullmatch(r"stops \(.*\)  \d+\.\d s  Crashed", line) for line in shown)
    assert "interrupted" in shown
    assert any(line.startswith("naps (outer-run)") for line in shown)


def test_of_two_flow_runs_at_once_one_is_shown(tmp_path):
    source = FLOW + dedent("""
        barrier = threading.Barrier(2, timeout=30)
        @flow(task_runner="sequential")
        def meets(name):
            barrier.wait()
            nap(1)
            barrier.wait()
        threads = [threading.Thread(target=meets, args=[name]) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    """)
    shown = Screen(on_a_terminal(tmp_path, source)).shown()
    # (Rich draws the last picture twice where the other one prints in the middle of that.)
    assert len({found[1] for line in shown if (found := re.match(r"meets \(([^)]*)\)", line))}) == 1


def test_a_picture_that_cannot_be_begun_does_not_keep_the_terminal_from_later_ones(tmp_path):
    source = FLOW + dedent("""
        from rich.live import Live

        def broken(self):
            raise OSError("no cursor")

        start, Live.start = Live.start, broken
        naps(return_state=True)
        Live.start = start
        naps.with_options(name="again")(return_state=True)
    """)
    shown = Screen(on_a_terminal(tmp_path, source)).shown()
    text = "\n".join(shown)
    assert sum("raised in `riverrun_flow_run_started`: it is switched off" in line for line in shown) == 1, text
    assert not any(line.startswith("naps (outer-run)") for line in shown), text
    assert any(line.startswith("again (outer-run)") for line in shown), text


def test_a_dumb_terminal_gets_log_lines_only(tmp_path):
    written = on_a_terminal(tmp_path, FLOW + "\nnaps(return_state=True)\n", TERM="dumb")
    assert "Flow run 'outer-run' finished in state" in written
    assert "━" not in written
    assert "\x1b" not in written


def test_without_a_terminal_it_is_silent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FLOW + "\nnaps(return_state=True)\n")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if re.match(r"\d\d:\d\d:\d\d\.\d{3} \|", line)]
    assert "━" not in done.stderr + done.stdout
    assert "naps (outer-run)" not in done.stderr
    assert len(lines) > 10


@pytest.mark.parametrize("module", ["progress", "otel"])
def test_the_observers_of_the_core_use_public_modules_only(module):
    source = Path(observers.__file__).with_name(f"{module}.py").read_text("utf-8")
    imported = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    ours = {f"{module}.{name}" for module, name in imported if module.startswith("riverrun")}
    assert "riverrun.hookimpl" in ours
    assert [name for name in ours if "._" in name and name != "riverrun.__version__"] == []
