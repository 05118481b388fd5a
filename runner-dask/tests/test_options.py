"""The options of the runner: what is refused, and that each survives comparing, copying and pickling."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
from riverrun.exceptions import TaskRunnerOptionError
from runner_dask import DaskTaskRunner


class SomeCluster:
    """What a user may give as `cluster`: it knows its scheduler, and cannot be pickled."""

    def __init__(self, scheduler_address="tcp://127.0.0.1:1234") -> None:
        self.scheduler_address = scheduler_address
        self.name = "some"

    def __reduce__(self):
        raise TypeError("a running cluster cannot be pickled")


def some_function(**kwargs):
    raise AssertionError("nothing is started by an option")


OPTIONS = {
    "address": "tcp://127.0.0.1:8786",
    "cluster": SomeCluster(),
    "cluster_class": some_function,
    "cluster_kwargs": {"n_workers": 2, "resources": {"gpu": 1}},
    "adapt_kwargs": {"minimum": 0, "maximum": 4},
    "client_kwargs": {"direct_to_workers": True},
    "performance_report_path": Path("report.html"),
    "start_timeout": 5.0,
    "ship": ["some_module"],
    "max_worker_losses": 5,
    "stall_after": 5.0,
}
each_option = pytest.mark.parametrize("option", OPTIONS)


def with_option(option):
    return DaskTaskRunner(**{option: OPTIONS[option]})


def test_importing_the_package_imports_no_dask():
    code = (
        "import sys, runner_dask; runner_dask.DaskTaskRunner(cluster_kwargs={'n_workers': 1})\n"
        "print(set(sys.modules) & {'dask', 'distributed'})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert out.stdout == "set()\n"


def test_every_option_is_looked_at_here():
    assert set(OPTIONS) == set(vars(DaskTaskRunner()))


@each_option
def test_a_runner_differs_from_one_with_another_value(option):
    assert with_option(option) != DaskTaskRunner()
    assert with_option(option) == with_option(option)
    assert hash(with_option(option)) == hash(with_option(option))


@each_option
def test_each_option_survives_a_pickle(option):
    runner = with_option(option)
    for one in (pickle, cloudpickle):
        again = one.loads(one.dumps(runner))
        assert again == runner
        assert runner == again
        assert hash(again) == hash(runner)


@each_option
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_each_option_survives_a_copy(option, copied):
    runner = with_option(option)
    again = copied(runner)
    assert again == runner
    assert getattr(again, option) == getattr(runner, option)


def test_a_copy_has_the_same_cluster_object():
    cluster = SomeCluster()
    assert copy.deepcopy(DaskTaskRunner(cluster=cluster)).cluster is cluster


def test_later_changes_of_the_caller_do_not_show():
    kwargs = {"resources": {"gpu": 1}}
    runner = DaskTaskRunner(cluster_kwargs=kwargs)
    kwargs["resources"]["gpu"] = 2
    assert runner.cluster_kwargs == {"resources": {"gpu": 1}}


def test_a_pickled_cluster_is_the_address_of_its_scheduler_and_no_cluster():
    again = pickle.loads(pickle.dumps(DaskTaskRunner(cluster=SomeCluster())))  # noqa: S301 - made in this test
    assert again.cluster.scheduler_address == "tcp://127.0.0.1:1234"
    assert not hasattr(again.cluster, "close")
    assert repr(again) == "DaskTaskRunner(cluster=<cluster at tcp://127.0.0.1:1234>)"
    assert pickle.loads(pickle.dumps(again)) == again  # noqa: S301 - made in this test


def test_clusters_are_compared_by_the_address_of_their_scheduler():
    one, same = DaskTaskRunner(cluster=SomeCluster()), DaskTaskRunner(cluster=SomeCluster())
    assert one == same
    assert one != DaskTaskRunner(cluster=SomeCluster("tcp://127.0.0.1:4321"))
    assert one != DaskTaskRunner(cluster=SomeCluster(), max_worker_losses=0)


def test_a_function_of_a_script_travels_by_value():
    code = (
        "import cloudpickle, sys; from runner_dask import DaskTaskRunner\n"
        "def cluster(**kwargs): return 'made'\n"
        "sys.stdout.buffer.write(cloudpickle.dumps(DaskTaskRunner(cluster_class=cluster)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    assert pickle.loads(out.stdout).cluster_class() == "made"  # noqa: S301 - made in this test


@pytest.mark.parametrize(
    ("running", "other"),
    [
        ("address", "cluster"),
        ("address", "cluster_class"),
        ("address", "cluster_kwargs"),
        ("address", "adapt_kwargs"),
        ("cluster", "cluster_class"),
        ("cluster", "cluster_kwargs"),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_both_names(running, other):
    with pytest.raises(TaskRunnerOptionError, match=f"DaskTaskRunner takes {running} or {other}, not both: ") as error:
        DaskTaskRunner(**{running: OPTIONS[running], other: OPTIONS[other]})
    if other not in ("address", "cluster"):
        assert f"{other} is for a cluster that the runner starts, and {running} names one that is" in str(error.value)


def test_a_running_cluster_can_be_made_adaptive():
    runner = DaskTaskRunner(cluster=SomeCluster(), adapt_kwargs={"maximum": 2})
    assert runner.adapt_kwargs == {"maximum": 2}


@pytest.mark.parametrize("option", ["cluster_kwargs", "adapt_kwargs", "client_kwargs"])
def test_asynchronous_is_refused_wherever_it_is_given(option):
    with pytest.raises(TaskRunnerOptionError, match=f"DaskTaskRunner: leave 'asynchronous' out of {option}: tasks"):
        DaskTaskRunner(**{option: {"asynchronous": True}})


@pytest.mark.parametrize(
    ("keyword", "instead"),
    [
        ("set_as_default", "the runner's client never becomes the default client of your process"),
        ("address", "the option `address` of the runner says it"),
        ("timeout", "the option `start_timeout` of the runner says it"),
    ],
)
def test_what_the_runner_says_to_the_client_itself_is_refused(keyword, instead):
    with pytest.raises(TaskRunnerOptionError, match=f"leave {keyword!r} out of client_kwargs: {instead}"):
        DaskTaskRunner(client_kwargs={keyword: 1})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"start_timeout": 0}, "start_timeout is a number of seconds above 0, not 0.0."),
        ({"start_timeout": float("inf")}, "start_timeout is a number of seconds above 0, not inf."),
        ({"start_timeout": float("nan")}, "start_timeout is a number of seconds above 0, not nan."),
        ({"stall_after": 0}, "stall_after is a number of seconds above 0, not 0.0."),
        ({"stall_after": float("nan")}, "stall_after is a number of seconds above 0, not nan."),
        ({"address": ""}, "address is empty. Leave it out for a temporary cluster."),
        ({"max_worker_losses": -1}, "max_worker_losses must be 0 or more, not -1."),
        ({"cluster_class": 5}, "cluster_class is a class, a function, or the dotted path of one"),
        ({"cluster_class": "LocalCluster"}, "cluster_class as a text is the dotted path of a class or function"),
        ({"cluster_class": "some-package.Cluster"}, "such as 'distributed.LocalCluster', not 'some-package.Cluster'"),
        ({"cluster": "tcp://127.0.0.1:1"}, "A class goes in cluster_class, an address in address."),
        ({"cluster": SomeCluster}, "cluster is a running cluster, an object with a `scheduler_address`"),
        ({"adress": "tcp://127.0.0.1:1"}, "has no option `adress`; did you mean `address`?"),
        ({"cluster_kwargs": 5}, "as its option `cluster_kwargs`, not 5 (int)."),
    ],
)
def test_what_cannot_work_is_refused(options, text):
    with pytest.raises(TaskRunnerOptionError) as error:
        DaskTaskRunner(**options)
    assert text in str(error.value)


@pytest.mark.parametrize("path", ["some_absent_package.Cluster", "some_absent_package.mod:Cluster"])
def test_a_missing_package_is_not_looked_for_before_the_start(path):
    assert DaskTaskRunner(cluster_class=path).cluster_class == path
