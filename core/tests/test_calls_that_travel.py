"""Calls on their way to a worker: what is in the message, and which code goes with it."""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cloudpickle
import pytest
from riverrun import _by_value, task
from riverrun._calls import TaskCall, TaskScope
from riverrun._outcomes import unpack


def call_of(body, *args, **options):
    scope = TaskScope("double-0", True, {"task_run_name": "double-0"}, awaits=False)
    return TaskCall(body=body, args=args, kwargs={}, scope=scope, key="double-0-1", **options)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with a function and a task, and what makes it so that it cannot be imported any more."""
    (tmp_path / "a_module_here.py").write_text(
        "from riverrun import task\n\ndef double(number):\n    return 2 * number\n\n@task\ndef half(number):\n"
        "    return number / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = importlib.import_module("a_module_here")

    def forget():
        del sys.modules["a_module_here"]
        sys.path.remove(str(tmp_path))
        importlib.invalidate_caches()

    yield found, forget
    sys.modules.pop("a_module_here", None)


def test_all_that_an_executor_may_look_at_arrives():
    call = call_of(task(len), "four", resources={"cpu": 2}, runner_options={"ray": {"num_cpus": 1}}, timeout=7.5)
    call.upstreams = ("a handle",)
    call.pack(20)
    again = cloudpickle.loads(pickle.dumps(call))
    assert (again.name, again.key, again.resources, again.runner_options, again.upstreams) == (
        "double-0", "double-0-1", {"cpu": 2}, {"ray": {"num_cpus": 1}}, ("a handle",),
    )  # fmt: skip
    assert again._scope.log_identity() == ("Task run", "double-0", {"task_run_name": "double-0"})
    assert again._scope.log_prints is True
    assert again._timeout == 7.5
    outcome = again()
    assert cloudpickle.loads(outcome.packed) == 4


@pytest.mark.parametrize("kind", ["function", "task"])
def test_what_the_worker_can_import_goes_by_name(module, kind):
    found, forget = module
    call = call_of(task(found.double) if kind == "function" else found.half, 21)
    call.pack(20)
    sent = pickle.dumps(call)
    assert len(sent) < 600
    assert cloudpickle.loads(cloudpickle.loads(sent)().packed) in {42, 10.5}
    forget()
    assert cloudpickle.loads(sent)().missing == "a_module_here"


@pytest.mark.parametrize("kind", ["function", "task"])
def test_a_module_that_cloudpickle_was_told_of_goes_with_its_code(module, kind):
    """Also where the arguments are plain, and the message could be written faster without looking."""
    found, forget = module
    cloudpickle.register_pickle_by_value(found)
    try:
        call = call_of(task(found.double) if kind == "function" else task(found.half.fn), 21)
        call.pack(20)
    finally:
        cloudpickle.unregister_pickle_by_value(found)
    sent = pickle.dumps(call)
    forget()
    assert cloudpickle.loads(cloudpickle.loads(sent)().packed) in {42, 10.5}


def test_classes_among_the_arguments_go_as_cloudpickle_sends_them():
    class Here:
        pass

    call = call_of(task(callable), Here)
    call.pack(20)
    assert cloudpickle.loads(cloudpickle.loads(pickle.dumps(call))().packed) is True


def test_threads_of_one_worker_wait_while_one_of_them_imports_the_module_of_a_task(tmp_path, monkeypatch):
    """It is among the loaded modules before it is loaded; the others found no task in it."""
    (tmp_path / "a_slow_module.py").write_text(
        "import time\ntime.sleep(0.3)\nfrom riverrun import task\n\n@task\ndef half(number):\n    return number / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    call = call_of(importlib.import_module("a_slow_module").half, 21)
    call.pack(20)
    del sys.modules["a_slow_module"]

    all_are_here = threading.Barrier(4)

    def unpacked(_):
        all_are_here.wait(30)
        task, arguments, _ = _by_value.loads(call._work, was_packed_here=False)
        return task.fn(*arguments)

    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(unpacked, range(4))) == [10.5] * 4
    finally:
        sys.modules.pop("a_slow_module", None)


def test_a_flow_may_run_while_its_module_is_imported_on_threads_that_unpack_its_calls(tmp_path, monkeypatch):
    """As on a Dask cluster of threads; a thread that waited for the import would be waited for by it."""
    outcomes = []

    def runs(half):
        call = call_of(half, 21)
        call.pack(20)
        thread = threading.Thread(target=lambda: outcomes.append(cloudpickle.loads(pickle.dumps(call))()), daemon=True)
        thread.start()
        thread.join(20)

    monkeypatch.setitem(sys.modules, "a_flow", SimpleNamespace(runs=runs))
    (tmp_path / "a_module_that_runs_it.py").write_text(
        "from a_flow import runs\nfrom riverrun import task\n\n@task\ndef half(number):\n    return number / 2\n\n"
        "runs(half)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        importlib.import_module("a_module_that_runs_it")
    finally:
        sys.modules.pop("a_module_that_runs_it", None)
    assert [cloudpickle.loads(outcome.packed) for outcome in outcomes] == [10.5]


def test_a_module_of_another_version_on_the_worker_is_an_error_that_says_so(module):
    found, _ = module
    call = call_of(found.half, 21)
    call.pack(20)
    sent = pickle.dumps(call)
    half = found.half
    del found.half
    try:
        error = unpack(cloudpickle.loads(sent)(), "double-0").error
    finally:
        found.half = half
    assert str(error).startswith("Task run 'double-0': the task or its arguments cannot be rebuilt on worker ")
    assert str(error).endswith(
        ": AttributeError(\"the module 'a_module_here' that is there has no 'half'; is it another version of it?\")."
    )
