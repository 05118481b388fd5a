"""The journal of a worker process: what its reader sees when the process was killed in the middle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from riverrun import _journal
from riverrun.workers import JournalFile
from riverrun.workers import read_journal as read

LIMIT = 30


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal")


@pytest.fixture
def journal(path):
    made = JournalFile(path)
    yield made
    made.close()


def test_what_began_ended_and_was_said_can_be_read(journal, path):
    journal.begin("over")
    journal.line("over", "gone with its call")
    journal.begin("runs")
    journal.line("runs", "first\nsecond")
    journal.end("over")
    seen = read(path)
    assert seen is not None
    assert (seen.started("over"), seen.started("runs"), seen.started("other")) == (True, True, False)
    assert seen.running() == ["runs"]
    assert seen.lines("runs") == ["first", "second"]
    assert seen.lines("runs", n=1) == ["second"]
    assert seen.lines("over") == seen.lines("other") == []


def test_the_peak_of_memory_is_noted_while_something_runs(journal, path):
    journal.begin("runs")
    end = time.monotonic() + LIMIT
    while not read(path).peak_rss and time.monotonic() < end:
        time.sleep(0.01)
    assert 1 << 20 < read(path).peak_rss <= journal.peak()


def test_a_long_journal_is_shortened_when_nothing_runs(journal, path):
    journal.begin("talks")
    for _ in range(1000):
        journal.line("talks", "x" * 1999)
    assert Path(path).stat().st_size > _journal.LIMIT
    journal.end("talks")
    assert Path(path).stat().st_size < 100
    assert read(path).started("talks")  # its end may not have been told yet
    journal.begin("next")
    assert read(path).running() == ["next"]


def test_a_journal_of_calls_that_never_stop_talking_stays_bounded_and_keeps_their_last_lines(journal, path):
    journal.begin("talks")
    for n in range(10_000):
        journal.line("talks", f"{n} " + "x" * 1990)
    assert Path(path).stat().st_size <= 8 * _journal.LIMIT + 2048
    seen = read(path)
    assert seen.running() == ["talks"]
    assert [row.split()[0] for row in seen.lines("talks", 3)] == ["9997", "9998", "9999"]


def test_any_text_is_a_key_and_a_line(journal, path):
    key = "näme\twith\nodd \udcff parts"
    journal.begin(key)
    journal.line(key, "tab\there")
    assert read(path).started(key)
    assert read(path).lines(key) == ["tab here"]


def test_a_closed_journal_is_gone_and_takes_no_harm(journal, path):
    journal.begin("runs")
    journal.close()
    journal.end("runs")
    journal.line("runs", "late")
    assert not Path(path).exists()
    assert read(path) is None
    assert read("") is None


def test_threads_share_it(journal, path):
    def work(n):
        for m in range(200):
            journal.begin(f"{n}-{m}")
            journal.line(f"{n}-{m}", "said")
            if m % 2:
                journal.end(f"{n}-{m}")

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(read(path).running()) == 400


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(9)"])
def test_it_survives_its_process(path, end):
    script = f"""
import os
from riverrun.workers import JournalFile
journal = JournalFile({path!r})
journal.begin("runs")
journal.line("runs", "the last words")
{end}
"""
    process = subprocess.run([sys.executable, "-c", script], timeout=LIMIT, check=False)
    assert process.returncode in {9, -9}
    assert read(path).running() == ["runs"]
    assert read(path).lines("runs") == ["the last words"]
