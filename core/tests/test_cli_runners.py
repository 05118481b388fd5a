from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Command, Install, RunnerSource


@pytest.fixture
def slurm(install: Install, runner_source: RunnerSource):
    install(
        "runner-slurm",
        {"slurm": "slurm_plugin:SlurmTaskRunner"},
        {"slurm_plugin": runner_source("SlurmTaskRunner")},
        version="2.1",
    )


@pytest.fixture
def bad(install: Install):
    install("runner-bad", {"bad": "bad_plugin:X"}, {"bad_plugin": "raise OSError('no such queue')\n"})


def test_the_runners_are_listed_with_what_is_known_of_them(command: Command, slurm: None):
    ended = command("runners")
    assert ended.status == 0
    lines = ended.out.splitlines()
    # Where one of ours is not installed, a sixth column says so.
    assert lines[0].split()[:5] == ["NAME", "CLASS", "DISTRIBUTION", "VERSION", "CONCURRENCY"]
    assert [line.split()[0] for line in lines[1:5]] == ["sequential", "concurrent", "dask", "ray"]
    (line,) = [line for line in lines if line.startswith("slurm ")]
    assert line.split() == ["slurm", "slurm_plugin:SlurmTaskRunner", "runner-slurm", "2.1", "concurrent"]


def test_a_broken_runner_is_listed_with_the_reason(command: Command, slurm: None, bad: None):
    ended = command("runners")
    assert ended.status == 0
    (line,) = [line for line in ended.out.splitlines() if line.startswith("bad ")]
    assert line.split()[:4] == ["bad", "bad_plugin:X", "runner-bad", "1.0"]
    assert line.endswith("The task runner `bad` of runner-bad 1.0 cannot be loaded: OSError: no such queue")


def test_the_check_fails_if_an_installed_runner_is_broken(command: Command, slurm: None, bad: None):
    assert command("runners", "--check").status == 1


def test_the_check_passes_if_others_are_not_installed(command: Command, slurm: None):
    assert command("runners", "--check").status == 0


def test_the_check_passes_a_broken_runner_that_is_switched_off(
    command: Command, bad: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "1")
    ended = command("runners", "--check")
    assert ended.status == 0
    assert "switched off by RIVERRUN_DISABLE_PLUGINS" in ended.out
