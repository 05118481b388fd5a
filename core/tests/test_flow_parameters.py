"""What a flow is called with: checked and coerced before it begins, and no value of it shown in an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
import pytest
from riverrun import ParameterTypeError, RiverrunError, flow, task


class Order(pydantic.BaseModel):
    item: str
    count: int = 1


class Odd:
    """A class that pydantic knows nothing of."""


@flow(task_runner="sequential")
def typed(a: int, b: str = "b", *rest: int, c: list[int] | None = None, **more: float):
    return a, b, rest, c, more


def test_values_are_coerced_by_their_annotations():
    assert typed("1", "x", "2", 3, c=("4", 5), d="1.5") == (1, "x", (2, 3), [4, 5], {"d": 1.5})


def test_values_that_fit_are_passed_on():
    assert typed(1) == (1, "b", (), None, {})
    assert typed(a=1, c=[]) == (1, "b", (), [], {})


def test_models_literals_and_constraints_are_understood():
    @flow(task_runner="sequential")
    def my_flow(order: Order, mode: Literal["fast", "slow"], share: Annotated[float, pydantic.Field(ge=0, le=1)]):
        return order, mode, share

    assert my_flow({"item": "pen", "count": "2"}, "fast", "0.5") == (Order(item="pen", count=2), "fast", 0.5)
    with pytest.raises(ParameterTypeError) as caught:
        my_flow({"count": "many"}, "other", 2)
    assert str(caught.value).splitlines() == [
        "Flow 'my-flow' was called with parameters that do not fit:",
        "  order.item: Field required (got dict)",
        "  order.count: Input should be a valid integer, unable to parse string as an integer (got dict)",
        "  mode: Input should be 'fast' or 'slow' (got str)",
        "  share: Input should be less than or equal to 1 (got int)",
    ]


def test_a_class_that_pydantic_does_not_know_is_checked_by_isinstance():
    @flow(task_runner="sequential")
    def my_flow(odd: Odd):
        return odd

    odd = Odd()
    assert my_flow(odd) is odd
    with pytest.raises(ParameterTypeError, match=r"\n  odd: Input should be an instance of Odd \(got str\)$"):
        my_flow("x")


def test_all_that_does_not_fit_is_in_one_error_and_no_value_is_shown():
    with pytest.raises(ParameterTypeError) as caught:
        typed("s3cret", 17, "s3cret", c="s3cret", d="s3cret")
    text = str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, RiverrunError)
    assert "s3cret" not in text
    assert "17" not in text
    assert text.splitlines() == [
        "Flow 'typed' was called with parameters that do not fit:",
        "  a: Input should be a valid integer, unable to parse string as an integer (got str)",
        "  b: Input should be a valid string (got int)",
        "  c: Input should be a valid list (got str)",
        "  rest.0: Input should be a valid integer, unable to parse string as an integer (got tuple)",
        "  more.d: Input should be a valid number, unable to parse string as a number (got dict)",
    ]


def test_wrong_values_are_in_no_log_record_and_not_in_the_traceback(caplog):
    with pytest.raises(ParameterTypeError) as caught:
        typed("s3cret")
    assert "s3cret" not in caplog.text
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None or "s3cret" not in str(error.__context__)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "'a' is missing. Its parameters: a, b, c."),
        ((1,), {"a": 1}, "'a' was given twice, by position and by name. Its parameters: a, b, c."),
    ],
)
def test_arguments_that_do_not_fit_the_signature_are_told(args, kwargs, text):
    with pytest.raises(ParameterTypeError) as caught:
        typed(*args, **kwargs)
    assert str(caught.value) == f"Flow 'typed' was called with arguments that do not fit: {text}"


def test_an_unknown_parameter_has_a_near_match():
    @flow
    def my_flow(number: int = 1):
        return number

    with pytest.raises(ParameterTypeError) as caught:
        my_flow(nubmer=5)
    assert str(caught.value) == (
        "Flow 'my-flow' was called with arguments that do not fit: 'nubmer' is not a parameter of it (did you mean "
        "'number'?). Its parameters: number."
    )
    with pytest.raises(ParameterTypeError, match="1 positional arguments were given, and it takes 0"):
        flow(lambda: None)(1)


def test_with_return_state_wrong_parameters_are_a_failed_state(task_runner):
    state = typed.with_options(task_runner=task_runner)("x", return_state=True)
    assert state.name == "Failed"
    assert state.message == (
        "Flow run encountered an exception: ParameterTypeError: Flow 'typed' was called with parameters that do not "
        "fit:\n  a: Input should be a valid integer, unable to parse string as an integer (got str)"
    )
    with pytest.raises(ParameterTypeError):
        state.result()


def test_validation_can_be_switched_off():
    unchecked = typed.with_options(validate_parameters=False)
    assert unchecked("x", 5, c=7) == ("x", 5, (), 7, {})


def test_defaults_are_taken_on_trust():
    @flow(task_runner="sequential")
    def my_flow(a: int = None):  # type: ignore[assignment]  # noqa: RUF013 - people write this
        return a

    assert my_flow() is None


def test_an_async_flow_validates_too(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow(a: int):
        return a

    async def main():
        assert await my_flow("5") == 5
        with pytest.raises(ParameterTypeError, match="a: Input should be a valid integer"):
            await my_flow("x")
        return (await my_flow("x", return_state=True)).name

    assert run_async(main) == "Failed"


def test_the_value_of_a_future_is_validated(task_runner):
    @task
    def text(value: str) -> str:
        return value

    @flow
    def inner(a: int):
        return a

    @flow(task_runner=task_runner)
    def outer():
        assert inner(text("5")) == 5
        with pytest.raises(ParameterTypeError, match="a: Input should be a valid integer"):
            inner(text("x"))
        return 1

    assert outer() == 1


def test_an_annotation_that_does_not_exist_fails_the_run_and_says_which():
    @flow(task_runner="sequential")
    def my_flow(a: Missing):  # noqa: F821 - what is tested
        return a

    with pytest.raises(NameError, match="Missing"):
        my_flow(object())
    assert my_flow.with_options(validate_parameters=False)(5) == 5


def test_any_takes_anything():
    @flow(task_runner="sequential")
    def my_flow(a: Any, b):
        return a, b

    value = object()
    assert my_flow(value, value) == (value, value)
