"""Wheels and sdists have what they should, and nothing else; `nox -s integration` names their folder in `DIST`."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.metadata import Metadata
from packaging.utils import parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).parents[1]
DIST = os.environ.get("DIST", "")
WHEELS = sorted(Path(DIST).glob("*.whl")) if DIST else []
SDISTS = sorted(Path(DIST).glob("*.tar.gz")) if DIST else []

pytestmark = pytest.mark.skipif(not DIST, reason="`nox -s integration` builds the packages, and names the folder")


class Built(NamedTuple):
    """A wheel or an sdist, and the folder of the package that it was built from."""

    folder: Path
    stem: str
    """Name and version, as the file has them."""
    files: dict[str, bytes]

    def sources(self) -> set[str]:
        """What is under `src` in the repository, with paths from there."""
        src = self.folder / "src"
        paths = [path for path in src.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {path.relative_to(src).as_posix() for path in paths}


@pytest.fixture(params=WHEELS, ids=lambda path: path.name)
def wheel(request: pytest.FixtureRequest) -> Built:
    name = parse_wheel_filename(request.param.name)[0]
    with zipfile.ZipFile(request.param) as archive:
        files = {path: archive.read(path) for path in archive.namelist()}
    return Built(ROOT / name, "-".join(request.param.name.split("-")[:2]), files)


@pytest.fixture(params=SDISTS, ids=lambda path: path.name)
def sdist(request: pytest.FixtureRequest) -> Built:
    name = parse_sdist_filename(request.param.name)[0]
    with tarfile.open(request.param) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        files = {path: file.read() for path, file in members.items() if file}
    return Built(ROOT / name, request.param.name.removesuffix(".tar.gz"), files)


def check_metadata(built: Built, metadata: bytes) -> None:
    """The metadata are valid, and say what an index shows: licence, Pythons, and the README as the description."""
    shown = Metadata.from_email(metadata)
    assert shown.license_expression == "Apache-2.0"
    assert shown.license_files == ["LICENSE"]
    assert str(shown.requires_python) == ">=3.11"
    assert "Typing :: Typed" in (shown.classifiers or [])
    assert shown.summary
    assert shown.description_content_type == "text/markdown"
    readme = (built.folder / "README.md").read_text(encoding="utf-8")
    assert shown.description == readme
    # An index shows it by itself: a link into the repository would lead nowhere.
    links = [part.partition(")")[0] for part in readme.split("](")[1:]]
    assert not [link for link in links if not link.startswith(("https://", "#"))]


def test_each_package_has_a_wheel_and_an_sdist():
    assert WHEELS
    assert len(WHEELS) == len(SDISTS)
    folders = {path.parent.name for path in ROOT.glob("*/pyproject.toml")}
    assert {parse_wheel_filename(path.name)[0] for path in WHEELS} <= folders
    assert {parse_wheel_filename(path.name)[:2] for path in WHEELS} == {
        parse_sdist_filename(path.name) for path in SDISTS
    }


def test_a_wheel_has_the_sources_and_its_metadata_and_nothing_else(wheel: Built):
    about = f"{wheel.stem}.dist-info"
    names = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]
    assert set(wheel.files) == wheel.sources() | {f"{about}/{name}" for name in names}
    (package,) = {path.partition("/")[0] for path in wheel.sources()}
    assert f"{package}/py.typed" in wheel.files
    assert wheel.files[f"{about}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    check_metadata(wheel, wheel.files[f"{about}/METADATA"])


def test_an_sdist_has_the_sources_and_what_a_build_needs_and_nothing_else(sdist: Built):
    names = ["CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"]
    # Hatchling adds the .gitignore: what is built from an sdist leaves out the same files.
    names += [".gitignore", *(f"src/{path}" for path in sdist.sources())]
    assert set(sdist.files) == {f"{sdist.stem}/{name}" for name in names}
    for name in ("CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"):
        assert sdist.files[f"{sdist.stem}/{name}"] == (sdist.folder / name).read_bytes()
    assert sdist.files[f"{sdist.stem}/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    check_metadata(sdist, sdist.files[f"{sdist.stem}/PKG-INFO"])
