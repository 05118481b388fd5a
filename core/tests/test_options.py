from __future__ import annotations

import copy
import doctest
import pickle
import subprocess
import sys
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
import pytest
import riverrun.abc
from riverrun.abc import Concurrency, TaskRunner
from riverrun.exceptions import TaskRunnerError, TaskRunnerOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from absent import Cluster


class Base(TaskRunner):
    concurrency = Concurrency.CONCURRENT

    def start(self):
        raise NotImplementedError


class Pool(Base):
    kind: ClassVar[str] = "pool"
    max_workers: int | None = None
    timeout: float = 30.0


class Cloud(Pool):
    address: str | None = None
    cluster_kwargs: dict[str, Any] | None = None
    tags: list[str] = []  # noqa: RUF012
    ship: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written(Base):
    threads: int = 4
    names: dict[str, int] = field(default_factory=dict)


class Needy(Base):
    address: str


def message_of(make: Callable[[], object]) -> str:
    with pytest.raises(TaskRunnerOptionError) as caught:
        make()
    return str(caught.value)


def test_options_are_given_by_name_by_position_or_not_at_all():
    assert (Pool().max_workers, Pool().timeout) == (None, 30.0)
    assert (Pool(4).max_workers, Pool(4, 1.5).timeout) == (4, 1.5)
    assert Cloud(1, 2.0, "here", tags=["x"]).tags == ["x"]


def test_options_of_base_classes_come_first():
    assert repr(Cloud(1, 2.0, "tcp://a", {"n": 1})) == (
        "Cloud(max_workers=1, timeout=2.0, address='tcp://a', cluster_kwargs={'n': 1})"
    )


def test_a_class_variable_is_no_option():
    assert message_of(lambda: Pool(kind="x")) == "`Pool` has no option `kind`. Its options: max_workers, timeout."


def test_a_constant_of_the_contract_stays_one_where_class_var_was_forgotten():
    class Forgetful(Base):
        concurrency: Concurrency = Concurrency.PARALLEL

    assert repr(Forgetful()) == "Forgetful()"
    assert Forgetful.concurrency is Concurrency.PARALLEL


def test_a_subclass_may_change_a_default_without_an_annotation():
    class Small(Pool):
        max_workers = 1

    assert Small().max_workers == 1
    assert repr(Small()) == "Small()"
    assert repr(Small(max_workers=2)) == "Small(max_workers=2)"


def test_annotations_that_are_no_strings_serve_as_well():
    plain: Any = type(
        "Plain", (Base,), {"__annotations__": {"workers": int | None, "names": list[str]}, "workers": None, "names": []}
    )
    assert plain(workers="4", names=("a",)).workers == 4
    assert message_of(lambda: plain(workers="x")) == (
        "`Plain` takes `int | None` as its option `workers`, not 'x' (str)."
    )
    assert message_of(lambda: plain(names=1)) == "`Plain` takes `list[str]` as its option `names`, not 1 (int)."


def test_an_annotation_in_quotes_means_what_it_says():
    class Quoted(Base):
        workers: "int | None" = None  # noqa: UP037
        cluster: "Cluster" | None = None  # noqa: UP037

    assert Quoted(workers="4", cluster=1).workers == 4
    assert message_of(lambda: Quoted(workers="x")) == (
        "`Quoted` takes `int | None` as its option `workers`, not 'x' (str)."
    )


def test_an_unknown_option_is_refused_with_the_near_match_and_those_that_exist():
    assert message_of(lambda: Pool(max_worker=4)) == (
        "`Pool` has no option `max_worker`; did you mean `max_workers`? Its options: max_workers, timeout."
    )
    assert message_of(lambda: Base(x=1)) == "`Base` has no option `x`. It has no options."
    assert message_of(lambda: Pool().with_options(x=1)) == (
        "`Pool` has no option `x`. Its options: max_workers, timeout."
    )


def test_too_many_options_by_position_are_refused():
    assert message_of(lambda: Pool(1, 2.0, 3)) == "`Pool` takes at most 2 options, 3 were given by position."


def test_an_option_given_twice_is_refused():
    assert message_of(lambda: Pool(1, max_workers=2)) == (
        "`Pool` got the option `max_workers` twice, by position and by name."
    )


def test_an_option_without_a_default_has_to_be_given():
    assert message_of(Needy) == "`Needy` needs the option `address` (str)."
    assert repr(Needy("tcp://a")) == "Needy(address='tcp://a')"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Pool(max_workers="many"),
            "`Pool` takes `int | None` as its option `max_workers`, not 'many' (str).",
        ),
        (lambda: Pool(timeout=None), "`Pool` takes `float` as its option `timeout`, not None (NoneType)."),
        (
            lambda: Cloud(cluster_kwargs=[1]),
            "`Cloud` takes `dict[str, Any] | None` as its option `cluster_kwargs`, not [1] (list).",
        ),
        (
            lambda: Cloud(tags=["a", 2]),
            (
                "`Cloud` takes `list[str]` as its option `tags`, not ['a', 2] (list): "
                "at [1]: Input should be a valid string."
            ),
        ),
        (
            lambda: Cloud(tags="x" * 100),
            f"`Cloud` takes `list[str]` as its option `tags`, not '{'x' * 76}... (str).",
        ),
        (
            lambda: Written(threads="x"),
            "`Written` takes `int` as its option `threads`, not 'x' (str).",
        ),
        (
            lambda: Pool().with_options(max_workers="x"),
            "`Pool` takes `int | None` as its option `max_workers`, not 'x' (str).",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_runner_option_value_and_type(
    make: Callable[[], object], message: str
):
    assert message_of(make) == message


def test_an_option_error_is_a_type_error():
    with pytest.raises(TypeError):
        Pool(nonsense=1)


def test_values_are_coerced_as_pydantic_does():
    cloud = Cloud(max_workers="4", timeout=2, tags=("a",), ship=["m"])
    assert (cloud.max_workers, cloud.timeout, cloud.tags, cloud.ship) == (4, 2.0, ["a"], ("m",))
    assert type(cloud.timeout) is float


def test_a_class_imported_for_type_checkers_only_is_taken_as_any():
    class Typed(Base):
        cluster: Cluster | None = None
        clusters: dict[str, Cluster] | None = None
        hook: absent.Hook | None = None  # noqa: F821

    assert Typed(cluster=3, hook=4).cluster == 3
    assert message_of(lambda: Typed(clusters=3)) == (
        "`Typed` takes `dict[str, Cluster] | None` as its option `clusters`, not 3 (int)."
    )


class Security:
    pass


class Model(pydantic.BaseModel):
    size: int


class Rich(Base):
    security: Security | None = None
    model: Model = Model(size=1)
    anything: Any = None
    strange: 3 = None


def test_any_class_may_be_an_option():
    security = Security()
    assert Rich(security=security).security is security
    assert "takes `Security | None` as its option `security`" in message_of(lambda: Rich(security=1))


def test_a_pydantic_model_may_be_an_option():
    assert Rich(model={"size": "2"}).model == Model(size=2)


def test_an_annotation_without_meaning_leaves_its_option_unchecked():
    assert Rich(strange="x", anything=[1]).strange == "x"


def test_later_changes_by_the_caller_do_not_show():
    inner = {"threads": 1}
    given = {"inner": inner, "many": [inner]}
    cloud = Cloud(cluster_kwargs=given)
    inner["threads"] = 2
    given["more"] = 3
    assert cloud.cluster_kwargs == {"inner": {"threads": 1}, "many": [{"threads": 1}]}


def test_a_mutable_default_is_not_shared():
    one, other = Cloud(), Cloud()
    one.tags.append("x")
    assert other.tags == []
    assert Cloud().tags == []


def test_a_runner_cannot_be_changed():
    pool = Pool(max_workers=4)
    with pytest.raises(AttributeError) as caught:
        pool.max_workers = 8
    assert str(caught.value) == (
        "`Pool` is immutable, `max_workers` cannot be set; make another one: `runner.with_options(max_workers=8)`."
    )
    with pytest.raises(AttributeError, match=r"^`Pool` is immutable, `other` cannot be set\.$"):
        pool.other = 8
    with pytest.raises(AttributeError, match=r"^`Pool` is immutable, `timeout` cannot be deleted\.$"):
        del pool.timeout


def test_with_options_gives_another_one_that_differs():
    pool = Pool(max_workers=4)
    assert repr(pool.with_options(timeout=1)) == "Pool(max_workers=4, timeout=1.0)"
    assert repr(pool) == "Pool(max_workers=4)"
    if sys.version_info >= (3, 13):
        assert copy.replace(pool, max_workers=5) == Pool(5)


def test_runners_are_compared_by_class_and_value():
    assert Pool(4) == Pool(max_workers=4)
    assert Pool(4) != Pool(5)
    assert Pool(4) != Cloud(4)
    assert Pool(4) != 4
    assert Pool().with_options() == Pool()


def test_equal_runners_have_equal_hashes_also_with_options_that_cannot_be_hashed():
    assert hash(Pool(4)) == hash(Pool(4))
    assert hash(Pool(4)) != hash(Pool(5))
    cloud = Cloud(cluster_kwargs={"n": 1})
    assert {cloud: "found"}[Cloud(cluster_kwargs={"n": 1})] == "found"
    assert len({cloud, Cloud(cluster_kwargs={"n": 2})}) == 2
    assert hash(Rich(anything={1})) == hash(Rich(anything=frozenset({1})))


def test_values_that_cannot_be_compared_are_equal_to_themselves_only():
    class Array:
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

    array = Array()
    assert Rich(anything=array) == Rich(anything=array)
    assert Rich(anything=array) != Rich(anything=Array())
    assert "anything=" in repr(Rich(anything=array))


def test_repr_shows_only_what_differs_from_the_defaults():
    assert repr(Cloud()) == "Cloud()"
    assert repr(Cloud(ship=["m"], timeout=30)) == "Cloud(ship=('m',))"


@pytest.mark.parametrize(
    "runner", [Pool(4), Cloud(cluster_kwargs={"n": 1}), Written(8, {"a": 1}), Needy("a")], ids=repr
)
def test_a_runner_can_be_pickled_and_copied(runner: TaskRunner):
    assert pickle.loads(pickle.dumps(runner)) == runner  # noqa: S301
    assert copy.copy(runner) == runner
    assert copy.deepcopy(runner) == runner
    with pytest.raises(AttributeError):
        copy.copy(runner).threads = 1


def test_a_frozen_dataclass_serves_as_well():
    written = Written(threads="8", names={"a": "1"})
    assert (written.threads, written.names) == (8, {"a": 1})
    assert repr(written) == "Written(threads=8, names={'a': 1})"
    assert repr(Written()) == "Written()"
    assert hash(written) == hash(Written(8, {"a": 1}))
    assert written.with_options(threads=4) == Written(names={"a": 1})
    with pytest.raises(AttributeError):
        written.threads = 1


def test_a_frozen_dataclass_with_slots_and_keywords_serves_as_well():
    @dataclass(frozen=True, slots=True)
    class Slotted(Base):
        threads: int = 4
        _: KW_ONLY
        name: str = "x"

    slotted = Slotted(8, name="y")
    assert repr(slotted) == "Slotted(threads=8, name='y')"
    assert slotted.with_options(name="x") == Slotted(8)


def test_a_subclass_of_a_dataclass_may_do_without_the_decorator():
    class More(Written):
        extra: str = "e"

    assert repr(More(2, extra="f")) == "More(threads=2, extra='f')"
    assert More().names == {}
    assert repr(More()) == "More()"


def test_a_dataclass_that_is_not_frozen_is_told_so():
    @dataclass
    class Loose(Base):
        threads: int = 4

    with pytest.raises(AttributeError) as caught:
        Loose()
    assert str(caught.value) == "`Loose` must be immutable: write `@dataclass(frozen=True)` above it."


def test_a_class_may_have_its_own_init_eq_and_repr():
    class Own(Pool):
        def __init__(self, size: int) -> None:
            super().__init__(max_workers=size * 2)

        def __repr__(self) -> str:
            return "own"

    class Lower(Own):
        pass

    assert Lower(2).max_workers == 4
    assert Lower(2).with_options(timeout=1).max_workers == 4
    assert repr(Lower(2)) == "own"


def test_validate_may_check_options_together():
    class Careful(Cloud):
        def validate(self) -> None:
            if self.address and self.cluster_kwargs:
                raise TaskRunnerOptionError("either an address or a cluster")

    careful = Careful(address="a")
    assert message_of(lambda: Careful(address="a", cluster_kwargs={"n": 1})) == "either an address or a cluster"
    assert message_of(lambda: careful.with_options(cluster_kwargs={"n": 1})) == "either an address or a cluster"


@pytest.mark.parametrize("name", ["start", "with_options", "validate"])
def test_an_option_cannot_have_the_name_of_a_method(name: str):
    runner = type("Bad", (Base,), {"__annotations__": {name: "int"}, name: 1})
    with pytest.raises(TaskRunnerError) as caught:
        runner()
    assert str(caught.value) == f"`Bad` cannot have an option `{name}`: it is the name of a method."


def test_a_class_without_concurrency_is_refused_when_it_is_used():
    class Silent(TaskRunner):
        def start(self):
            raise NotImplementedError

    with pytest.raises(TaskRunnerError) as caught:
        Silent()
    assert str(caught.value) == (
        "A task runner class sets `concurrency` to one of Concurrency.SEQUENTIAL, Concurrency.CONCURRENT, "
        "Concurrency.PARALLEL; `Silent` lacks it."
    )


def test_a_concurrency_that_is_none_is_refused_where_the_class_is_defined():
    with pytest.raises(TaskRunnerError) as caught:

        class Wrong(TaskRunner):
            concurrency = "parallel"

    assert str(caught.value) == (
        "A task runner class sets `concurrency` to one of Concurrency.SEQUENTIAL, Concurrency.CONCURRENT, "
        "Concurrency.PARALLEL; `Wrong.concurrency` is 'parallel'."
    )


def test_an_abstract_class_needs_no_concurrency():
    class Abstract(TaskRunner):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Abstract()


def test_the_example_in_the_contract_runs():
    assert doctest.testmod(riverrun.abc).failed == 0


def test_runners_with_plain_options_import_nothing_heavy():
    script = """
import logging, sys  # from Python 3.14 on, logging imports dataclasses
before = {*sys.modules}
from riverrun.abc import Concurrency, TaskRunner

class Pool(TaskRunner):
    concurrency = Concurrency.CONCURRENT
    max_workers: "int | None" = None
    def start(self): ...

Pool(), Pool(max_workers=4), hash(Pool()), repr(Pool(2).with_options(max_workers=None))
print(*{*sys.modules} - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"pydantic", "inspect", "dataclasses", "pluggy", "importlib_metadata", "anyio", "difflib"}
    assert not heavy & set(done.stdout.split())
