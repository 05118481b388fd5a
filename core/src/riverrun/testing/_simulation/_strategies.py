"""A strategy of hypothesis for programs; importing it needs hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from riverrun.testing._simulation._programs import draw_program

if TYPE_CHECKING:
    from riverrun.testing._simulation._programs import Program


class _Draws:
    """Draws what hypothesis says; the smaller, the simpler."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, least: int, most: int) -> int:
        """Draw a number."""
        return self._draw(st.integers(least, most))

    def chance(self, probability: float) -> bool:
        """Draw a lot."""
        return self._draw(st.integers(0, 99)) >= 100 * (1 - probability)


@st.composite
def programs(draw: st.DrawFn, most_steps: int = 60) -> Program:
    """Draw programs of up to so many steps."""
    return draw_program(_Draws(draw), most_steps)
