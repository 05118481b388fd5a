"""Dask: flows beside the same work on a raw client, on one cluster, in turn."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from figures import Figure
from fresh_process import status
from processes import compiled_in
from riverrun import flow, task
from timing import each, in_turn, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from figures import Sizes

HERE = Path(__file__).parent
FLOW = """\
from riverrun import flow, task

@task
def add(a, b):
    return a + b

@flow(task_runner="dask")
def three():
    return add(1, 2)

if __name__ == "__main__":
    assert three() == 3
"""
RAW = """\
from distributed import Client, LocalCluster

def add(a, b):
    return a + b

if __name__ == "__main__":
    with LocalCluster() as cluster, Client(cluster) as client:
        assert client.submit(add, 1, 2).result() == 3
"""


def nothing(_: object = None) -> None:
    """Do nothing."""


@contextmanager
def cluster(sizes: Sizes) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Give a client of a default LocalCluster, and a decorator for flows that run on the same cluster.

    It is started for this benchmark; with one round alone, for all that use one.
    """
    from riverrun.task_runners import DaskTaskRunner

    with started() if sizes.rounds > 1 else nullcontext(started_for_all()) as client:
        yield client, flow(task_runner=DaskTaskRunner(cluster=client.cluster))


@contextmanager
def started() -> Iterator[Any]:
    """Start a default LocalCluster; give a client."""
    from distributed import Client, LocalCluster

    with LocalCluster(dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        yield client


@cache
def started_for_all() -> Any:
    """Start one that is closed at the end of this process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(started())


def dask_tasks(sizes: Sizes) -> list[Figure]:
    """No-op tasks on a Dask cluster, one call each; beside `client.submit` each and one `gather`."""
    count = sizes.dask_tasks
    noop = task(nothing)
    with cluster(sizes) as (client, on_the_cluster):

        @on_the_cluster
        def ours() -> None:
            for future in [noop() for _ in range(count)]:
                future.result()

        def raw() -> None:
            client.gather([client.submit(nothing, pure=False) for _ in range(count)])

        times = in_turn({"ours": ours, "raw": raw}, sizes.rounds)
    what = f"{count:,} no-op tasks, Dask"
    return [Figure("dask-tasks", what, "us", each(times["ours"], count), each(times["raw"], count), "ratio", 1.1)]


def dask_chains(sizes: Sizes) -> list[Figure]:
    """Chains of dependent no-op tasks on a Dask cluster; beside native Dask futures."""
    chains, links = sizes.dask_chains
    count = chains * links
    noop = task(nothing)
    with cluster(sizes) as (client, on_the_cluster):

        @on_the_cluster
        def ours() -> None:
            ends = []
            for _ in range(chains):
                future = noop()
                for _ in range(links - 1):
                    future = noop(future)
                ends.append(future)
            for future in ends:
                future.result()

        def raw() -> None:
            ends = []
            for _ in range(chains):
                future = client.submit(nothing, pure=False)
                for _ in range(links - 1):
                    future = client.submit(nothing, future, pure=False)
                ends.append(future)
            client.gather(ends)

        times = in_turn({"ours": ours, "raw": raw}, sizes.rounds)
    what = f"{chains} chains of {links} no-op tasks, Dask"
    return [Figure("dask-chains", what, "us", each(times["ours"], count), each(times["raw"], count), "ratio", 1.1)]


def dask_kept(sizes: Sizes) -> list[Figure]:
    """What the flow's process keeps of each finished task run on Dask; beside futures of `client.map` that are held."""
    count = str(sizes.dask_kept)
    script = str(HERE / "fresh_process.py")
    pairs = [
        (
            float(python(script, "dask-kept", count, folder=HERE)),
            float(python(script, "raw-dask-kept", count, folder=HERE)),
        )
        for _ in range(sizes.few_rounds)
    ]
    ours, raw = [mine for mine, _ in pairs], [theirs for _, theirs in pairs]
    what = f"memory kept of each finished task run, {sizes.dask_kept:,} of them, Dask"
    return [Figure("dask-kept", what, "bytes", ours, raw, "ratio", 0.2)]


@contextmanager
def cluster_of_programs() -> Iterator[tuple[str, int]]:
    """Start `dask scheduler` and `dask worker`; give the address, and the id of the scheduler's process."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder, "scheduler.json")

        def start(*arguments: str) -> int:
            quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            program = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
            process = stack.enter_context(subprocess.Popen(program, cwd=folder, **quiet))
            stack.callback(process.kill)
            return process.pid

        scheduler = start("scheduler", "--port", "0", "--scheduler-file", str(file))
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text(encoding="utf-8")):
            if time.monotonic() > end:
                raise RuntimeError("`dask scheduler` did not start within 60 s.")
            time.sleep(0.05)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        start("worker", address, "--nthreads", "2", "--no-nanny")
        yield address, scheduler


def dask_scheduler(sizes: Sizes) -> list[Figure]:
    """What a scheduler keeps of flow runs that are over; beside as many raw clients that come, work and go."""
    from distributed import Client
    from riverrun.task_runners import DaskTaskRunner

    flow_runs, count = sizes.dask_flow_runs

    def nothing(_: object) -> None:
        """Do nothing; the workers cannot import this module, and so it travels."""

    noop = task(nothing)

    def ours(address: str) -> None:
        @flow(task_runner=DaskTaskRunner(address=address))
        def many() -> None:
            noop.map(range(count)).result()

        many()

    def raw(address: str) -> None:
        with Client(address, set_as_default=False) as client:
            client.gather(client.map(nothing, range(count), pure=False))

    def grown(once: Callable[[str], None]) -> float:
        with cluster_of_programs() as (address, scheduler):
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            before = status("VmRSS", scheduler)
            for _ in range(flow_runs):
                once(address)
            return (status("VmRSS", scheduler) - before) / 1e6

    what = f"growth of a Dask scheduler, {flow_runs} flow runs of {count:,} no-op tasks"
    pairs = [(grown(ours), grown(raw)) for _ in range(min(2, sizes.rounds))]
    mine, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return [Figure("dask-scheduler", what, "MB", mine, theirs, "value", 20.0, strictly=True)]


def dask_starting(sizes: Sizes) -> list[Figure]:
    """A whole process with a one-task flow on a temporary Dask cluster; beside LocalCluster, Client and one submit."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours.py").write_text(FLOW, encoding="utf-8")
        (folder / "raw.py").write_text(RAW, encoding="utf-8")
        compiled = compiled_in(folder / "compiled", sizes)
        times = in_turn(
            {
                script: lambda script=script: python(f"{script}.py", folder=folder, environment=compiled)
                for script in ("ours", "raw")
            },
            sizes.few_process_rounds,
        )
    ms = {contender: [time * 1e3 for time in taken] for contender, taken in times.items()}
    what = "a process with a one-task flow, temporary Dask cluster"
    return [Figure("dask-process", what, "ms", ms["ours"], ms["raw"], "ratio", 0.9)]
