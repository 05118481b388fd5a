from __future__ import annotations

import signal
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from riverrun import _report

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command, Write

FLOWS = """
    from riverrun import flow, task

    @task
    def divide(x):
        return 1 / x

    @task(task_run_name="<script>alert({x})</script>")
    def evil(x):
        raise ValueError("<b>bold</b>")

    @task
    def after(x):
        return x

    @flow(task_runner="sequential")
    def below():
        divide(4)

    @flow(task_runner="sequential", flow_run_name="nightly")
    def main(password: str = "hunter2", days: list[int] = [1]):
        divide.map([1, 2])
        below()

    @flow(task_runner="sequential", flow_run_name="nightly")
    def fails(password: str = "hunter2"):
        divide(1)
        after(evil(1))

    @flow(task_runner="sequential")
    def many(count: int):
        divide.map(range(1, count + 1))

    @flow(task_runner="sequential")
    def nothing():
        pass
"""


class Page(HTMLParser):
    """The text and the tags of a page, which has to be well formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(command: Command, name: str, *typed: str, status: int = 0) -> Page:
    ended = command("run", f"f.py:{name}", "--report", "out.html", *typed)
    assert ended.status == status, ended.err
    with open("out.html", encoding="utf-8") as file:  # noqa: PTH123 - in the working directory
        return Page(file.read())


@pytest.fixture(autouse=True)
def flows(write: Write):
    write("f.py", FLOWS)


def test_the_report_tells_the_run_and_the_runs_inside(command: Command):
    page = report(command, "main")
    assert "Flow run nightly Completed" in page.text
    assert "Task runner SequentialTaskRunner" in page.text
    assert "Parameters password: str, days: list" in page.text
    assert "Runs Completed 4" in page.text
    assert page.text.count("divide-") == 3 + 3  # in the table, and as titles of the bars
    assert "subflow" in page.text
    assert page.tags.count("rect") == 4


def test_no_value_of_a_parameter_is_in_the_report(command: Command, bare_settings: Path):
    report(command, "main")
    assert "hunter2" not in (bare_settings / "out.html").read_text()


def test_the_report_of_a_failed_run_begins_with_what_failed(command: Command):
    page = report(command, "fails", status=1)
    assert "Flow run nightly Failed" in page.text
    assert "Failed 1" in page.text
    assert "NotReady 1" in page.text
    failed, not_failed = page.text.index("<b>bold</b>"), page.text.index("divide-")
    assert failed < not_failed
    rows = page.text[page.text.index("Task runs Name") :]
    assert rows.index("<script>") < rows.index("divide-")


def test_nothing_that_a_user_named_is_taken_as_html(command: Command):
    page = report(command, "fails", status=1)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_the_report_needs_no_other_file_and_no_network(command: Command, bare_settings: Path):
    report(command, "main")
    text = (bare_settings / "out.html").read_text()
    assert not [word for word in ("src=", "href=", "http", "@import", "url(") if word in text]


def test_a_flow_without_runs_has_a_report(command: Command):
    assert "It submitted no task runs." in report(command, "nothing").text


def test_a_report_of_very_many_runs_counts_all_and_lists_some(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_report, "MOST_ROWS", 10)
    page = report(command, "many", "-p", "count=1200")
    assert "Completed 1,200" in page.text
    assert "1,190 more that did not fail are not listed." in page.text
    assert page.tags.count("tr") == 1 + 10
    assert "The first 300 of 1,200 runs." in page.text
    assert page.tags.count("rect") == 300


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nowhere/out.html", "cannot be written: there is no folder `{here}/nowhere`. Make it first."),
        (".", "is a folder. Name a file in it: --report ./report.html"),
    ],
)
def test_a_report_that_cannot_be_written_is_told_before_anything_runs(
    command: Command, bare_settings: Path, path: str, text: str
):
    ended = command("run", "f.py:main", "--report", path)
    assert ended == (2, "", f"Error: `--report {path}` {text.format(here=bare_settings)}\n")


def test_a_report_that_can_no_longer_be_written_fails_the_command(command: Command, write: Write, bare_settings: Path):
    write(
        "f.py",
        """
        import shutil
        from riverrun import flow

        @flow(task_runner="sequential")
        def removes():
            shutil.rmtree("out")
        """,
    )
    (bare_settings / "out").mkdir()
    ended = command("run", "f.py", "--report", "out/report.html")
    assert ended.status == 1
    assert ended.err.startswith("Error: the report could not be written: ")


@pytest.mark.skipif(sys.platform == "win32", reason="a signal is sent")
def test_an_interrupted_run_has_a_report(write: Write, bare_settings: Path):
    write(
        "f.py",
        """
        import time
        from riverrun import flow, task

        @task
        def nap():
            print("asleep", flush=True)
            for _ in range(6000):  # a signal that comes just before one of them is seen after it
                time.sleep(0.1)

        @flow(task_runner="sequential")
        def naps():
            nap()
        """,
    )
    command = [sys.executable, "-m", "riverrun", "run", "f.py", "--report", "out.html"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Crashed" in Page((bare_settings / "out.html").read_text()).text
