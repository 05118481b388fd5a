"""What a task needs of a node: said at the task, and around the call."""

from __future__ import annotations

from riverrun import flow, task
from riverrun.task_runners import RayTaskRunner
from runner_ray import remote_options


@task
def granted() -> str:
    """Say what Ray has set aside for this task."""
    import ray

    amounts = ray.get_runtime_context().get_assigned_resources()
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(amounts.items()))


# Every runner is told of the two CPUs; of the licence, Ray alone.
heavy = granted.with_options(resources={"cpu": 2}, runner_options={"ray": {"resources": {"licence": 1}}})


@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 2, "resources": {"licence": 1}}))
def needs() -> None:
    """Ask for more and less."""
    print("As it is:", granted().result())
    print("At the task:", heavy().result())
    with remote_options(num_cpus=0.5):
        print("Around the call:", granted().result())


if __name__ == "__main__":
    needs()
