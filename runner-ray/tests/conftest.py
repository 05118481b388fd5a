"""Ray clusters and scripts as processes of their own, on loopback, under time limits, ended by their id."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Before Ray is imported, which reads it once: all clusters of these tests ask for this token.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
# A node ends itself if its parts do not report within 30 seconds; on a busy machine they may not.
os.environ.update(RAY_agent_register_timeout_ms="300000", RAY_worker_register_timeout_seconds="300")

LIMIT = 120
"""How long anything may take before it counts as a hang, in seconds; on a quiet machine nothing takes more than ten."""
HANG = 400
"""How long a test may take here, in seconds, if it does not say it itself: it may wait for several such things."""


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(HANG))


def eventually(condition: Callable[[], object], what: str, limit: float = LIMIT):
    """Wait until a condition is true; give its value."""
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        time.sleep(0.05)
    return value


class Processes:
    """Processes that a test has started: each in a group of its own, all of them gone after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, env: dict[str, str] | None = None, **options) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "RIVERRUN_LOG_LEVEL": "INFO", **(env or {})},
            **{"stdin": subprocess.DEVNULL, **options},
            start_new_session=True,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self):
        for process in self._started:
            kill_all(process.pid)
            process.communicate()


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants, in whatever groups they are."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def kill_all(pid: int) -> None:
    """End a process, its group and its descendants."""
    members = family(pid)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for each in members:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(members, 10)


@pytest.fixture
def processes(tmp_path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PATIENT = f"""
import time
from ray._private import services

def patient(look):
    def get_node(*args):
        end = time.monotonic() + {LIMIT}
        while True:
            try:
                return look(*args)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    return get_node

services.get_node = patient(services.get_node)
"""
"""Code that lets Ray wait for its own node for longer than 30 seconds, in which a busy machine does not start one."""

LEAN = f"""{PATIENT}
from ray._private.node import Node
Node.start_monitor = Node.start_log_monitor = Node.start_api_server = lambda *_, **__: None
"""
"""Code that lets Ray start no autoscaler, no monitor of logs and no server for a dashboard: a third of a head's cost.

Nothing of Riverrun asks them for anything but whether there is an autoscaler, and of that they say no.
"""

NODE = f"""{PATIENT}
import sys
from ray._private import services
services.get_node_ip_address = lambda address=None: "127.0.0.1"  # loopback, which Ray never takes by itself
from ray.scripts.scripts import main
sys.argv = ["ray", *sys.argv[1:]]
main()
"""


class RayCluster:
    """A head, and as many nodes as a test starts, as `ray start` starts them."""

    def __init__(
        self, processes: Processes, *options: str, cpus: int = 2, client: bool = False, lean: bool = True
    ) -> None:
        self._processes = processes
        self._code = f"{LEAN if lean else ''}{NODE}"
        self._nodes: list[subprocess.Popen[str]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="rr-", dir="/tmp"))  # the names of sockets are made of it
        client_port = free_port()
        self.client_address = f"ray://127.0.0.1:{client_port}"
        # Without a server for Ray Client, the head needs not be waited for so long.
        options += ("--ray-client-server-port", str(client_port)) if client else ()
        self.head = self._start("--head", "--port=0", "--temp-dir", str(self.folder), "--num-cpus",
                                str(cpus), "--include-dashboard=false", *options)  # fmt: skip
        try:
            self._wait_for(self.head, "Ray runtime started")
            # Ray writes its address down after it has said so.
            file = self.folder / "ray_current_cluster"
            self.address = eventually(lambda: file.exists() and file.read_text(), "Ray writes its address down")
            if client:
                eventually(lambda: is_open(client_port), "the server for Ray Client listens")
        except BaseException:
            self.end()
            raise

    def start_node(self, *options: str, cpus: int = 2) -> subprocess.Popen[str]:
        """Start a node more; wait until it is there."""
        node = self._start("--address", self.address, "--num-cpus", str(cpus), *options)
        self._nodes.append(node)
        self._wait_for(node, "Ray runtime started")
        return node

    def _start(self, *options: str) -> subprocess.Popen[str]:
        self.log = self.folder / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as log:
            return self._processes.start(
                "-c", self._code, "start", "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block",
                # Ports of the system's choice: by default, all clusters of a machine try the same ones.
                "--min-worker-port=0", "--max-worker-port=0", *options, stdout=log, stderr=log,
                # A head that is told that there are no other nodes takes loopback, and so do its children. Without
                # gRPC's preparations for a fork, its server for Ray Client does not lose some that it forks.
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GRPC_ENABLE_FORK_SUPPORT": "0",
                     **({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if "--head" in options else {})},
            )  # fmt: skip

    def _wait_for(self, process: subprocess.Popen[str], text: str) -> None:
        log = self.log

        def there():
            assert process.poll() is None, log.read_text()
            return text in log.read_text()

        eventually(there, f"Ray says {text!r}")

    def processes_named(self, name: str, of: subprocess.Popen[str] | None = None) -> list[psutil.Process]:
        found = []
        for each in family((of or self.head).pid):
            with suppress(psutil.NoSuchProcess):
                if each.name().startswith(name) and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
        return found

    def kill(self, name: str, of: subprocess.Popen[str] | None = None) -> None:
        (found,) = self.processes_named(name, of)
        found.kill()

    @property
    def is_whole(self) -> bool:
        """Whether the head is there, with all that belongs to it."""
        return self.head.poll() is None and all(self.processes_named(name) for name in ("gcs_server", "raylet"))

    def end_nodes(self) -> None:
        """End what is left of the nodes that tests have started."""
        for node in self._nodes:
            kill_all(node.pid)
            node.wait()
        self._nodes.clear()

    def end(self) -> None:
        self.end_nodes()
        kill_all(self.head.pid)
        self.head.wait()
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def make_ray_cluster(processes) -> Iterator[Callable[..., RayCluster]]:
    """Start a head with options."""
    made = []

    def make(*options, **more):
        made.append(RayCluster(processes, *options, **more))
        return made[-1]

    yield make
    for cluster in made:
        cluster.end()


@pytest.fixture(scope="session")
def shared_ray_cluster(tmp_path_factory) -> Iterator[RayCluster]:
    """A head with two CPUs and a server for Ray Client: for all tests that leave it as it was."""
    processes = Processes(tmp_path_factory.mktemp("shared"))
    cluster = RayCluster(processes, client=True, lean=False)
    yield cluster
    processes.end()
    cluster.end()


@pytest.fixture(scope="session")
def lasting_ray_clusters(tmp_path_factory) -> Iterator[list[RayCluster]]:
    """The heads that were started for tests that may kill theirs."""
    clusters: list[RayCluster] = []
    yield clusters
    for cluster in clusters:
        cluster.end()


@pytest.fixture
def mortal_ray_cluster(lasting_ray_clusters, tmp_path_factory) -> RayCluster:
    """A head that a test may kill: that of the test before, if it is alive, or a new one."""
    if lasting_ray_clusters and lasting_ray_clusters[-1].is_whole:
        lasting_ray_clusters[-1].end_nodes()
    else:
        lasting_ray_clusters.append(RayCluster(Processes(tmp_path_factory.mktemp("mortal"))))
    return lasting_ray_clusters[-1]


class Sessions:
    """The session of Ray in the tests' process, of which there is one: it goes from test to test."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._session: Any = None

    def hold(self, address: str) -> None:
        """See that a session with a cluster is open; flow runs that ask for the same share it."""
        import ray
        from runner_ray import RayTaskRunner
        from runner_ray._sessions import opened

        held = self._session
        if held is None or held.asked != (address, None) or held.gone or not ray.is_initialized():
            self.close()
            self._session = self._open.enter_context(opened(RayTaskRunner(address=address, start_timeout=LIMIT)))

    def close(self) -> None:
        self._session = None
        self._open.close()


@pytest.fixture(scope="session")
def sessions() -> Iterator[Sessions]:
    sessions = Sessions()
    yield sessions
    sessions.close()


@pytest.fixture
def held_session(sessions, shared_ray_cluster) -> RayCluster:
    """The shared cluster, and a session with it that stays open: flow runs that overlap with it share it."""
    sessions.hold(shared_ray_cluster.address)
    return shared_ray_cluster


@pytest.fixture
def no_session(sessions) -> None:
    """None is open in this process: for tests whose flow runs open their own."""
    sessions.close()


@pytest.fixture
def lean(monkeypatch) -> None:
    """Let temporary instances of this process do without what they do not need."""
    from ray._private.node import Node

    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        monkeypatch.setattr(Node, name, lambda *_, **__: None)


@pytest.fixture
def run_script(processes, tmp_path):
    """Run a script to its end; give what it printed, or start it only."""

    def run(source: str, *arguments: str, name: str = "script.py", wait: bool = True, lean: bool = False, **options):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((LEAN if lean else "") + dedent(source))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = processes.start(*(arguments or (str(file),)), **{**pipes, **options})
        if not wait:
            return process
        process.out, process.err = process.communicate(timeout=LIMIT)
        return process

    return run


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.fixture
def wait_until():
    return eventually


@pytest.fixture
def family_of():
    return family


class Notes:
    """A file in which tasks note, one line each, that they have begun."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self):
        return Path(self.path).read_text().splitlines() if Path(self.path).exists() else []

    def counts(self):
        return Counter(self.lines())


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def noting(notes):
    """A function for tasks: it adds a line to the notes."""
    path = notes.path

    def note(text):
        with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{text}\n")

    return note


@pytest.fixture
def holding(tmp_path, wait_until):
    """A function for tasks that tells its process and waits for ever, the first time; and the process that does."""
    path = str(tmp_path / "held.txt")

    def hold():
        if os.path.exists(path):  # noqa: PTH110 - it runs on workers
            return
        with open(f"{path}.new", "w") as file:  # noqa: PTH123
            file.write(str(os.getpid()))
        os.rename(f"{path}.new", path)  # noqa: PTH104
        time.sleep(600)

    def held():
        return int(wait_until(lambda: Path(path).exists() and Path(path).read_text(), "a task holds its worker"))

    return hold, held
