"""The one version that all packages carry, and the ranges in which they require each other: checked, moved together.

::

    versions.py check core runner-dask ...          says what does not fit, and ends with 1 if anything does not
    versions.py bump minor core runner-dask ...     version, ranges and a new heading in each changelog

`nox -s versions` names the packages. A release 0.1.z works with any other 0.1.z, and 1.y.z with any later 1.y.z: so the
range follows from the version, `>=0.1,<0.2` or `>=1.4,<2`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEADING = re.compile(r"^## (\S+)", re.MULTILINE)
UNRELEASED = "## {} (not released yet)\n\nNothing a user can notice yet.\n\n"


@dataclass(frozen=True)
class Package:
    """One folder with a `pyproject.toml`, as it is on the disk."""

    folder: Path
    document: Any
    changelog: str

    @classmethod
    def read(cls, folder: Path) -> Package:
        """Read what stands in a folder."""
        project = folder / "pyproject.toml"
        if not project.is_file():
            raise click.ClickException(f"{project} does not exist. Name the folders of packages, such as `core`.")
        text = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
        return cls(folder, tomlkit.parse(project.read_text(encoding="utf-8")), text)

    @property
    def name(self) -> str:
        """The name of the distribution."""
        return canonicalize_name(str(self.document["project"]["name"]))

    @property
    def version(self) -> Version:
        """The version that it carries."""
        return Version(str(self.document["project"]["version"]))

    def requirement_lists(self) -> Iterator[Any]:
        """Give each list of requirements: that of the package, and those of its extras."""
        project = self.document["project"]
        yield project.get("dependencies", [])
        yield from project.get("optional-dependencies", {}).values()

    def write(self) -> None:
        """Write back what was changed."""
        (self.folder / "pyproject.toml").write_text(tomlkit.dumps(self.document), encoding="utf-8")
        (self.folder / "CHANGELOG.md").write_text(self.changelog, encoding="utf-8")


def compatible(version: Version) -> str:
    """Give the range of the releases that work with this one."""
    lowest = str(version) if version.is_prerelease else f"{version.major}.{version.minor}"
    return f">={lowest},<{f'0.{version.minor + 1}' if version.major == 0 else version.major + 1}"


def is_sibling(requirement: Requirement) -> bool:
    """Tell whether a requirement is one of Riverrun's own packages, also of one that is not built yet."""
    name = canonicalize_name(requirement.name)
    return name == "core" or name.startswith("runner-")


def wanted(requirement: Requirement, version: Version) -> str:
    """Write a requirement with the range of a version, and with its extras and its marker as they are."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return f"{requirement.name}{extras}{compatible(version)}{marker}"


def problems(packages: Sequence[Package]) -> list[str]:
    """Say what does not fit together, a line each."""
    common = packages[0].version
    found = []
    for package in packages:
        project = package.folder / "pyproject.toml"
        if package.version != common:
            found.append(
                f"{project} has version {package.version}, {packages[0].name} has {common}: they move together."
            )
        newest = HEADING.search(package.changelog)
        if newest is None or newest[1] != str(package.version):
            top = f"`{newest[0]}`" if newest else "no heading of a release"
            found.append(f"{package.folder / 'CHANGELOG.md'} begins with {top}, and not with `## {package.version}`.")
        for line in (line for lines in package.requirement_lists() for line in lines):
            requirement = Requirement(line)
            range_of_line = Requirement(wanted(requirement, common)).specifier
            if is_sibling(requirement) and (requirement.specifier != range_of_line or requirement.url):
                found.append(
                    f"{project} requires `{line}`; with version {common} it has to be `{wanted(requirement, common)}`."
                )
    return found


def next_version(now: Version, to: str) -> Version:
    """Give the version that `major`, `minor`, `patch` or a version itself means."""
    steps = {
        "major": f"{now.major + 1}.0.0",
        "minor": f"{now.major}.{now.minor + 1}.0",
        "patch": now.base_version if now.is_prerelease else f"{now.major}.{now.minor}.{now.micro + 1}",
    }
    try:
        then = Version(steps.get(to, to))
    except InvalidVersion:
        raise click.ClickException(
            f"`{to}` is no version. Write major, minor, patch, or a version such as {steps['minor']}."
        ) from None
    if then <= now:
        raise click.ClickException(f"{then} is not above {now}, the version that the packages carry.")
    return then


folders = click.argument(
    "folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False)
)


@click.group()
def main() -> None:
    """Check the versions of the packages, or move them together."""


@main.command()
@folders
def check(folders: tuple[Path, ...]) -> None:
    """Say what does not fit, and end with status 1 if anything does not."""
    packages = [Package.read(folder) for folder in folders]
    if found := problems(packages):
        raise click.ClickException("\n".join(["the versions do not fit together.", *found]))
    version = packages[0].version
    click.echo(f"{len(packages)} packages carry version {version}, and require each other as {compatible(version)}.")


@main.command()
@click.argument("to", metavar="major|minor|patch|VERSION")
@folders
def bump(to: str, folders: tuple[Path, ...]) -> None:
    """Give all packages a higher version, with the ranges that follow from it, and a heading in each changelog."""
    packages = [Package.read(folder) for folder in folders]
    if found := problems(packages):
        raise click.ClickException("\n".join(["mend this first, nothing was changed.", *found]))
    now = packages[0].version
    then = next_version(now, to)
    moved = [move(package, then) for package in packages]
    for package in moved:
        package.write()
    click.echo(f"{len(moved)} packages: {now} -> {then}, and they require each other as {compatible(then)}.")
    click.echo("Look at `git diff`, and at the headings of the changelogs.")


def move(package: Package, then: Version) -> Package:
    """Give a package as it is with a higher version; nothing is written."""
    package.document["project"]["version"] = str(then)
    for lines in package.requirement_lists():
        for index, line in enumerate(lines):
            requirement = Requirement(line)
            if is_sibling(requirement):
                lines[index] = wanted(requirement, then)
    changelog = HEADING.sub(lambda found: UNRELEASED.format(then) + found[0], package.changelog, count=1)
    return Package(package.folder, package.document, changelog)


if __name__ == "__main__":
    main()
