from __future__ import annotations

import copy
import pickle

import pytest
from riverrun import CancelledError, CrashedRun, FailedRun, NotReadyError, UnfinishedRun, states
from riverrun.states import (
    AwaitingRetry,
    Cached,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    NotReady,
    Pending,
    Retrying,
    Running,
    State,
    StateType,
    TimedOut,
    aggregate,
)

CONSTRUCTORS = [
    (Pending, "PENDING", "Pending", False),
    (Running, "RUNNING", "Running", False),
    (Completed, "COMPLETED", "Completed", True),
    (Failed, "FAILED", "Failed", True),
    (Crashed, "CRASHED", "Crashed", True),
    (Cancelled, "CANCELLED", "Cancelled", True),
    (Cached, "COMPLETED", "Cached", True),
    (NotReady, "PENDING", "NotReady", True),
    (TimedOut, "FAILED", "TimedOut", True),
    (AwaitingRetry, "PENDING", "AwaitingRetry", False),
    (Retrying, "RUNNING", "Retrying", False),
]
constructors = pytest.mark.parametrize(
    ("make", "type_", "name", "final"),
    CONSTRUCTORS,
    ids=[name for *_, name, _ in CONSTRUCTORS],
)


@constructors
def test_each_constructor_makes_its_type_and_name(make, type_, name, final):
    state = make()
    assert (state.type, state.name, state.message, state.is_final()) == (type_, name, None, final)
    assert repr(state) == f"{name}(message=None, type={type_})"
    assert repr(make("what happened")) == f"{name}(message='what happened', type={type_})"
    assert repr(make(message="what happened")) == f"{name}(message='what happened', type={type_})"


@constructors
def test_a_state_survives_pickling_and_copying(make, type_, name, final):
    state = make("what happened", 5)
    for again in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):  # noqa: S301 - made in the line itself
        assert again == state
        assert again.data == 5
        assert again.is_final() is final


def test_there_are_six_types():
    assert list(StateType) == ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


def test_a_state_is_made_of_a_type_by_name_too():
    state = State("COMPLETED", "Finished", "all of it")
    assert repr(state) == "Finished(message='all of it', type=COMPLETED)"
    assert state.type is StateType.COMPLETED
    assert State(type="FAILED").name == "Failed"


def test_a_type_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'DONE' is not a valid StateType"):
        State("DONE")


@pytest.mark.parametrize(
    ("state", "true_of_it"),
    [
        (Pending(), ["is_pending"]),
        (Running(), ["is_running"]),
        (Completed(), ["is_completed", "is_final"]),
        (Cached(), ["is_completed", "is_final"]),
        (Failed(), ["is_failed", "is_final"]),
        (TimedOut(), ["is_failed", "is_final"]),
        (Crashed(), ["is_crashed", "is_final"]),
        (Cancelled(), ["is_cancelled", "is_final"]),
        (NotReady(), ["is_pending", "is_not_ready", "is_final"]),
        (AwaitingRetry(), ["is_pending"]),
        (Retrying(), ["is_running"]),
    ],
)
def test_questions_to_a_state_have_these_answers(state, true_of_it):
    questions = [name for name in dir(State) if name.startswith("is_")]
    assert [name for name in questions if getattr(state, name)()] == sorted(true_of_it)


def test_a_state_cannot_be_changed():
    state = Completed()
    text = "A State is immutable: cannot set 'message'. Make another one, such as Completed(message=...)."
    with pytest.raises(AttributeError) as caught:
        state.message = "other"
    assert str(caught.value) == text
    with pytest.raises(AttributeError, match="A State is immutable: cannot set 'other'"):
        state.other = 1
    with pytest.raises(AttributeError) as caught:
        del state.name
    assert str(caught.value) == "A State is immutable: cannot delete 'name'."
    assert state == Completed()


def test_states_are_equal_when_type_name_and_message_are():
    assert Completed("one") == Completed("one", data=1)
    assert hash(Completed("one")) == hash(Completed("one", data=1))
    assert Completed("one") != Completed("two")
    assert Completed() != Cached()
    assert Completed() != "Completed"


def test_a_state_can_be_matched():
    match Failed("no disk"):
        case State(StateType.FAILED, name, message):
            assert (name, message) == ("Failed", "no disk")
        case _:
            pytest.fail("the pattern did not match")


def test_the_result_of_a_completed_state_is_its_value():
    assert Completed(data=5).result() == 5
    assert Completed().result() is None
    assert Completed(data=5).result(raise_on_failure=False) == 5


def test_the_result_of_a_state_that_holds_an_exception_raises_that_exception():
    error = ValueError("text")
    for make in (Failed, Crashed, Cancelled, TimedOut):
        with pytest.raises(ValueError, match="^text$") as caught:
            make("message", error).result()
        assert caught.value is error
        assert make("message", error).result(raise_on_failure=False) is error


@pytest.mark.parametrize(("make", "kind"), [(Failed, FailedRun), (Crashed, CrashedRun), (Cancelled, CancelledError)])
def test_the_result_of_a_state_without_an_exception_raises_one_for_its_type(make, kind):
    with pytest.raises(kind) as caught:
        make("what happened").result()
    assert str(caught.value) == "what happened"
    assert type(caught.value) is kind
    with pytest.raises(kind) as caught:
        make().result()
    assert str(caught.value) == f"The run ended in state {make()!r}."
    returned = make("what happened").result(raise_on_failure=False)
    assert (type(returned), str(returned)) == (kind, "what happened")


def test_the_result_of_not_ready_has_the_root_failure_as_its_cause():
    root = ValueError("text")
    with pytest.raises(NotReadyError, match="^an upstream did not complete$") as caught:
        NotReady("an upstream did not complete", root).result()
    assert caught.value.__cause__ is root


@pytest.mark.parametrize("make", [Pending, Running, AwaitingRetry, Retrying])
@pytest.mark.parametrize("raise_on_failure", [True, False])
def test_a_state_that_is_not_final_has_no_result(make, raise_on_failure):
    with pytest.raises(UnfinishedRun) as caught:
        make().result(raise_on_failure=raise_on_failure)
    expected = f"The run has no result yet: its state is {make()!r}. Wait for it with `future.wait()`."
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ([], "Completed(message='All states completed.', type=COMPLETED)"),
        ([Completed()], "Completed(message='All states completed.', type=COMPLETED)"),
        ([Completed(), Cached()], "Completed(message='All states completed.', type=COMPLETED)"),
        ([Failed(), Completed(), TimedOut()], "Failed(message='2/3 states failed.', type=FAILED)"),
        ([Crashed(), Completed()], "Failed(message='1/2 states failed.', type=FAILED)"),
        ([Cancelled(), Completed(), Completed()], "Cancelled(message='1/3 states cancelled.', type=CANCELLED)"),
        ([Cancelled(), Failed(), Running()], "Failed(message='1/3 states failed.', type=FAILED)"),
        ([Cancelled(), Running(), Completed()], "Cancelled(message='1/3 states cancelled.', type=CANCELLED)"),
        ([Failed(), NotReady()], "Failed(message='1/2 states failed.', type=FAILED)"),
        ([Running(), Pending(), Completed()], "Failed(message='2/3 states are not final.', type=FAILED)"),
    ],
)
def test_many_states_make_one(many, one):
    assert repr(aggregate(many)) == one
    assert repr(aggregate(iter(many))) == one


def test_every_public_constructor_is_listed():
    assert {make.__name__ for make, *_ in CONSTRUCTORS} <= set(states.__all__)
