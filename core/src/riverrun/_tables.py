"""Tables of plain text, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows below a header, in columns that are as wide as they have to be.

    A column without a single entry is left out, and what could disturb a terminal is shown as `?`.

    Example:
        >>> from riverrun._tables import table
        >>> print(table(["name", "problem", "version"], [["dask", "", "0.1"], ["concurrent", "", "0.12"]]))
        NAME        VERSION
        dask        0.1
        concurrent  0.12
    """
    lines = [[name.upper() for name in header], *([printable(cell) for cell in row] for row in rows)]
    columns = [column for column in zip(*lines, strict=True) if any(column[1:]) or not rows]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    )


def printable(text: str) -> str:
    """Replace what a terminal would obey, such as escape sequences and line feeds.

    Example:
        >>> from riverrun._tables import printable
        >>> printable("red" + chr(27) + "[0m")
        'red?[0m'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def duration(seconds: float) -> str:
    """Give a length of time as people read it.

    Example:
        >>> from riverrun._tables import duration
        >>> [duration(seconds) for seconds in (0.0042, 1.5, 75, 7322)]
        ['4 ms', '1.50 s', '1 min 15 s', '2 h 02 min']
    """
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
