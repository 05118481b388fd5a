"""`scripts/versions.py`: the packages carry one version, require each other in compatible ranges, and move together."""

from __future__ import annotations

import difflib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/pyproject.toml"))
LIMIT = 120
"""How long one command may take, in seconds: a limit against hangs."""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Versions(Protocol):
    def __call__(self, *words: str) -> Ended: ...


@pytest.fixture(scope="session")
def at_7_1_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a copy of each package's `pyproject.toml` and changelog, moved to a version of its own.

    From there on, the tests do not depend on the version that the packages have today.
    """
    folder = tmp_path_factory.mktemp("versions")
    for package in PACKAGES:
        (folder / package).mkdir()
        for name in ("pyproject.toml", "CHANGELOG.md"):
            shutil.copy(ROOT / package / name, folder / package)
    command = [sys.executable, str(ROOT / "scripts" / "versions.py"), "bump", "7.1.0", *PACKAGES]
    moved = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (moved.returncode, moved.stderr) == (0, "")
    return folder


@pytest.fixture
def versions(
    at_7_1_0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Versions:
    """Give the command, to be called in a folder of this test, with packages at 7.1.0: all of it but the process."""
    shutil.copytree(at_7_1_0, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def versions(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["versions.py", *words, *PACKAGES])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts" / "versions.py"), run_name="__main__")
        return Ended(ended.value.code, *capsys.readouterr())

    return versions


def changed(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def test_the_packages_of_this_repository_fit_together():
    command = [sys.executable, "scripts/versions.py", "check", *PACKAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("to", "then", "compatible"),
    [
        ("minor", "7.2.0", ">=7.2,<8"),
        ("major", "8.0.0", ">=8.0,<9"),
        ("patch", "7.1.1", ">=7.1,<8"),
        ("8.0rc1", "8.0rc1", ">=8.0rc1,<9"),
        ("7.10.3", "7.10.3", ">=7.10,<8"),
    ],
)
def test_all_packages_move_together(versions: Versions, tmp_path: Path, to: str, then: str, compatible: str):
    moved = versions("bump", to)
    assert (moved.status, moved.err) == (0, "")
    assert moved.out.startswith(
        f"{len(PACKAGES)} packages: 7.1.0 -> {then}, and they require each other as {compatible}.\n"
    )
    core = (tmp_path / "core" / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{then}"\n' in core
    assert f'dask = ["runner-dask{compatible}"]' in core
    assert f'"core{compatible}"' in (tmp_path / "runner-dask" / "pyproject.toml").read_text("utf-8")
    assert f"\n## {then} (not released yet)\n" in (tmp_path / "core" / "CHANGELOG.md").read_text("utf-8")
    checked = versions("check")
    assert checked == (
        0,
        f"{len(PACKAGES)} packages carry version {then}, and require each other as {compatible}.\n",
        "",
    )


def test_a_release_candidate_moves_to_its_release(versions: Versions):
    versions("bump", "8.0rc1")
    assert "8.0rc1 -> 8.0, " in versions("bump", "patch").out


def test_below_1_0_each_minor_release_is_a_range_of_its_own(tmp_path: Path, versions: Versions):
    for package in PACKAGES:
        project = tmp_path / package / "pyproject.toml"
        changed(project, "7.1.0", "0.9.1")
        project.write_text(project.read_text("utf-8").replace(">=7.1,<8", ">=0.9,<0.10"), "utf-8")
        changed(tmp_path / package / "CHANGELOG.md", "7.1.0", "0.9.1")
    assert versions("check").out.endswith("carry version 0.9.1, and require each other as >=0.9,<0.10.\n")
    assert versions("bump", "minor").out.startswith(f"{len(PACKAGES)} packages: 0.9.1 -> 0.10.0, and")


def test_a_move_touches_versions_ranges_and_a_heading_and_nothing_else(versions: Versions, tmp_path: Path):
    files = [tmp_path / package / name for package in PACKAGES for name in ("pyproject.toml", "CHANGELOG.md")]
    before = [file.read_text("utf-8").splitlines() for file in files]
    versions("bump", "8.0.0")
    for file, lines in zip(files, before, strict=True):
        after = file.read_text("utf-8").splitlines()
        delta = [line for line in difflib.ndiff(lines, after) if line[0] in "+-"]
        assert delta
        if file.name == "CHANGELOG.md":
            heading = ["+ ## 8.0.0 (not released yet)", "+ Nothing a user can notice yet."]
            assert [line for line in delta if line.strip() != "+"] == heading
        else:
            back = [line.replace("8.0.0", "7.1.0").replace(">=8.0,<9", ">=7.1,<8")[2:] for line in delta]
            assert sorted(back[0::2]) == sorted(back[1::2])  # each pair is one line, before and after


def test_a_range_that_does_not_fit_is_told_with_the_one_that_does(versions: Versions, tmp_path: Path):
    changed(tmp_path / "runner-dask" / "pyproject.toml", '"core>=7.1,<8"', '"core>=7.1"')
    ended = versions("check")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "Error: the versions do not fit together.\n"
        "runner-dask/pyproject.toml requires `core>=7.1`; with version 7.1.0 it has to be `core>=7.1,<8`.\n"
    )


def test_a_range_in_an_extra_is_checked_also_of_a_package_that_is_not_named(versions: Versions, tmp_path: Path):
    extra = "runner-far[gpu]>=7.1,<9; python_version < '3.13'"
    changed(
        tmp_path / "core" / "pyproject.toml",
        "[project.optional-dependencies]",
        f'[project.optional-dependencies]\nfar = ["{extra}"]',
    )
    ended = versions("check")
    assert ended.status == 1
    assert ended.err.endswith(
        f"core/pyproject.toml requires `{extra}`; with version 7.1.0 it has to be "
        '`runner-far[gpu]>=7.1,<8; python_version < "3.13"`.\n'
    )


def test_packages_of_different_versions_are_told_and_not_moved(versions: Versions, tmp_path: Path):
    changed(tmp_path / "runner-dask" / "pyproject.toml", 'version = "7.1.0"', 'version = "7.2.0"')
    told = [
        "runner-dask/pyproject.toml has version 7.2.0, core has 7.1.0: they move together.",
        "runner-dask/CHANGELOG.md begins with `## 7.1.0`, and not with `## 7.2.0`.",
    ]
    assert versions("check").err.splitlines() == ["Error: the versions do not fit together.", *told]
    core = (tmp_path / "core" / "pyproject.toml").read_bytes()
    ended = versions("bump", "8.0.0")
    assert ended.status == 1
    assert ended.err.splitlines() == ["Error: mend this first, nothing was changed.", *told]
    assert (tmp_path / "core" / "pyproject.toml").read_bytes() == core


@pytest.mark.parametrize(
    ("to", "text"),
    [
        ("7.1.0", "7.1.0 is not above 7.1.0, the version that the packages carry."),
        ("6.9", "6.9 is not above 7.1.0, the version that the packages carry."),
        ("mineur", "`mineur` is no version. Write major, minor, patch, or a version such as 7.2.0."),
    ],
)
def test_a_version_that_is_none_or_not_higher_is_refused(versions: Versions, tmp_path: Path, to: str, text: str):
    core = (tmp_path / "core" / "pyproject.toml").read_bytes()
    assert versions("bump", to) == (1, "", f"Error: {text}\n")
    assert (tmp_path / "core" / "pyproject.toml").read_bytes() == core


def test_a_folder_that_is_no_package_is_refused(versions: Versions):
    ended = versions("check", "cores")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "Error: cores/pyproject.toml does not exist. Name the folders of packages, such as `core`.\n"
