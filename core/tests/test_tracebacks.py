from __future__ import annotations

import concurrent.futures
import json
from typing import TYPE_CHECKING

import pytest
from riverrun import _tracebacks, states
from riverrun.exceptions import TaskRunnerStartError

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


def test_a_failed_start_in_other_peoples_code_is_told_by_its_text():
    def failed(text: str, cause: BaseException) -> BaseException:
        error = TaskRunnerStartError(text)
        error.__cause__ = cause
        return error

    def in_installed_code() -> BaseException:
        error = raised(lambda: json.loads("no JSON"))
        assert error.__traceback__ is not None
        return error.with_traceback(error.__traceback__.tb_next.tb_next)  # type: ignore[union-attr]

    named = failed("no cluster: JSONDecodeError: Expecting value", in_installed_code())
    assert _tracebacks.is_told(named)
    assert _tracebacks.trimmed(named) == f"riverrun.exceptions.TaskRunnerStartError: {named}"
    assert "json/decoder.py" in _tracebacks.whole(named)
    # Where the text does not name it, or where the user's own function failed, the cause has something to tell.
    for other in (
        failed("no cluster", in_installed_code()),
        failed("no cluster: ValueError: from here", raised(fails)),
        failed("no cluster: JSONDecodeError", raised(lambda: json.loads("no JSON"))),
    ):
        assert not _tracebacks.is_told(other)
        assert "direct cause" in _tracebacks.trimmed(other)
    behind = in_installed_code()
    behind.__context__ = raised(fails)
    assert not _tracebacks.is_told(failed("no cluster: JSONDecodeError", behind))
    assert not _tracebacks.is_told(raised(fails))


def test_a_very_long_chain_of_causes_is_no_problem():
    error = ValueError("0")
    for number in range(300):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    assert _tracebacks.trimmed(error).count("ValueError") == 301
