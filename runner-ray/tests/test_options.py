"""The options of the runner: what contradicts itself is refused, with a text that says why."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from riverrun.exceptions import TaskRunnerOptionError
from riverrun.task_runners import RayTaskRunner
from runner_ray import remote_options
from runner_ray._wanted import size_in_bytes


def refused(**options):
    with pytest.raises(TaskRunnerOptionError) as error:
        RayTaskRunner(**options)
    return str(error.value)


def test_importing_the_package_imports_no_ray():
    script = "import runner_ray, sys; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_options_survive_equality_copies_and_pickles():
    runner = RayTaskRunner(init_kwargs={"num_cpus": 2}, start_timeout=5, max_worker_losses=0, ship=["json"])
    for again in (copy.copy(runner), copy.deepcopy(runner), pickle.loads(pickle.dumps(runner)), runner.with_options()):  # noqa: S301
        assert again == runner
        assert again.init_kwargs == {"num_cpus": 2}
    assert runner != RayTaskRunner()
    assert runner.ship == ("json",)


def test_values_of_init_kwargs_are_not_shown():
    secret = RayTaskRunner(init_kwargs={"num_cpus": 2, "runtime_env": {"env_vars": {"API_KEY": "s3cret"}}})
    assert repr(secret) == "RayTaskRunner(init_kwargs={'num_cpus': 2, 'runtime_env': ...})"
    assert repr(RayTaskRunner(address="auto", start_timeout=5)) == "RayTaskRunner(address='auto', start_timeout=5.0)"


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "head.cluster:6379", "ray://127.0.0.1:10001", "[::1]:1"])
def test_addresses(address):
    assert RayTaskRunner(address=address).address == address


@pytest.mark.parametrize("address", ["nowhere", "tcp://127.0.0.1:6379", "127.0.0.1:port", ":6379", "host:99999"])
def test_what_is_no_address(address):
    text = f"RayTaskRunner: address is 'auto', 'host:port' or 'ray://host:port', not {address!r}."
    assert refused(address=address) == text


def test_an_empty_address_and_a_local_one():
    assert refused(address=" ") == "RayTaskRunner: address is empty. Leave it out for a temporary instance."
    assert "leave address out for a temporary instance, instead of address='local'" in refused(address="local")


@pytest.mark.parametrize("keyword", ["address", "ignore_reinit_error", "allow_multiple", "local_mode"])
def test_what_the_runner_decides_about(keyword):
    assert refused(init_kwargs={keyword: True}).startswith(f"RayTaskRunner: leave {keyword!r} out of init_kwargs: ")


@pytest.mark.parametrize("keyword", ["num_cpus", "object_store_memory", "resources"])
def test_an_address_and_what_only_an_instance_can_have(keyword):
    assert refused(address="auto", init_kwargs={keyword: 1}) == (
        f"RayTaskRunner takes address or init_kwargs[{keyword!r}], not both: {keyword} is for an instance that the "
        "runner starts, and address names a cluster that is running."
    )


def test_numbers():
    assert refused(start_timeout=0) == "RayTaskRunner: start_timeout is a number of seconds above 0, not 0.0."
    assert refused(stall_after=0) == "RayTaskRunner: stall_after is a number of seconds above 0, not 0.0."
    assert refused(max_worker_losses=-1) == "RayTaskRunner: max_worker_losses must be 0 or more, not -1."


def test_remote_options_that_ray_does_not_have_or_that_are_riverruns():
    with pytest.raises(
        TaskRunnerOptionError, match=r"remote_options\(\) has no option 'cpus'. Its options are: num_cpus"
    ):
        remote_options(cpus=1).__enter__()
    with pytest.raises(
        TaskRunnerOptionError, match=r"remote_options\(\): leave 'max_retries' out: retries are Riverrun's"
    ):
        remote_options(max_retries=1).__enter__()


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 << 30), ("512MiB", 512 << 20), ("1.5 GB", 1_500_000_000), (7, 7), ("100", 100)]
)
def test_sizes_of_memory(text, size):
    assert size_in_bytes(text, "x") == size


def test_a_size_that_is_none():
    with pytest.raises(TaskRunnerOptionError) as error:
        size_in_bytes("much", "greedy-0")
    assert str(error.value) == (
        "Task run 'greedy-0': memory is a number of bytes or a text such as '4GiB', not 'much'."
    )
