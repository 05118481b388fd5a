"""The journal of a worker process, as the flow runs share it that use the worker; and workers that leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from riverrun.workers import read_journal as read
from riverrun.workers import sweep_journals
from runner_dask import _running

LIMIT = 100


@pytest.fixture
def worker(tmp_path):
    folder = tmp_path / "worker"
    folder.mkdir()
    yield folder
    _running.closed()
    _running._leaving.clear()
    _running._running.clear()


def test_flow_runs_share_the_journal_of_a_process_and_the_last_removes_it(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(_running, "_leaving", set())  # workers that were threads of this process have left
    path = _running.opened(str(worker))
    assert Path(path).parent == tmp_path  # beside the worker's folder, which the nanny removes
    assert _running.opened(str(worker)) == path
    assert _running.begin("runs")
    _running.line("runs", "said")
    _running.closed()
    assert read(path).lines("runs") == ["said"]
    _running.end("runs")
    _running.closed()
    assert not Path(path).exists()


def test_nothing_begins_on_a_worker_that_leaves(worker):
    assert _running.begin("before", "tcp://one")
    assert _running.begin("elsewhere", "tcp://two")
    assert _running.leave("tcp://one") == ["before"]
    assert not _running.begin("after", "tcp://one")
    assert not _running.begin("nowhere")
    assert _running.begin("other", "tcp://two")
    assert _running.running("tcp://one") == ["before"]
    assert sorted(_running.running()) == ["before", "elsewhere", "other"]


def test_without_a_folder_to_write_to_there_is_no_journal_and_no_harm(worker):
    assert _running.opened("/proc/nowhere/worker") == ""
    assert _running.begin("runs")
    _running.end("runs")


def test_old_journals_of_dead_processes_are_swept_and_others_are_not(worker, tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait(LIMIT)
    names = [
        f"riverrun-journal-{dead.pid}-old",
        f"riverrun-journal-{dead.pid}-new",
        f"riverrun-journal-{os.getpid()}-x",
    ]
    for name in names:
        (tmp_path / name).touch()
    for _ in range(2):  # the process may have died just now, long after its last line
        assert (tmp_path / names[0]).exists()
        for name in (names[0], names[2]):
            os.utime(tmp_path / name, (0, 0))
        sweep_journals(str(tmp_path))
    assert not (tmp_path / names[0]).exists()
    assert (tmp_path / names[1]).exists()
    assert (tmp_path / names[2]).exists()
