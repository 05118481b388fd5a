"""The handshake with workers: what a process tells about itself, and what is said of workers that differ."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from riverrun.exceptions import TaskRunnerStartError
from riverrun.workers import Environment, check_environments, differences, environment

if TYPE_CHECKING:
    from pathlib import Path


HERE = Environment("3.11.7", "0.1.2", {"cloudpickle": "3.1.0", "numpy": "2.1.0", "pydantic": None}, "laptop", 7)


def like_here(**changes: str | None) -> Environment:
    """Give an environment that is like the one here, but for some versions."""
    python = changes.pop("python", HERE.python)
    riverrun = changes.pop("riverrun", HERE.riverrun)
    return Environment(python, riverrun, {**HERE.packages, **changes}, "node", 1)


def text_of(others, here=HERE, **options) -> str:
    """Give the text of the error that a check ends with."""
    with pytest.raises(TaskRunnerStartError) as caught:
        check_environments(here, others, runner="MyRunner", where="my cluster", log=logging.getLogger(), **options)
    return str(caught.value)


def warning_of(caplog: pytest.LogCaptureFixture, others) -> str:
    """Give the text of the one warning that a check ends with."""
    log = logging.getLogger("riverrun.test")
    with caplog.at_level(logging.INFO):
        check_environments(HERE, others, runner="MyRunner", where="my cluster", log=log)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_a_process_tells_its_python_its_host_and_what_is_installed(install):
    install("data-tools", {}, version="2.5")
    told = environment(["data-tools", "not-here"])
    assert told.python.startswith(platform.python_version())
    assert (told.host, told.pid) == (platform.node(), os.getpid())
    assert list(told.packages) == ["cloudpickle", "numpy", "pydantic", "data-tools", "not-here"]
    assert (told.packages["data-tools"], told.packages["not-here"]) == ("2.5", None)


def test_what_a_process_tells_survives_pickling():
    told = environment()
    assert pickle.loads(pickle.dumps(told)) == told  # noqa: S301 - made in the line itself


def test_a_record_of_a_riverrun_that_told_less_can_be_read():
    old = Environment.__new__(Environment)
    vars(old).update(python="3.11.7", packages={})
    told = pickle.loads(pickle.dumps(old))  # noqa: S301
    assert (told.python, told.riverrun, told.host, told.pid) == ("3.11.7", None, "", 0)


def test_metadata_without_a_version_are_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert environment(["broken"]).packages["broken"] is None


def test_telling_imports_nothing_of_what_is_told():
    code = (
        "import sys\nfrom riverrun.workers import environment\nenvironment(['dask', 'ray'])\n"
        "print({'numpy', 'pydantic', 'cloudpickle', 'dask', 'ray', 'anyio', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_a_flow_that_stays_in_its_process_loads_nothing_of_it():
    code = (
        "import sys\nfrom riverrun import flow\nflow(task_runner='sequential')(lambda: 1)()\n"
        "print([name for name in sys.modules if name in {'riverrun.workers', 'riverrun._parcels', 'zipfile'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_equal_workers_make_no_difference(caplog: pytest.LogCaptureFixture):
    others = {"a": like_here(), "b": like_here()}
    assert not differences(HERE, others)
    check_environments(HERE, others, runner="MyRunner", where="my cluster", log=logging.getLogger())
    check_environments(HERE, {}, runner="MyRunner", where="my cluster", log=logging.getLogger())
    assert caplog.records == []


def test_the_table_has_a_line_for_each_version_with_the_workers_that_have_it():
    others = {"a:1": like_here(numpy="1.26.4"), "b:1": like_here(), "c:1": like_here(numpy=None, cloudpickle="3.0.0")}
    assert differences(HERE, others).table() == (
        "PACKAGE      HERE   THERE    ON\n"
        "cloudpickle  3.1.0  3.0.0    c:1\n"
        "numpy        2.1.0  1.26.4   a:1\n"
        "                    missing  c:1"
    )


def test_what_is_installed_on_one_side_only_is_a_row_and_what_is_nowhere_is_none():
    [row] = differences(HERE, {"a": like_here(pydantic="2.9.0")}).rows
    assert (row.package, row.here, row.there) == ("pydantic", None, {"2.9.0": ["a"]})
    assert not differences(HERE, {"a": like_here(pydantic=None)})


def test_what_only_one_side_tells_of_is_no_difference():
    assert not differences(HERE, {"a": like_here(dask="2026.8.0")})


def test_many_workers_are_counted_instead_of_named():
    others = {f"w{n}": like_here(numpy="1.26.4") for n in range(15)}
    assert differences(HERE, others).table().endswith("1.26.4  all 15 workers")
    others["w15"] = like_here()
    assert differences(HERE, others).table().endswith("1.26.4  w0, w1, w2 and 12 more")


def test_what_a_worker_tells_cannot_disturb_a_terminal():
    assert "\x1b" not in differences(HERE, {"a": like_here(numpy="\x1b[31m1")}).table()


def test_other_versions_of_packages_and_of_python_in_its_last_number_are_one_warning(caplog: pytest.LogCaptureFixture):
    others = {"a": like_here(numpy="1.26.4", riverrun="0.1.9"), "b": like_here(python="3.11.9"), "c": like_here()}
    assert warning_of(caplog, others) == (
        "`MyRunner`: 2 of 3 workers of my cluster have other versions than this process:\n"
        "PACKAGE   HERE    THERE   ON\n"
        "python    3.11.7  3.11.9  b\n"
        "riverrun  0.1.2   0.1.9   a\n"
        "numpy     2.1.0   1.26.4  a\n"
        "If a task fails there that works here, or a value does not arrive as it was sent, install the same versions."
    )


def test_the_warning_of_a_single_worker_reads_well(caplog: pytest.LogCaptureFixture):
    text = warning_of(caplog, {"a": like_here(numpy=None)})
    assert text.startswith("`MyRunner`: the worker of my cluster has other versions than this process:\n")


def test_a_riverrun_that_is_not_installed_but_there_is_only_a_warning(caplog: pytest.LogCaptureFixture):
    assert "riverrun  0.1.2  unknown  a" in warning_of(caplog, {"a": like_here(riverrun=None)})


def test_another_implementation_of_python_is_shown(caplog: pytest.LogCaptureFixture):
    assert "python   3.11.7  3.11.7 (PyPy)  a" in warning_of(caplog, {"a": like_here(python="3.11.7 (PyPy)")})


def test_another_minor_version_of_python_is_an_error_with_all_differences():
    others = {"a": like_here(python="3.12.1", numpy="1.26.4"), "b": like_here(python="3.12.1")}
    assert text_of(others) == (
        "`MyRunner`: all 2 workers of my cluster cannot run tasks of this process:\n"
        "PACKAGE  HERE    THERE   ON\n"
        "python   3.11.7  3.12.1  a, b\n"
        "numpy    2.1.0   1.26.4  a\n"
        "Functions travel as byte code, which other minor versions of Python cannot run: run the workers on Python "
        "3.11, or this process on theirs."
    )


def test_an_error_counts_the_workers_that_cannot_run_tasks_and_shows_all_that_differ():
    others = {"a": like_here(python="3.12.1"), "b": like_here(riverrun="0.2.0"), "c": like_here(numpy=None)}
    text = text_of({**others, "d": like_here()})
    assert text.startswith("`MyRunner`: 2 of 4 workers of my cluster cannot run tasks of this process:\n")
    assert "missing  c\n" in text
    assert "byte code" in text
    assert "pip install 'core==0.1.2'" in text


def test_another_minor_version_of_riverrun_is_an_error_that_says_what_to_install():
    assert text_of({"a": like_here(), "b": like_here(riverrun="0.2.0")}) == (
        "`MyRunner`: 1 of 2 workers of my cluster cannot run tasks of this process:\n"
        "PACKAGE   HERE   THERE  ON\n"
        "riverrun  0.1.2  0.2.0  b\n"
        "A worker must be able to import `riverrun.workers`, of the same minor version: install the Riverrun of this "
        "process there: pip install 'core==0.1.2'."
    )


def test_a_worker_without_riverrun_is_an_error():
    error = ModuleNotFoundError("No module named 'riverrun'", name="riverrun")
    assert "\nriverrun  0.1.2  missing  a\n" in text_of({"a": error})


def test_a_worker_that_lacks_a_part_of_riverrun_or_cannot_answer_is_an_error_with_what_it_said():
    part = ModuleNotFoundError("No module named 'riverrun.workers'", name="riverrun.workers")
    text = text_of({"a": part, "b": OSError(24, "Too many\nopen files")})
    (row,) = [line for line in text.splitlines() if line.endswith("  a")]
    assert "no answer: ModuleNotFoundError(\"No module named 'riverrun.workers'\"" in row  # Python 3.15 adds the name
    assert "no answer: OSError(24, 'Too many\\nopen files')" in text


def test_without_a_version_of_riverrun_here_the_advice_names_none():
    here = Environment("3.11.7", None, HERE.packages)
    assert text_of({"a": ModuleNotFoundError(name="riverrun")}, here).endswith("there: pip install 'core'.")


def test_a_distribution_that_workers_must_have_is_an_error_where_it_is_missing(caplog: pytest.LogCaptureFixture):
    here = Environment("3.11.7", "0.1.2", {"runner-mine": "0.3.0"})
    error = ModuleNotFoundError("No module named 'runner_mine'", name="runner_mine")
    for without in (error, Environment("3.11.7", "0.1.2", {"runner-mine": None})):
        assert text_of({"a": without}, here, required=["runner-mine"]).endswith(
            "\nrunner-mine  0.3.0  missing  a\nInstall on the workers what they lack: pip install 'runner-mine==0.3.0'."
        )
    with_another = {"a": Environment("3.11.7", "0.1.2", {"runner-mine": "0.4.0"})}
    log = logging.getLogger("riverrun.test")
    check_environments(here, with_another, runner="MyRunner", where="it", log=log, required=["runner-mine"])
    assert len(caplog.records) == 1


def test_each_check_warns_once(caplog: pytest.LogCaptureFixture):
    warning_of(caplog, {f"w{n}": like_here(numpy=f"1.{n}") for n in range(9)})
    assert len(caplog.records) == 1
