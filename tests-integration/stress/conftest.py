"""Programs as processes of their own, watched from outside, and processes that keep this machine busy beside them.

The programs are in `programs`; a test starts one with a seed and a folder, where it leaves marks and what it draws.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported, which reads it then
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

LIMIT = 400
"""Seconds after which a program hangs; on a busy machine one that starts and ends an instance of Ray takes 40."""
GONE_WITHIN = 60
"""Seconds after which a process that is still there, after its program has ended, has been left behind."""
LOOK_EVERY = 0.001
"""Seconds between two looks at a program."""
PROGRAMS = Path(__file__).parent / "programs"
LOAD = "STRESS_LOAD"
"""The environment variable that says how many processes keep the machine busy meanwhile; by default, one for a core."""
BUSY = "import os\nwhile os.getppid() == {parent}:\n    for _ in range(1_000_000):\n        pass\n"


# -- load


def load() -> int:
    """How many processes keep the machine busy; of several processes of pytest-xdist, one starts them."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
        return 0
    return int(os.environ.get(LOAD) or os.cpu_count() or 1)


def pytest_report_header() -> str:
    return f"stress: {load()} busy processes beside the tests ({LOAD}=N for another number)"


@pytest.fixture(scope="session", autouse=True)
def _busy_machine() -> Iterator[None]:
    """Keep the machine busy while these tests run; each process ends with this one, however that ends."""
    source = BUSY.format(parent=os.getpid())
    busy = [subprocess.Popen([sys.executable, "-c", source], start_new_session=True) for _ in range(load())]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """In the background of a shell script Ctrl-C is ignored, also by all that is started from there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# -- clusters that are there


@pytest.fixture
def dask_address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A scheduler and two workers with one thread each, whose nannies start them again."""
    file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    log = (tmp_path / "log").open("w")
    started = []

    def start(*arguments: str):
        command = [sys.executable, "-m", "dask", *arguments, *options]
        started.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True))

    with log:
        start("scheduler", "--port", "0", "--scheduler-file", str(file))
        end = time.monotonic() + 120
        while not (file.exists() and file.read_text()):
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        start("worker", address, "--nworkers", "2", "--nthreads", "1", "--local-directory", str(tmp_path))
        yield address, started[1].pid
        for process in reversed(started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def ray_address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A head with two CPUs: its address, and its process."""
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))  # the names of sockets are made of it
    arguments = ["start", "--head", "--port=0", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    arguments += ["--include-dashboard=false", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *arguments, "--temp-dir", str(folder)]
    file, log = folder / "ray_current_cluster", tmp_path / "log"
    with log.open("w") as out:
        # A head that is told that there are no other nodes takes loopback, and so do its children.
        environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        head = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env=environment)
        end = time.monotonic() + 120
        while not (file.exists() and file.read_text()):
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield file.read_text(), head.pid
        import psutil

        for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            with suppress(psutil.Error):
                process.kill()
        head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _is_connected(process: psutil.Process, address: str) -> bool:
    """Say whether a worker has joined the cluster at an address: one that is being started can do nothing yet."""
    import psutil

    with suppress(psutil.Error):
        port = int(address.rpartition(":")[2])
        return any(there.raddr and there.raddr.port == port for there in process.net_connections("tcp"))
    return False


@pytest.fixture(scope="session")
def workers_of() -> Callable[..., list[psutil.Process]]:
    """What gives the workers among the descendants of a process; with an address, those that have joined there."""

    def found(pid: int, joined: str = "") -> list[psutil.Process]:
        return [one for one in _workers_of(pid) if not joined or _is_connected(one, joined)]

    return found


def _workers_of(pid: int) -> list[psutil.Process]:
    """The workers among the descendants of a process: what multiprocessing has started for Dask, and Ray's by name."""
    import psutil

    found = []
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                is_dasks = "multiprocessing.spawn" in command or (
                    "multiprocessing.forkserver" in command and process.ppid() != pid
                )
                if is_dasks or command.startswith("ray::"):
                    found.append(process)
    return [process for process in found if not process.name().startswith("ray::Dash")]


# -- programs


class Program:
    """A program as a process of its own, with folders of its own for temporary files and for the marks it leaves."""

    def __init__(self, name: str, runner: str, seed: int, *arguments: str) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
        self.temporary, self.folder = self.place / "t", self.place / "marks"
        self.temporary.mkdir()
        self.folder.mkdir()
        self.signals: list[str] = []
        """What was sent, and when."""
        command = [str(PROGRAMS / f"{name}.py"), runner, str(seed), str(self.folder), *arguments]
        self.told = f"python {' '.join(command)}"
        env = {**os.environ, "RIVERRUN_LOG_LEVEL": "ERROR", "TMPDIR": str(self.temporary), "STRESS": str(self.place)}
        with (self.place / "out").open("w") as out, (self.place / "err").open("w") as err:
            self.began = time.time()
            self.process = subprocess.Popen(
                [sys.executable, *command], env=env, cwd=self.place, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    # What it says

    @property
    def out(self) -> str:
        return (self.place / "out").read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return (self.place / "err").read_text(encoding="utf-8", errors="replace")

    def has(self, mark: str) -> bool:
        return (self.folder / mark).exists()

    def marks(self) -> set[str]:
        return {entry.name for entry in self.folder.iterdir()}

    def when(self, mark: str) -> float:
        """When it left a mark, in seconds after its start."""
        return (self.folder / mark).stat().st_mtime - self.began

    def wrote(self, name: str) -> Any:
        file = self.folder / name
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def story(self) -> str:
        """All that somebody needs who wants to know what has happened."""
        status = self.process.poll()
        return "\n".join([
            f"program: {self.told}",
            f"plan: {json.dumps(self.wrote('plan'))}",
            f"sent: {', '.join(self.signals) or 'nothing'}",
            f"marks: {', '.join(f'{mark} at {self.when(mark):.3f} s' for mark in sorted(self.marks(), key=self.when))}",
            f"status: {status}",
            f"stdout:\n{self.out[-10_000:]}",
            f"stderr:\n{self.err[-20_000:]}",
        ])  # fmt: skip

    def fail(self, what: str) -> NoReturn:
        pytest.fail(f"{what}\n{self.story()}", pytrace=False)

    def check(self, holds: object, what: str) -> None:
        if not holds:
            self.fail(what)

    # What is done to it

    def wait_for(self, mark: str | None, seconds: float = 0) -> bool:
        """Wait until it has left a mark (None: none), and so many seconds more; false if it has ended before."""
        end = time.monotonic() + LIMIT
        while mark is not None and not self.has(mark):
            if self.has_ended():
                return False
            if time.monotonic() > end:
                self.hangs(f"{mark!r} was not there within {LIMIT} s")
            time.sleep(LOOK_EVERY)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return False
        return True

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def send(self, number: signal.Signals, *, to_group: bool = False) -> None:
        """Send a signal to the process, or to its group, as a terminal does."""
        self.signals.append(f"{number.name} {'to the group ' * to_group}at {time.time() - self.began:.3f} s")
        if not self.has_ended():
            with suppress(ProcessLookupError):
                (os.killpg if to_group else os.kill)(self.process.pid, number)

    def end(self) -> int:
        """Wait until it has ended by itself, and give its status; a hang is a failure, with its stacks."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.hangs(f"it had not ended within {LIMIT} s")

    def hangs(self, what: str) -> NoReturn:
        self.process.send_signal(signal.SIGUSR1)  # its stacks go to stderr
        time.sleep(5)
        self.fail(f"{what}. It was at:")

    # What is left of it

    def processes(self) -> list[psutil.Process]:
        """List its processes that have not ended, in whatever groups they are."""
        import psutil

        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if process.status() != psutil.STATUS_ZOMBIE and self._is_mine(process):
                    found.append(process)
        return found

    def _is_mine(self, process: psutil.Process) -> bool:
        import psutil

        if os.getsid(process.pid) == self.process.pid or str(self.place) in " ".join(process.cmdline()):
            return True
        with suppress(psutil.AccessDenied):
            return process.environ().get("STRESS") == str(self.place)
        return False

    def left(self) -> list[str]:
        """Name its processes and folders that are left after its end; those that are on their way out have time."""
        end = time.monotonic() + GONE_WITHIN
        while (processes := self.processes()) and time.monotonic() < end:
            time.sleep(0.1)
        names = []
        for process in processes:
            with suppress(Exception):  # it has ended just now
                names.append(f"process {process.name()}")
        return [*names, *(f"folder {entry.name}" for entry in self.temporary.glob("riverrun-*"))]

    def remove(self) -> None:
        """End it, whatever it has started, and remove its folders."""
        import psutil

        for _ in range(3):  # some may be starting others
            for process in self.processes():
                with suppress(psutil.Error):
                    process.kill()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.place, ignore_errors=True)


@pytest.fixture
def start_program() -> Iterator[Callable[..., Program]]:
    """Start a program; after the test nothing of it is left."""
    programs: list[Program] = []

    def start(name: str, runner: str, seed: int, *arguments: str) -> Program:
        programs.append(Program(name, runner, seed, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.remove()


@pytest.fixture(scope="session")
def undisturbed() -> Callable[[str, str], dict[str, float]]:
    """Tell when a program leaves its marks, and ends, in seconds after its start, if nothing is done to it."""
    known: dict[tuple[str, str], dict[str, float]] = {}

    def times(name: str, runner: str) -> dict[str, float]:
        if (name, runner) not in known:
            program = Program(name, runner, 0)
            try:
                status = program.end()
                took = time.time() - program.began
                program.check(status == program.wrote("plan")["status"], "undisturbed, it ended with another status")
                program.check(not (left := program.left()), f"undisturbed, it left behind: {left}")
                known[name, runner] = {mark: program.when(mark) for mark in program.marks()} | {"end": took}
            finally:
                program.remove()
        return known[name, runner]

    return times
