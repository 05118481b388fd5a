from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from riverrun import _pyproject, _settings
from riverrun.exceptions import SettingsError

pytestmark = pytest.mark.usefixtures("bare_settings")


def write_pyproject(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text)
    return path


def test_without_any_setting_the_defaults_hold():
    assert _settings.load() == _settings.Settings(
        task_runner=None,
        log_level="INFO",
        home=str(Path.home() / ".riverrun"),
        disable_plugins=False,
        plugins=None,
        observers=(),
        event_log=None,
        task_runners={},
        sources={},
    )


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        _settings.load().log_level = "DEBUG"


def test_the_environment_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", " dask ")
    monkeypatch.setenv("RIVERRUN_LOG_LEVEL", "debug")
    monkeypatch.setenv("RIVERRUN_HOME", "~/elsewhere")
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "1")
    monkeypatch.setenv("RIVERRUN_PLUGINS", "slurm, mpi:fast,")
    settings = _settings.load()
    assert settings[:5] == ("dask", "DEBUG", str(Path.home() / "elsewhere"), True, ("slurm", "mpi:fast"))
    assert settings.sources["task_runner"] == "RIVERRUN_TASK_RUNNER"
    monkeypatch.delenv("RIVERRUN_TASK_RUNNER")
    assert _settings.load().task_runner is None


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    for variable in _settings.VARIABLES:
        monkeypatch.setenv(variable, "")
    assert _settings.load().sources == {}


@pytest.mark.parametrize("value", ["0", "false", "No", "off"])
def test_plugins_can_be_left_enabled_in_so_many_words(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", value)
    assert _settings.load().disable_plugins is False


def test_the_nearest_pyproject_at_or_above_the_working_directory_is_read(
    bare_settings: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_pyproject(
        bare_settings,
        """
        [tool.riverrun]
        task_runner = "ray"
        log_level = "WARNING"
        disable_plugins = true
        plugins = []
        [tool.riverrun.task_runners.dask]
        cluster_kwargs = {n_workers = 4}
        """,
    )
    below = bare_settings / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    settings = _settings.load()
    assert (settings.task_runner, settings.log_level, settings.disable_plugins, settings.plugins) == (
        "ray",
        "WARNING",
        True,
        (),
    )
    assert settings.task_runners == {"dask": {"cluster_kwargs": {"n_workers": 4}}}
    assert settings.sources["task_runner"] == f"[tool.riverrun] of {path}"


def test_a_nearer_pyproject_hides_one_further_up(bare_settings: Path, monkeypatch: pytest.MonkeyPatch):
    write_pyproject(bare_settings, '[tool.riverrun]\ntask_runner = "ray"\n')
    below = bare_settings / "a"
    below.mkdir()
    write_pyproject(below, "[project]\n")
    monkeypatch.chdir(below)
    assert _settings.load().task_runner is None


@pytest.mark.parametrize(
    "text",
    [
        '[tool.riverrun]\ntask_runner = "ray"',
        '[ tool . "riverrun" ]\ntask_runner = "ray"',
        '[tool]\nriverrun.task_runner = "ray"',
    ],
)
def test_every_spelling_of_the_table_is_found(bare_settings: Path, text: str):
    write_pyproject(bare_settings, text)
    assert _settings.load().task_runner == "ray"


def test_a_changed_file_is_read_again_even_within_one_tick_of_the_clock(bare_settings: Path):
    for runner in ("dask", "rays", "fork"):
        write_pyproject(bare_settings, f'[tool.riverrun]\ntask_runner = "{runner}"\n')
        assert _settings.load().task_runner == runner


def test_home_in_a_file_is_meant_from_that_file(bare_settings: Path, monkeypatch: pytest.MonkeyPatch):
    write_pyproject(bare_settings, '[tool.riverrun]\nhome = "state"\n')
    (bare_settings / "a").mkdir()
    monkeypatch.chdir(bare_settings / "a")
    assert _settings.load().home == str(bare_settings / "state")


def test_command_line_wins_over_environment_wins_over_file(bare_settings: Path, monkeypatch: pytest.MonkeyPatch):
    write_pyproject(bare_settings, '[tool.riverrun]\ntask_runner = "ray"\nlog_level = "ERROR"\n')
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", "dask")
    with _settings.override(task_runner="sequential"):
        assert _settings.load().task_runner == "sequential"
        assert _settings.load().sources["task_runner"] == "the command line"
        assert _settings.command_line() == {"task_runner": "sequential"}
        with _settings.override(log_level="debug", disable_plugins=True, plugins=["a"], home="/x"):
            assert _settings.load()[:5] == ("sequential", "DEBUG", "/x", True, ("a",))
    assert _settings.command_line() == {}
    assert _settings.load().task_runner == "dask"
    assert _settings.load().log_level == "ERROR"


def test_settings_survive_a_working_directory_that_was_removed(bare_settings: Path):
    bare_settings.rmdir()
    assert _settings.load().task_runner is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "RIVERRUN_LOG_LEVEL",
            "WARNIG",
            (
                "RIVERRUN_LOG_LEVEL is 'WARNIG'; it must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
                "; did you mean `WARNING`?"
            ),
        ),
        (
            "RIVERRUN_LOG_LEVEL",
            "42",
            "RIVERRUN_LOG_LEVEL is '42'; it must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL.",
        ),
        (
            "RIVERRUN_DISABLE_PLUGINS",
            "maybe",
            "RIVERRUN_DISABLE_PLUGINS is 'maybe'; it must be 1, true, yes, on, 0, false, no or off.",
        ),
    ],
)
def test_a_bad_variable_is_named_with_what_it_may_be(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        _settings.load()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("task_runner = 3", "`task_runner` in [tool.riverrun] of {path} is 3; it must be a text that is not empty."),
        (
            "disable_plugins = 1",
            "`disable_plugins` in [tool.riverrun] of {path} is 1; it must be 1, true, yes, on, 0, false, no or off.",
        ),
        (
            "plugins = 1",
            (
                "`plugins` in [tool.riverrun] of {path} is 1; "
                "it must be a list of names (in a variable: with commas between them)."
            ),
        ),
        (
            "task_runners = {dask = 1}",
            (
                "`task_runners` in [tool.riverrun] of {path} is {{'dask': 1}}; "
                "it must be tables of options, as in [tool.riverrun.task_runners.dask]."
            ),
        ),
        (
            "task_runer = 'dask'",
            (
                "[tool.riverrun] of {path} has an unknown key `task_runer`; did you mean `task_runner`? "
                "It may have: `task_runner`, `log_level`, `home`, `disable_plugins`, `plugins`, `observers`, "
                "`event_log`, `task_runners`."
            ),
        ),
    ],
)
def test_a_bad_line_in_the_file_is_named_with_the_file(bare_settings: Path, line: str, message: str):
    path = write_pyproject(bare_settings, f"[tool.riverrun]\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        _settings.load()
    assert str(caught.value) == message.format(path=path)


def test_a_file_that_is_not_toml_is_named(bare_settings: Path):
    path = write_pyproject(bare_settings, "[tool.riverrun]\nx = \n")
    with pytest.raises(SettingsError, match="is not valid TOML: Invalid value") as caught:
        _settings.load()
    assert str(caught.value).startswith(f"{path} is not valid TOML")


def test_a_broken_file_that_says_nothing_about_riverrun_is_not_our_business(bare_settings: Path):
    write_pyproject(bare_settings, "[tool.black\n")
    assert _settings.load().sources == {}


def test_a_table_that_is_no_table_is_refused(bare_settings: Path):
    path = write_pyproject(bare_settings, "[tool]\nriverrun = 3\n")
    with pytest.raises(SettingsError) as caught:
        _settings.load()
    assert str(caught.value) == f"`tool.riverrun` of {path} must be a table, not 3."


def test_a_file_that_cannot_be_read_is_named(bare_settings: Path):
    # Not by its permissions: tests may run as root, who may read all.
    path = write_pyproject(bare_settings, "[tool.riverrun]\n")
    with pytest.raises(SettingsError) as caught:
        _pyproject.read(str(path / "no-such"))
    assert str(caught.value) == f"{path}/no-such cannot be read: Not a directory."


def test_an_unknown_variable_is_warned_of_with_the_near_match(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_TASKRUNNER", "dask")
    with pytest.warns(UserWarning, match="RIVERRUN_TASKRUNNER") as caught:
        _settings.load()
    assert [str(warning.message) for warning in caught] == [
        "Riverrun does not know the environment variable `RIVERRUN_TASKRUNNER`; did you mean `RIVERRUN_TASK_RUNNER`?"
    ]


def test_a_bad_value_on_the_command_line_is_refused():
    with (
        pytest.raises(SettingsError, match="`log_level` on the command line is 'loud'"),
        _settings.override(log_level="loud"),
    ):
        pass


def test_reading_settings_without_a_file_imports_no_parser():
    script = (
        "import logging, sys; "  # from Python 3.14 on, logging imports dataclasses; from 3.15 on, pathlib
        "before = {*sys.modules}; from riverrun import _settings; "
        "_settings.load(); print(*{*sys.modules} - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"tomllib", "pathlib", "difflib", "inspect", "dataclasses", "pydantic"} & set(done.stdout.split())
