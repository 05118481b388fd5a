"""A Ray worker dies in the middle of a flow, as workers do when memory runs out: what ran on it is run again."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from riverrun import flow, get_run_logger, task
from riverrun.task_runners import RayTaskRunner


@task
def square(number: int, accident: str) -> int:
    """Square a number; the first time that it is 13, the worker is killed."""
    if number == 13:  # noqa: PLR2004
        get_run_logger().info("This one is about to meet with an accident.")
        try:
            Path(accident).touch(exist_ok=False)
        except FileExistsError:
            get_run_logger().info("Once more, and now it goes well.")
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return number**2


# A run may be lost with its worker twice (`max_worker_losses=2`, the default): no retries are needed for that.
@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 2}))
def unlucky(numbers: int = 40) -> None:
    """Square many numbers on an instance that loses a worker."""
    with tempfile.TemporaryDirectory() as folder:
        squares = square.map(range(numbers), accident=f"{folder}/accident")
        print(f"The sum of {len(squares)} squares is {sum(squares.result()):,}.")


if __name__ == "__main__":
    unlucky()
