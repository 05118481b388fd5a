"""The table `[tool.riverrun]` of the nearest `pyproject.toml`."""

from __future__ import annotations

import os
from typing import Any

from riverrun.exceptions import SettingsError


def _nearest_pyproject() -> str | None:
    try:
        folder = os.getcwd()
    except OSError:  # somebody removed the working directory
        return None
    while True:
        path = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(path):
            return path
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


_parsed: dict[str, tuple[bytes, dict[str, Any]]] = {}


def tool_table() -> tuple[str, dict[str, Any]]:
    """Read the nearest `pyproject.toml`, in the working directory or above it.

    Returns:
        Its path, and its `[tool.riverrun]`; both are empty where there is none.

    Raises:
        SettingsError: the file cannot be read.
    """
    path = _nearest_pyproject()
    if path is None:
        return "", {}
    content = read(path)
    # Most files have nothing for us, and tomllib costs 5 ms; TOML also allows `[tool] riverrun.x` and `[ tool . x ]`.
    squeezed = content.translate(None, b" \t\"'")
    if b"riverrun" not in squeezed or not (b"tool.riverrun" in squeezed or b"[tool]" in squeezed):
        return path, {}
    # What was parsed is kept with its bytes, not with a time stamp, so that no change can be missed.
    known, table = _parsed.get(path, (b"", {}))
    if known != content:
        table = _parse(path, content)
        _parsed[path] = (content, table)
    return path, table


def read(path: str) -> bytes:
    """Return what a file holds."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error


def _parse(path: str, content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        table = tomllib.loads(content.decode()).get("tool", {}).get("riverrun", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    if not isinstance(table, dict):
        raise SettingsError(f"`tool.riverrun` of {path} must be a table, not {table!r}.")
    return table
