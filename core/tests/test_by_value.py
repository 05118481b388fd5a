"""What travels with its code: tasks of scripts, notebooks and closures."""

from __future__ import annotations

import traceback
from types import FunctionType

import cloudpickle
import pytest
from riverrun._by_value import dumps


def make():
    def outer(number):
        def inner():
            return number / 0

        return inner

    return outer


def test_code_keeps_the_name_of_its_file_and_so_do_the_functions_inside():
    outer = make()
    again = cloudpickle.loads(dumps(outer))
    assert again is not outer
    with pytest.raises(ZeroDivisionError) as error:
        again(1)()
    (frame,) = [frame for frame in traceback.extract_tb(error.tb) if frame.name == "inner"]
    assert (frame.filename, frame.line) == (__file__, "return number / 0")
    assert again.__code__.co_filename == __file__


def test_code_without_a_file_keeps_its_name_too():
    cell = FunctionType(compile("1", "<cell 3>", "eval"), {}, "cell")
    again = cloudpickle.loads(dumps(cell))
    assert (again(), again.__code__.co_filename) == (1, "<cell 3>")


def test_what_can_be_found_by_name_is():
    assert cloudpickle.loads(dumps(make)) is make
