"""Ctrl-C and SIGTERM, on a real process."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from riverrun.testing import _interrupted
from riverrun.testing._patience import NotAtOnce, expect, limit_of, limited
from riverrun.testing._suite import Suite, crosses_processes
from riverrun.testing._traces import left_of_group

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.abc import TaskRunner

SIGNALS = {
    "ctrl_c": (signal.SIGINT, {-signal.SIGINT, 128 + signal.SIGINT}),
    "sigterm": (signal.SIGTERM, {-signal.SIGTERM, 128 + signal.SIGTERM}),
}
STDERR = "stderr"
"""The name of the file for what the script writes to stderr."""


@limited
class Interrupts(Suite):
    """The script is run by a Python of its own, so that there is a main thread that can be interrupted."""

    @pytest.mark.skipif(os.name != "posix", reason="sends signals as a POSIX shell does")
    @pytest.mark.parametrize("kind", ["sync", "async"])
    @pytest.mark.parametrize("name", SIGNALS)
    def test_the_process_ends_and_leaves_no_other_behind_after(
        self, task_runner: TaskRunner, tmp_path: Path, name: str, kind: str
    ) -> None:
        number, statuses = SIGNALS[name]
        # Before the check as a whole is given up, with the processes that it has started.
        end = time.monotonic() + 0.9 * limit_of(type(self))
        # A terminal sends Ctrl-C to the whole group of processes; `kill` sends a signal to one.
        for whole_group in [False, True] if crosses_processes(task_runner) and name == "ctrl_c" else [False]:
            folder = tmp_path / f"group-{whole_group}"
            folder.mkdir()
            process = _script(task_runner, folder, kind)
            try:
                _wait_until_it_runs(process, folder, end)
                (os.killpg if whole_group else os.kill)(process.pid, number)
                errors = _errors_at_its_end(process, folder, end)
                assert process.returncode in statuses, f"the exit status tells of the signal; stderr was:\n{errors}"
                assert left_of_group(process.pid, min(self.patience / 2, _until(end))) == [], (
                    "no child process outlives the process of the flow"
                )
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _script(task_runner: TaskRunner, folder: Path, kind: str) -> subprocess.Popen[bytes]:
    """Start a flow that does not end, in a group of processes of its own."""
    (folder / "runner").write_bytes(pickle.dumps(task_runner))
    module = type(task_runner).__module__
    script = f"from {_interrupted.__name__} import main; main()"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-c",
        script,
        str(folder),
        kind,
        module,
        str(sys.modules[module].__file__),
    ]
    # No pipe: what outlives the process would hold it, and its end would never be read.
    with (folder / STDERR).open("wb") as errors:
        return subprocess.Popen(  # noqa: S603 - our own script, and a Python that is running already
            command,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def _until(end: float) -> float:
    return max(0.0, end - time.monotonic())


def _wait_until_it_runs(process: subprocess.Popen[bytes], folder: Path, end: float) -> None:
    started = folder / "started"
    expect(lambda: started.exists() or process.poll() is not None, "the task in the script did not start", _until(end))
    assert started.exists(), f"the script ended by itself:\n{_errors(folder)}"


def _errors_at_its_end(process: subprocess.Popen[bytes], folder: Path, end: float) -> str:
    seconds = _until(end)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler says where every thread was
        process.wait()
        msg = f"after a signal the process ends; this one had not after {seconds:.0f} seconds:\n{_errors(folder)}"
        raise NotAtOnce(msg) from None
    return _errors(folder)


def _errors(folder: Path) -> str:
    return (folder / STDERR).read_text("utf-8", "replace")
