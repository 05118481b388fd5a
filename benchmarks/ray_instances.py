"""Ray: flows beside the same work with remote functions alone, on one instance, in turn."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from figures import Figure
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

@flow(task_runner="ray")
def three():
    return add(1, 2)

if __name__ == "__main__":
    assert three() == 3
"""
RAW = """\
import ray

@ray.remote
def add(a, b):
    return a + b

if __name__ == "__main__":
    ray.init("local", include_dashboard=False, logging_level="ERROR")
    assert ray.get(add.remote(1, 2)) == 3
    ray.shutdown()
"""


def nothing(_: object = None) -> None:
    """Do nothing."""


@contextmanager
def instance(sizes: Sizes) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Give Ray, on an instance, and a decorator for flows that run on the same instance.

    It is started for this benchmark; with one round alone, for all that use one, and Ray ends it with this process.
    """
    import ray
    from riverrun.task_runners import RayTaskRunner

    if not ray.is_initialized():
        ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        yield ray, flow(task_runner=RayTaskRunner())
    finally:
        if sizes.rounds > 1:
            ray.shutdown()


def ray_tasks(sizes: Sizes) -> list[Figure]:
    """No-op tasks on Ray, one call each; beside `.remote()` each and one `ray.get` of the list."""
    count = sizes.ray_tasks
    noop = task(nothing)
    with instance(sizes) as (ray, on_ray):
        remote = ray.remote(nothing)

        @on_ray
        def ours() -> None:
            for future in [noop() for _ in range(count)]:
                future.result()

        def raw() -> None:
            ray.get([remote.remote() for _ in range(count)])

        times = in_turn({"ours": ours, "raw": raw}, sizes.rounds)
    what = f"{count:,} no-op tasks, Ray"
    return [Figure("ray-tasks", what, "us", each(times["ours"], count), each(times["raw"], count), "ratio", 1.3)]


def ray_chains(sizes: Sizes) -> list[Figure]:
    """Chains of dependent no-op tasks on Ray; beside native references."""
    chains, links = sizes.ray_chains
    count = chains * links
    noop = task(nothing)
    with instance(sizes) as (ray, on_ray):
        remote = ray.remote(nothing)

        @on_ray
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
                reference = remote.remote()
                for _ in range(links - 1):
                    reference = remote.remote(reference)
                ends.append(reference)
            ray.get(ends)

        times = in_turn({"ours": ours, "raw": raw}, sizes.rounds)
    what = f"{chains} chains of {links} no-op tasks, Ray"
    return [Figure("ray-chains", what, "us", each(times["ours"], count), each(times["raw"], count), "ratio", 1.2)]


def ray_kept(sizes: Sizes) -> list[Figure]:
    """What the flow's process keeps of each finished task run on Ray; beside a list of references that were fetched."""
    count = str(sizes.ray_kept)
    script = str(HERE / "fresh_process.py")
    pairs = [
        (
            float(python(script, "ray-kept", count, folder=HERE)),
            float(python(script, "raw-ray-kept", count, folder=HERE)),
        )
        for _ in range(sizes.few_rounds)
    ]
    ours, raw = [mine for mine, _ in pairs], [theirs for _, theirs in pairs]
    what = f"memory kept of each finished task run, {sizes.ray_kept:,} of them, Ray"
    return [Figure("ray-kept", what, "bytes", ours, raw, "ratio", 1.5)]


def ray_starting(sizes: Sizes) -> list[Figure]:
    """A whole process with a one-task flow on a temporary Ray instance; beside `ray.init` and one remote call."""
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
    what = "a process with a one-task flow, temporary Ray instance"
    return [Figure("ray-process", what, "ms", ms["ours"], ms["raw"], "ratio", 1.1)]
