"""Futures inside the arguments of a call: where they are found, and what is never looked into."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections import namedtuple as make_namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import pydantic
import pytest
from riverrun import allow_failure, flow, quote, task, unmapped
from riverrun.states import Completed


@task
def one() -> int:
    return 1


@task
def give(value: Any) -> Any:
    return value


@task
def broken() -> None:
    raise ValueError("text")


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


@dataclass
class Checked:
    x: Any
    calls: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.calls.append("__post_init__")


class Pair(NamedTuple):
    left: Any
    right: Any = 2


class Model(pydantic.BaseModel):
    x: Any
    y: int = 0


class FrozenModel(pydantic.BaseModel, frozen=True, extra="allow"):
    x: Any


Plain = make_namedtuple("Plain", "a b")  # noqa: PYI024 - this kind, too


@pytest.fixture
def given(task_runner):
    """Give a function that says what a task is given for an argument made of a future of 1."""

    def given(build):
        @flow(task_runner=task_runner)
        def passing():
            return give(build(one())).result()

        return passing()

    return given


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda f: f, 1),
        (lambda f: [f, 2], [1, 2]),
        (lambda f: (f, 2), (1, 2)),
        (lambda f: {f, 2}, {1, 2}),
        (lambda f: frozenset([f, 2]), frozenset([1, 2])),
        (lambda f: {"a": f, "b": 2}, {"a": 1, "b": 2}),
        (lambda f: {f: "a"}, {1: "a"}),
        (lambda f: deque([f, 2], maxlen=5), deque([1, 2], maxlen=5)),
        (lambda f: [[({"a": [f]},)]], [[({"a": [1]},)]]),
        (lambda f: [f, f], [1, 1]),
        (Point, Point(1)),
        (lambda f: Point([f], {"deep": Point(f)}), Point([1], {"deep": Point(1)})),
        (Frozen, Frozen(1)),
        (Pair, Pair(1)),
        (lambda f: Plain(f, 2), Plain(1, 2)),
        (lambda f: Model(x=f, y=3), Model(x=1, y=3)),
        (lambda f: FrozenModel(x=0, more=[f]), FrozenModel(x=0, more=[1])),
        (lambda f: OrderedDict(a=f), OrderedDict(a=1)),
        (lambda f: Counter(a=f), Counter(a=1)),
        (lambda f: Completed(data=7), 7),
        (lambda f: [Completed(data=7), f], [7, 1]),
    ],
)
def test_a_future_is_found_and_its_value_takes_its_place(given, build, expected):
    result = given(build)
    assert result == expected
    assert type(result) is type(expected)


def test_a_defaultdict_keeps_its_factory(given):
    result = given(lambda f: defaultdict(list, a=f))
    assert (type(result), dict(result), result["new"]) == (defaultdict, {"a": 1}, [])


def test_a_deque_keeps_its_length(given):
    assert given(lambda f: deque([f], maxlen=3)).maxlen == 3


def test_a_dataclass_is_copied_without_running_its_code_again(given):
    assert given(Checked).calls == ["__post_init__"]


def test_a_container_of_a_class_of_the_users_keeps_its_class(given):
    class Basket(list):
        pass

    class Shelf(dict):
        pass

    assert [type(part) for part in given(lambda f: [Basket([f]), Shelf(a=f)])] == [Basket, Shelf]


def test_the_argument_itself_is_not_changed(task_runner):
    seen = {}

    @flow(task_runner=task_runner)
    def passing():
        future = one()
        values = [future, {"a": future}]
        point = Point(future)
        give((values, point)).wait()
        seen["same"] = values[0] is future and values[1]["a"] is future and point.x is future

    passing()
    assert seen == {"same": True}


@pytest.mark.parametrize(
    "value",
    [
        [1, [2]],
        (1, (2,)),
        {1, 2},
        {"a": [object()]},
        Point([1]),
        Frozen(1),
        Model(x=[1]),
        Pair(1),
        deque([1]),
        defaultdict(list, a=[1]),
        UserDict(a=1),
        MappingProxyType({"a": 1}),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_no_future_arrives_as_the_same_object(task_runner, value):
    @flow(task_runner=task_runner)
    def passing():
        return give(value).result() is value and give(one(), wait_for=[value]).result() == 1

    assert passing()


def test_beside_a_future_the_parts_without_one_are_the_same_objects(given):
    part = [object()]
    assert given(lambda f: [part, f])[0] is part


def test_futures_are_found_among_keyword_arguments_and_variable_ones(task_runner):
    @task
    def all_of_them(*args, **kwargs):
        return args, kwargs

    @flow(task_runner=task_runner)
    def passing():
        return all_of_them(one(), [one()], a=one(), b={"c": one()}).result()

    assert passing() == ((1, [1]), {"a": 1, "b": {"c": 1}})


def test_a_list_of_mapped_futures_is_given_as_a_list_of_values(given):
    assert given(lambda f: give.map([3, 4])) == [3, 4]
    assert given(lambda f: {"many": give.map([3, f])}) == {"many": [3, 1]}


class Untouchable:
    """Stands for an array or a data frame: large, and not to be walked, compared or asked for its truth."""

    shape = (1_000_000, 100)
    ndim = 2

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("somebody looked inside")

    __iter__ = __len__ = __getitem__ = __eq__ = __bool__ = __contains__ = __hash__ = __array__ = _refuse


class Table(Untouchable):
    def __dataframe__(self) -> None:
        self._refuse()


@pytest.mark.parametrize("kind", [Untouchable, Table])
def test_arrays_and_data_frames_are_never_looked_into(task_runner, kind):
    large = kind()

    @task
    def is_it(value, *more, **named):
        return value is large

    @flow(task_runner=task_runner)
    def passing():
        alone = is_it(large)
        among = is_it(large, one(), [large, one()], named={"a": large, "b": one()})
        field = give(Point(large, one()))
        after = is_it(large, wait_for=[among])
        repeated = is_it.map(unmapped(large), [1, 2])
        return [alone.result(), among.result(), field.result().x is large, after.result(), *repeated.result()]

    assert passing() == [True] * 6


def test_an_array_may_be_the_value_of_a_task_and_of_a_flow(task_runner):
    large = Untouchable()

    @task
    def load():
        return large

    @flow(task_runner=task_runner)
    def passing():
        return give(load()).result()

    assert passing() is large


def test_generators_and_strings_are_not_looked_into(task_runner):
    def numbers():
        raise AssertionError("somebody read it")
        yield

    generator = numbers()

    @flow(task_runner=task_runner)
    def passing():
        return give(generator).result() is generator and give("text").result() == "text"

    assert passing()


def test_a_container_that_holds_itself_is_passed_on(task_runner):
    @flow(task_runner=task_runner)
    def passing():
        ring: list[Any] = [1]
        ring.append(ring)
        table: dict[str, Any] = {}
        table["self"] = table
        return give(ring).result() is ring and give(table).result() is table

    assert passing()


def test_a_future_in_a_container_that_holds_itself_is_found(given):
    def build(future):
        ring: list[Any] = [future]
        ring.append(ring)
        return ring

    assert given(build)[0] == 1


@pytest.mark.parametrize("depth", [100, 5_000])
def test_a_deep_list_is_given_and_one_that_is_too_deep_is_an_error_and_no_hang(task_runner, depth):
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]

    @flow(task_runner=task_runner)
    def passing():
        return give([deep, one()]).result()[1]

    state = passing(return_state=True)
    if depth == 100:
        assert state.result() == 1
    else:
        assert isinstance(state.data, RecursionError)


@dataclass
class Unreadable:
    """Raises when its field is read."""

    x: Any = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise OSError("no disk")
        return super().__getattribute__(name)


def test_an_argument_that_raises_when_it_is_looked_into_is_an_error_and_never_a_hang(task_runner):
    value = Unreadable.__new__(Unreadable)

    @flow(task_runner=task_runner)
    def passing():
        give(value)

    state = passing(return_state=True)
    assert state.is_completed() or "no disk" in str(state.data)


def test_quote_passes_a_value_on_unseen(task_runner):
    @flow(task_runner=task_runner)
    def passing():
        future = one()
        inside = [future]
        return give(quote(inside)).result() is inside and give([quote(inside)]).result()[0] is inside

    assert passing()


def test_a_quoted_future_is_no_upstream(task_runner):
    @flow(task_runner=task_runner)
    def passing():
        failing = broken()
        arrived = give(quote(failing)).result()
        return arrived is failing

    assert passing()


def test_allow_failure_gives_the_exception(task_runner):
    @flow(task_runner=task_runner)
    def passing():
        return give(allow_failure(broken())).result()

    result = passing()
    assert (type(result), str(result)) == (ValueError, "text")


def test_allow_failure_gives_the_value_of_a_run_that_completed(given):
    assert given(allow_failure) == 1
    assert given(lambda f: [allow_failure(f)]) == [1]


def test_allow_failure_holds_for_everything_inside(task_runner):
    @flow(task_runner=task_runner)
    def passing():
        return give(allow_failure([broken(), {"a": one()}])).result()

    result = passing()
    assert isinstance(result[0], ValueError)
    assert result[1] == {"a": 1}


def test_unmapped_outside_of_a_map_is_taken_off(given):
    assert given(unmapped) == 1
    assert given(lambda f: unmapped(5)) == 5


def test_annotations_show_what_they_hold():
    kinds = (unmapped, allow_failure, quote)
    assert [repr(kind(5)) for kind in kinds] == ["unmapped(5)", "allow_failure(5)", "quote(5)"]


def test_a_value_that_cannot_take_the_place_of_a_future_fails_that_run(task_runner):
    @task
    def unhashable():
        return []

    @flow(task_runner=task_runner)
    def passing():
        states = [give({unhashable()}, return_state=True), give(one(), return_state=True)]
        return [repr(state) for state in states]

    first, second = passing()
    assert first.startswith('Failed(message="Task run encountered an exception: TypeError: ')
    assert "unhashable type: 'list'" in first  # Python 3.14 puts words around it
    assert second == "Completed(message=None, type=COMPLETED)"


def test_enum_members_and_classes_are_values_like_others(given):
    class Colour(enum.Enum):
        RED = (1,)

    assert given(lambda f: [Colour.RED, Point, Model, f]) == [Colour.RED, Point, Model, 1]


@pytest.mark.parametrize("view", [dict.values, dict.keys, dict.items], ids=["values", "keys", "items"])
def test_a_view_of_a_dict_is_looked_into_and_arrives_as_a_list(task_runner, view):
    @task
    def one():
        return 1

    @task
    def kind_and_length(values):
        return type(values) is list, len(values), "TaskFuture" in repr(values)

    @flow(task_runner=task_runner)
    def my_flow():
        first, second = one(), one()
        return kind_and_length(view({first: second})).result()

    assert my_flow() == (True, 1, False)
