from __future__ import annotations

import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from riverrun import _allowed, _listing, _offers, _plugins
from riverrun._settings import override
from riverrun.abc import Concurrency, TaskRunner
from riverrun.exceptions import (
    ConfigurationError,
    IncompatibleTaskRunner,
    RiverrunError,
    TaskRunnerConflict,
    TaskRunnerLoadError,
    TaskRunnerNotFound,
    TaskRunnerNotInstalled,
    TaskRunnerOptionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Install, RunnerSource

pytestmark = pytest.mark.usefixtures("bare_settings")


class Local(TaskRunner):
    concurrency = Concurrency.SEQUENTIAL
    size: int = 1

    def start(self):
        raise NotImplementedError


def message_of(make: Callable[[], object], error: type[RiverrunError]) -> str:
    with pytest.raises(error) as caught:
        make()
    return str(caught.value)


@pytest.fixture
def ours(install: Install, runner_source: RunnerSource):
    """Put the two light runners and Dask's on the path, as small as can be; let Ray's be missing."""
    install(
        "runner-sequential",
        {"sequential": "runner_sequential:SequentialTaskRunner"},
        {"runner_sequential": runner_source("SequentialTaskRunner")},
    )
    install(
        "runner-concurrent",
        {"concurrent": "runner_concurrent:ConcurrentTaskRunner"},
        {"runner_concurrent": runner_source("ConcurrentTaskRunner", "max_workers: int | None = None")},
        version="0.2",
    )
    install(
        "runner-dask",
        {"dask": "runner_dask:DaskTaskRunner"},
        {
            "runner_dask": runner_source(
                "DaskTaskRunner", "address: str | None = None; cluster_kwargs: dict[str, Any] = {}"
            )
        },
    )


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch):
    """Let `import runner_ray` fail as it does where it is not installed."""
    monkeypatch.setitem(sys.modules, "runner_ray", None)


@pytest.fixture
def slurm(install: Install, runner_source: RunnerSource):
    install(
        "runner-slurm",
        {"slurm": "slurm_plugin:SlurmTaskRunner"},
        {"slurm_plugin": runner_source("SlurmTaskRunner", "queue: str = 'short'")},
    )


def test_a_runner_is_made_by_name_with_options(ours: None):
    assert repr(_plugins.get("concurrent", max_workers=4)) == "ConcurrentTaskRunner(max_workers=4)"


def test_a_runner_by_somebody_else_is_made_by_name_with_options(slurm: None):
    assert repr(_plugins.get("slurm", queue="long")) == "SlurmTaskRunner(queue='long')"
    assert repr(_plugins.get("runner_slurm:slurm")) == "SlurmTaskRunner()"


def test_asking_for_one_runner_imports_no_other(ours: None, slurm: None):
    _plugins.get("slurm")
    assert {"slurm_plugin"} == {"slurm_plugin", "runner_sequential", "runner_concurrent", "runner_dask"} & {
        *sys.modules
    }


def test_what_a_flow_may_say_about_its_runner(ours: None):
    local = Local(2)
    assert _plugins.resolve(local) is local
    assert _plugins.resolve(Local) == Local()
    assert repr(_plugins.resolve("sequential")) == "SequentialTaskRunner()"
    assert repr(_plugins.resolve("runner-sequential:sequential")) == "SequentialTaskRunner()"
    assert repr(_plugins.resolve(None)) == "ConcurrentTaskRunner()"


@pytest.mark.parametrize(
    ("spec", "shown"), [(5, "5 (int)"), (int, "<class 'int'> (type)"), (b"dask", "b'dask' (bytes)")]
)
def test_anything_else_is_refused_with_what_is_accepted(spec: Any, shown: str):
    assert message_of(lambda: _plugins.resolve(spec), ConfigurationError) == (
        'A task runner is given by name (such as "concurrent"), as a subclass of `riverrun.abc.TaskRunner` '
        f"or as an instance of one, not as {shown}."
    )


def test_a_flow_that_says_nothing_gets_the_runner_of_the_settings(ours: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", "sequential")
    assert repr(_plugins.resolve(None)) == "SequentialTaskRunner()"
    with override(task_runner="dask"):
        assert repr(_plugins.resolve(None)) == "DaskTaskRunner()"


def test_an_unknown_name_in_the_settings_is_told_with_its_source(ours: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", "squential")
    text = message_of(lambda: _plugins.resolve(None), TaskRunnerNotFound)
    assert text.startswith("No task runner is named `squential`; did you mean `sequential`?")
    assert text.endswith("(The name comes from RIVERRUN_TASK_RUNNER.)")


def test_the_file_has_the_defaults_and_the_code_wins_option_by_option(ours: None, bare_settings: Path):
    (bare_settings / "pyproject.toml").write_text(
        "[tool.riverrun.task_runners.dask]\ncluster_kwargs = {n_workers = 4}\naddress = 'a'\n"
    )
    assert repr(_plugins.get("dask")) == "DaskTaskRunner(address='a', cluster_kwargs={'n_workers': 4})"
    assert repr(_plugins.get("dask", address="b")) == "DaskTaskRunner(address='b', cluster_kwargs={'n_workers': 4})"
    assert repr(_plugins.get("runner-dask:dask")) == "DaskTaskRunner(address='a', cluster_kwargs={'n_workers': 4})"


def test_what_is_done_to_one_runner_does_not_reach_the_next_through_the_file(ours: None, bare_settings: Path):
    (bare_settings / "pyproject.toml").write_text(
        "[tool.riverrun.task_runners.dask]\ncluster_kwargs = {n_workers = 4}\n"
    )
    _plugins.get("dask").cluster_kwargs["n_workers"] = 5
    assert _plugins.get("dask").cluster_kwargs == {"n_workers": 4}


def test_a_bad_option_in_the_file_is_told_with_the_file(ours: None, bare_settings: Path):
    path = bare_settings / "pyproject.toml"
    path.write_text("[tool.riverrun.task_runners.dask]\nadress = 'a'\n")
    assert message_of(lambda: _plugins.get("dask"), TaskRunnerOptionError) == (
        "`DaskTaskRunner` has no option `adress`; did you mean `address`? Its options: address, cluster_kwargs. "
        f"(Options not given in code come from the table `task_runners.dask` in [tool.riverrun] of {path}.)"
    )


def test_an_unknown_option_names_those_that_exist(ours: None):
    assert message_of(lambda: _plugins.get("concurrent", workers=4), TaskRunnerOptionError) == (
        "`ConcurrentTaskRunner` has no option `workers`; did you mean `max_workers`? Its options: max_workers."
    )


def test_an_unknown_option_of_a_dataclass_names_those_that_exist(install: Install):
    source = """
        from dataclasses import dataclass
        from riverrun.abc import Concurrency, TaskRunner

        @dataclass(frozen=True)
        class Data(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            size: int = 1
            def start(self): ...
    """
    install("runner-data", {"data": "data_plugin:Data"}, {"data_plugin": source})
    assert message_of(lambda: _plugins.get("data", sise=4), TaskRunnerOptionError) == (
        "`Data` has no option `sise`; did you mean `size`? Its options: size."
    )


def test_a_runner_of_ours_that_is_not_installed_names_the_line_that_installs_it(no_ray: None):
    assert message_of(lambda: _plugins.get("ray"), TaskRunnerNotInstalled) == (
        "The task runner `ray` is not installed. To install it: pip install 'core[ray]'"
    )


def test_metadata_left_behind_by_a_runner_of_ours_do_not_make_it_installed(install: Install, no_ray: None):
    install("runner-ray", {"ray": "runner_ray:RayTaskRunner"})
    assert message_of(lambda: _plugins.get("ray"), TaskRunnerNotInstalled).endswith("pip install 'core[ray]'")


def test_a_runner_of_ours_whose_library_is_missing_is_told_apart_from_one_not_installed(install: Install):
    install(
        "runner-dask",
        {"dask": "runner_dask:DaskTaskRunner"},
        {"runner_dask": "import no_such_library\n"},
        version="0.3",
    )
    text = message_of(lambda: _plugins.get("dask"), TaskRunnerLoadError)
    assert text.startswith(
        "The task runner `dask` of runner-dask 0.3 cannot be loaded: "
        "it needs the module `no_such_library`, which is not installed\n\nTraceback (most recent call last):\n"
    )
    assert text.endswith("import no_such_library\nModuleNotFoundError: No module named 'no_such_library'")


def test_an_unknown_name_is_told_with_the_near_match_and_what_is_installed(ours: None, slurm: None, no_ray: None):
    assert message_of(lambda: _plugins.get("slrum"), TaskRunnerNotFound) == (
        "No task runner is named `slrum`; did you mean `slurm`? Installed: concurrent, dask, sequential, slurm. "
        "Not installed: ray (pip install 'core[ray]')."
    )
    for name in ("Dask", "DaskTaskRunner", "runner_dask:DaskTaskRunner"):
        assert f"`{name}`; did you mean `dask`?" in message_of(lambda: _plugins.get(name), TaskRunnerNotFound)  # noqa: B023
    assert message_of(lambda: _plugins.get("zzz"), TaskRunnerNotFound).startswith("No task runner is named `zzz`. Ins")
    assert message_of(lambda: _plugins.get("other:slurm"), TaskRunnerNotFound).startswith(
        "No task runner is named `other:slurm`; did you mean `slurm`?"
    )


def test_a_plugin_that_raises_on_import_is_told_only_when_it_is_asked_for(install: Install, slurm: None):
    install(
        "runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": "raise RuntimeError('two\\nlines')\n"}, version="0.9"
    )
    assert repr(_plugins.get("slurm")) == "SlurmTaskRunner()"
    text = message_of(lambda: _plugins.get("bad"), TaskRunnerLoadError)
    assert text.startswith("The task runner `bad` of runner-bad 0.9 cannot be loaded: RuntimeError: two\n\nTraceback")
    assert "bad_plugin.py" in text
    assert "_loading.py" not in text


def test_a_plugin_that_exits_on_import_does_not_end_the_program(install: Install):
    install("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": "raise SystemExit(3)\n"})
    assert "cannot be loaded: SystemExit: 3" in message_of(lambda: _plugins.get("bad"), TaskRunnerLoadError)


def test_an_entry_point_that_names_nothing_is_told(install: Install):
    install("runner-bad", {"bad": "bad_plugin:Bad.Worse"}, {"bad_plugin": "class Bad: pass\n"})
    assert message_of(lambda: _plugins.get("bad"), TaskRunnerLoadError) == (
        "The task runner `bad` of runner-bad 1.0 cannot be loaded: its entry point `bad = bad_plugin:Bad.Worse` "
        "names nothing: type object 'Bad' has no attribute 'Worse'."
    )


def test_metadata_left_behind_are_told_as_such(install: Install):
    install("runner-gone", {"gone": "gone_plugin:Gone"})
    assert message_of(lambda: _plugins.get("gone"), TaskRunnerLoadError) == (
        "The task runner `gone` of runner-gone 1.0 cannot be loaded: its entry point `gone = gone_plugin:Gone` names "
        "the module `gone_plugin`, which does not exist. If its files were removed by hand: pip uninstall runner-gone."
    )


@pytest.mark.parametrize("source", ["Thing = 5\n", "class Thing: pass\n", "def Thing(): pass\n"])
def test_an_entry_point_that_names_no_runner_is_told(install: Install, source: str):
    install("runner-bad", {"bad": "bad_plugin:Thing"}, {"bad_plugin": source})
    assert message_of(lambda: _plugins.get("bad"), TaskRunnerLoadError) == (
        "The task runner `bad` of runner-bad 1.0 cannot be loaded: `bad_plugin:Thing` is neither a subclass of "
        "`riverrun.abc.TaskRunner` nor a plugin with an `@hookimpl` of `riverrun_task_runner()`."
    )


HOOK = """
from riverrun.hookspecs import hookimpl

@hookimpl
def riverrun_task_runner():
    {}
"""


def test_an_entry_point_may_name_a_module_with_a_hook(install: Install, runner_source: RunnerSource):
    modules = {
        "hooked": HOOK.format("from hooked_runner import Hooked; return Hooked"),
        "hooked_runner": runner_source("Hooked", "n: int = 1"),
    }
    install("runner-hooked", {"hooked": "hooked"}, modules)
    assert repr(_plugins.get("hooked", n=2)) == "Hooked(n=2)"


def test_an_entry_point_may_name_an_object_with_a_hook(install: Install, runner_source: RunnerSource):
    source = runner_source("Hooked") + (
        "\nfrom riverrun.hookspecs import hookimpl\n\n"
        "class Plugin:\n    @hookimpl\n    def riverrun_task_runner(self):\n        return Hooked\n\n"
        "plugin = Plugin()\n"
    )
    install("runner-hooked", {"hooked": "hooked:plugin"}, {"hooked": source})
    assert repr(_plugins.get("hooked")) == "Hooked()"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "return 5",
            "its hook `riverrun_task_runner()` returned 5, which is no subclass of `riverrun.abc.TaskRunner`.",
        ),
        ("raise KeyError('queue')", "KeyError: 'queue'\n\nTraceback"),
        ("import no_such_library", "it needs the module `no_such_library`, which is not installed\n\nTraceback"),
    ],
)
def test_a_hook_that_goes_wrong_is_told(install: Install, body: str, problem: str):
    install("runner-hooked", {"hooked": "hooked"}, {"hooked": HOOK.format(body)})
    text = message_of(lambda: _plugins.get("hooked"), TaskRunnerLoadError)
    assert text.startswith(f"The task runner `hooked` of runner-hooked 1.0 cannot be loaded: {problem}")


def test_a_hook_whose_name_is_mistyped_is_told(install: Install):
    install("runner-hooked", {"hooked": "hooked"}, {"hooked": HOOK.format("return 5").replace("_runner()", "_runer()")})
    text = message_of(lambda: _plugins.get("hooked"), TaskRunnerLoadError)
    assert "cannot be loaded: its hook does not fit: unknown hook 'riverrun_task_runer'" in text


@pytest.mark.parametrize(
    ("version", "advice"),
    [(0, "Upgrade it: pip install --upgrade runner-old"), (2, "Upgrade Riverrun: pip install --upgrade core")],
)
def test_a_runner_for_another_version_of_the_contract_is_refused(
    install: Install, runner_source: RunnerSource, version: int, advice: str
):
    source = runner_source("Old", f"api_version: ClassVar[int] = {version}")
    install("runner-old", {"old": "old_plugin:Old"}, {"old_plugin": source}, version="0.1")
    assert message_of(lambda: _plugins.get("old"), IncompatibleTaskRunner) == (
        f"The task runner `old` of runner-old 0.1 was written for version {version} of the task runner contract, "
        f"and this Riverrun has version 1. {advice}"
    )


def test_a_class_or_instance_for_another_version_of_the_contract_is_refused():
    class Old(Local):
        api_version = 0

    for spec in (Old, Old()):
        assert message_of(lambda: _plugins.resolve(spec), IncompatibleTaskRunner) == (  # noqa: B023
            "The task runner class `Old` was written for version 0 of the task runner contract, "
            "and this Riverrun has version 1. Upgrade the package that it comes from."
        )


def test_an_abstract_class_cannot_be_offered(install: Install):
    source = "from riverrun.abc import TaskRunner\nclass Half(TaskRunner): pass\n"
    install("runner-half", {"half": "half_plugin:Half"}, {"half_plugin": source})
    assert message_of(lambda: _plugins.get("half"), TaskRunnerLoadError) == (
        "The task runner `half` of runner-half 1.0 cannot be loaded: `Half` is abstract, it lacks `start`."
    )


def test_a_class_without_concurrency_cannot_be_offered(install: Install):
    source = "from riverrun.abc import TaskRunner\nclass Mute(TaskRunner):\n    def start(self): ...\n"
    install("runner-mute", {"mute": "mute_plugin:Mute"}, {"mute_plugin": source})
    text = message_of(lambda: _plugins.get("mute"), TaskRunnerLoadError)
    assert text.startswith("The task runner `mute` of runner-mute 1.0 cannot be loaded: A task runner class sets")


def test_two_distributions_with_one_name_are_both_named_and_each_can_be_chosen(
    install: Install, slurm: None, runner_source: RunnerSource
):
    install(
        "other-slurm",
        {"slurm": "other_plugin:OtherSlurm"},
        {"other_plugin": runner_source("OtherSlurm")},
        version="2.0",
    )
    assert message_of(lambda: _plugins.get("slurm"), TaskRunnerConflict) == (
        "2 distributions offer a task runner `slurm`: other-slurm 2.0 and runner-slurm 1.0. "
        'Choose one: task_runner="other-slurm:slurm" or task_runner="runner-slurm:slurm".'
    )
    assert repr(_plugins.get("other-slurm:slurm")) == "OtherSlurm()"
    assert repr(_plugins.get("Runner.Slurm:slurm")) == "SlurmTaskRunner()"


def test_an_older_copy_further_down_on_the_path_does_not_count(install: Install, runner_source: RunnerSource):
    install("runner-twice", {"twice": "old_module:Old"}, version="1.0")
    install("runner_twice", {"twice": "new_module:New"}, {"new_module": runner_source("New")}, version="2.0")
    assert repr(_plugins.get("twice")) == "New()"


def test_nobody_else_can_take_a_name_of_ours(install: Install, ours: None, slurm: None, runner_source: RunnerSource):
    install("evil", {"dask": "evil_plugin:Evil"}, {"evil_plugin": runner_source("Evil")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no scan, so nothing to warn of
        assert repr(_plugins.get("dask")) == "DaskTaskRunner()"
    with pytest.warns(UserWarning, match="evil") as caught:
        _plugins.get("slurm")
    assert [str(warning.message) for warning in caught] == [
        (
            "The distribution evil 1.0 offers a task runner `dask`: "
            "that name belongs to runner-dask, so this one is not used."
        )
    ]
    assert message_of(lambda: _plugins.get("evil:dask"), TaskRunnerConflict) == (
        'The name `dask` belongs to runner-dask; `evil:dask` is not used. Write task_runner="dask".'
    )
    assert "evil_plugin" not in sys.modules


def test_plugins_can_be_switched_off(ours: None, slurm: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "1")
    assert message_of(lambda: _plugins.get("slurm"), TaskRunnerNotFound) == (
        "The task runner `slurm` of runner-slurm 1.0 is switched off by RIVERRUN_DISABLE_PLUGINS. "
        "To switch plugins on, unset RIVERRUN_DISABLE_PLUGINS."
    )
    assert repr(_plugins.get("dask")) == "DaskTaskRunner()"
    assert "slurm_plugin" not in sys.modules


@pytest.mark.parametrize("allowed", ["slurm", "runner-slurm", "Runner_Slurm:slurm", "mpi,slurm"])
def test_an_allow_list_lets_runners_through_by_name_or_distribution(
    slurm: None, monkeypatch: pytest.MonkeyPatch, allowed: str
):
    monkeypatch.setenv("RIVERRUN_PLUGINS", allowed)
    assert repr(_plugins.get("slurm")) == "SlurmTaskRunner()"


def test_an_allow_list_keeps_out_all_others_but_ours(ours: None, slurm: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_PLUGINS", "mpi")
    assert message_of(lambda: _plugins.get("slurm"), TaskRunnerNotFound) == (
        "The task runner `slurm` of runner-slurm 1.0 is not among the plugins that RIVERRUN_PLUGINS allows. "
        "To allow it, add `runner-slurm` to RIVERRUN_PLUGINS."
    )
    assert repr(_plugins.get("dask")) == "DaskTaskRunner()"


def test_a_runner_that_a_file_excludes_is_told_with_the_file_and_what_to_write_there(slurm: None, bare_settings: Path):
    path = bare_settings / "pyproject.toml"
    path.write_text("[tool.riverrun]\nplugins = ['runner-mpi']\n")
    assert message_of(lambda: _plugins.get("slurm"), TaskRunnerNotFound) == (
        f"The task runner `slurm` of runner-slurm 1.0 is not among the plugins that [tool.riverrun] of {path} allows. "
        f"To allow it, add `runner-slurm` to `plugins` in [tool.riverrun] of {path}."
    )
    path.write_text("[tool.riverrun]\ndisable_plugins = true\n")
    assert message_of(lambda: _plugins.get("slurm"), TaskRunnerNotFound) == (
        f"The task runner `slurm` of runner-slurm 1.0 is switched off by [tool.riverrun] of {path}. "
        f"To switch plugins on, set `disable_plugins` to false in [tool.riverrun] of {path}."
    )


def test_two_runners_of_one_name_that_are_both_excluded_are_both_named(
    install: Install, slurm: None, runner_source: RunnerSource, monkeypatch: pytest.MonkeyPatch
):
    install("other-slurm", {"slurm": "other_plugin:OtherSlurm"}, {"other_plugin": runner_source("OtherSlurm")})
    monkeypatch.setenv("RIVERRUN_PLUGINS", "mpi")
    assert message_of(lambda: _plugins.get("slurm"), TaskRunnerNotFound) == (
        "The task runners `slurm` of other-slurm 1.0 and runner-slurm 1.0 are not among the plugins that "
        "RIVERRUN_PLUGINS allows. To allow one, add `other-slurm` or `runner-slurm` to RIVERRUN_PLUGINS."
    )


def test_an_allow_list_decides_between_two_distributions_with_one_name(
    install: Install, slurm: None, runner_source: RunnerSource, monkeypatch: pytest.MonkeyPatch
):
    install("other-slurm", {"slurm": "other_plugin:OtherSlurm"}, {"other_plugin": runner_source("OtherSlurm")})
    monkeypatch.setenv("RIVERRUN_PLUGINS", "other-slurm")
    assert repr(_plugins.get("slurm")) == "OtherSlurm()"


def test_broken_metadata_of_one_distribution_stop_no_other(install: Install, slurm: None):
    folder = install("runner-broken", {})
    metadata = folder / "runner_broken-1.0.dist-info"
    (metadata / "entry_points.txt").write_text("[riverrun.task_runners]\nno equals sign here\n")
    stranger = install("stranger", {}) / "stranger-1.0.dist-info"
    (stranger / "entry_points.txt").write_bytes(b"\xff\xfe[riverrun.task_runners]")
    assert repr(_plugins.get("slurm")) == "SlurmTaskRunner()"
    (row,) = [row for row in _listing.list_runners() if row.name == "?"]
    assert row.distribution == "runner-broken"
    assert row.problem.startswith(f"its metadata in {metadata} cannot be read (")


def test_metadata_without_the_name_of_their_distribution_are_told_by_their_folder(install: Install):
    metadata = install("runner-half", {"half": "half_plugin:Half"}) / "runner_half-1.0.dist-info"
    (metadata / "METADATA").unlink()
    (row,) = [row for row in _listing.list_runners() if row.name == "?"]
    assert row.distribution == "runner-half"
    assert row.problem.startswith(f"its metadata in {metadata} cannot be read (")


def test_plugins_of_every_kind_obey_the_same_settings(install: Install, monkeypatch: pytest.MonkeyPatch):
    def offered(kind: str) -> dict[str, str]:
        others = [offer for offer in _offers.scan(kind) if offer.distribution != "core"]
        return {offer.full_name: _allowed.switched_off(offer) for offer in others}

    folder = install("diary", {"diary": "diary_runner:Diary"})
    points = folder / "diary-1.0.dist-info" / "entry_points.txt"
    # Among what are no task runners, the names of ours are free.
    points.write_text(f"{points.read_text()}[riverrun.observers]\npaper = diary:Paper\ndask = diary:Dask\n")
    assert offered("observer") == {"diary:paper": "", "diary:dask": ""}
    assert "diary:diary" in offered("task runner")
    monkeypatch.setenv("RIVERRUN_PLUGINS", "diary:paper")
    excluded = "not among the plugins that RIVERRUN_PLUGINS allows"
    assert offered("observer") == {"diary:paper": "", "diary:dask": excluded}
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "yes")
    assert set(offered("observer").values()) == {"switched off by RIVERRUN_DISABLE_PLUGINS"}


def test_what_comes_with_riverrun_is_never_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "1")
    monkeypatch.setenv("RIVERRUN_PLUGINS", "mpi")
    for distribution in ("core", "runner-dask", "runner_sequential"):
        assert not _allowed.switched_off(_offers.Offer("paper", "paper:Paper", distribution, kind="observer"))


def test_metadata_that_only_mention_riverrun_are_not_parsed(install: Install):
    folder = install("stranger", {}) / "stranger-1.0.dist-info"
    (folder / "entry_points.txt").write_text("[console_scripts]\nriverrun.task_runners no equals sign here\n")
    assert not [offer for offer in _offers.scan() if offer.problem]


def test_the_listing_tells_everything_about_every_runner(
    install: Install, ours: None, slurm: None, no_ray: None, runner_source: RunnerSource
):
    install("evil", {"dask": "evil_plugin:Evil"})
    install("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": "raise RuntimeError('broken')\n"}, version="0.9")
    modules = {
        "hooked": HOOK.format("from hooked_runner import Hooked; return Hooked"),
        "hooked_runner": runner_source("Hooked"),
    }
    install("runner-hooked", {"hooked": "hooked"}, modules)
    install("other-hooked", {"hooked": "other_hooked:Hooked"}, {"other_hooked": runner_source("Hooked")})
    rows = _listing.list_runners()
    row = _listing.Row
    rivals = "offers this name too: write"
    assert rows == [
        row("sequential", "runner_sequential:SequentialTaskRunner", "runner-sequential", "1.0", "concurrent", ""),
        row("concurrent", "runner_concurrent:ConcurrentTaskRunner", "runner-concurrent", "0.2", "concurrent", ""),
        row("dask", "runner_dask:DaskTaskRunner", "runner-dask", "1.0", "concurrent", ""),
        row(
            "ray",
            "runner_ray:RayTaskRunner",
            "runner-ray",
            "",
            "",
            "not installed; pip install 'core[ray]'",
            installed=False,
        ),
        row(
            "bad",
            "bad_plugin:Bad",
            "runner-bad",
            "0.9",
            "",
            "The task runner `bad` of runner-bad 0.9 cannot be loaded: RuntimeError: broken",
        ),
        row(
            "dask",
            "evil_plugin:Evil",
            "evil",
            "1.0",
            "",
            "The distribution evil 1.0 offers a task runner `dask`: "
            "that name belongs to runner-dask, so this one is not used.",
        ),
        row(
            "hooked",
            "hooked_runner:Hooked",
            "runner-hooked",
            "1.0",
            "concurrent",
            f"other-hooked 1.0 {rivals} `runner-hooked:hooked`",
        ),
        row(
            "hooked",
            "other_hooked:Hooked",
            "other-hooked",
            "1.0",
            "concurrent",
            f"runner-hooked 1.0 {rivals} `other-hooked:hooked`",
        ),
        row("slurm", "slurm_plugin:SlurmTaskRunner", "runner-slurm", "1.0", "concurrent", ""),
    ]


def test_the_listing_loads_nothing_that_is_switched_off(ours: None, slurm: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "1")
    assert _listing.list_runners()[-1] == _listing.Row(
        "slurm", "slurm_plugin:SlurmTaskRunner", "runner-slurm", "1.0", "", "switched off by RIVERRUN_DISABLE_PLUGINS"
    )
    assert "slurm_plugin" not in sys.modules


def run(script: str, path: object) -> set[str]:
    # From Python 3.14 on, logging imports dataclasses.
    prepare = f"import logging, sys; sys.path.insert(0, {str(path)!r}); before = {{*sys.modules}}"
    command = f"{prepare}\n{script}\nprint(*{{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", command], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"pluggy", "importlib_metadata", "pydantic", "inspect", "dataclasses", "anyio"}


def test_importing_the_contract_imports_nothing_heavy(tmp_path: Path):
    assert not HEAVY & run("import riverrun.abc", tmp_path)


def test_asking_for_a_runner_of_ours_reads_no_metadata(install: Install, runner_source: RunnerSource):
    source = runner_source("SequentialTaskRunner")
    folder = install("runner-sequential", {}, {"runner_sequential": source})
    imported = run("from riverrun._plugins import resolve; resolve('sequential')", folder)
    assert "runner_sequential" in imported
    assert not (HEAVY | {"tomllib"}) & imported


def test_an_entry_point_that_names_its_class_needs_no_pluggy(install: Install, runner_source: RunnerSource):
    folder = install("runner-slurm", {"slurm": "slurm_plugin:Slurm"}, {"slurm_plugin": runner_source("Slurm")})
    imported = run("from riverrun._plugins import resolve; resolve('slurm')", folder)
    assert {"slurm_plugin", "importlib_metadata"} <= imported
    assert not {"pluggy", "pydantic"} & imported
