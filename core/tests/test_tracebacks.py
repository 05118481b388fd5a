from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import pytest
from riverrun import _tracebacks, states

if TYPE_CHECKING:
    from collections.abc import Callable


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is
        function()
    return caught.value


def frames(text: str) -> list[str]:
    return [line.rpartition(" in ")[2] for line in text.splitlines() if line.lstrip(" |").startswith("File ")]


def fails() -> None:
    raise ValueError("from here")


def in_riverrun() -> None:
    states.Failed("x", raised(fails)).result()


def test_frames_of_riverrun_and_of_what_it_runs_on_are_left_out():
    error = raised(in_riverrun)
    assert frames(_tracebacks.trimmed(error)) == ["raised", "in_riverrun", "raised", "fails"]
    assert "result" in frames(_tracebacks.whole(error))


def test_an_exception_without_a_frame_of_the_users_stands_alone():
    def pool_fails() -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(None).result()  # type: ignore[arg-type]

    error = raised(pool_fails)
    assert error.__traceback__ is not None
    inside = error.with_traceback(error.__traceback__.tb_next.tb_next)  # type: ignore[union-attr]
    assert _tracebacks.trimmed(inside) == "TypeError: 'NoneType' object is not callable"


def test_causes_groups_and_notes_are_trimmed_and_kept():
    def with_cause() -> None:
        try:
            in_riverrun()
        except ValueError as error:
            group = ExceptionGroup("several", [raised(in_riverrun), KeyError("b")])  # type: ignore[list-item]
            group.add_note("a note")
            raise group from error

    text = _tracebacks.trimmed(raised(with_cause))
    assert "direct cause" in text
    assert "a note" in text
    assert "states.py" not in text
    assert frames(text).count("fails") == 2


def test_frames_of_named_packages_are_left_out_too():
    error = raised(lambda: pytest.fail("no"))
    assert "_pytest" not in _tracebacks.trimmed(error, "_pytest")


def test_a_very_long_chain_of_causes_is_no_problem():
    error = ValueError("0")
    for number in range(300):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    assert _tracebacks.trimmed(error).count("ValueError") == 301
