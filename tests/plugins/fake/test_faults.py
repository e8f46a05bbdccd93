import random

import pytest

import fsrep_fake
from fsrep_core.runtime.options import OptionsError, structure_options
from fsrep_fake import ACTIONS, OPERATIONS, FakeConfig, FakeTransport, Fault, SeededFaults
from fsrep_fake.faults import find_fault


def find(script, operation, filesystem, number=1):
    return find_fault(script, operation, filesystem, of_operation=number, of_filesystem=number)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_befalls_only_what_it_can(action):
    for operation in OPERATIONS:
        if operation in ACTIONS[action]:
            assert Fault(operation, action, at_byte=0).action == action
        else:
            with pytest.raises(ValueError, match=f"{action} cannot befall {operation}"):
                Fault(operation, action, at_byte=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"operation": "steal"},
        {"action": "explode"},
        {"occurrence": 0},
        {"at_byte": -1},
        {"seconds": -1.0},
        {"length_bytes": 0},
    ],
)
def test_a_fault_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Fault(**{"operation": "send", "action": "cut", **wrong})


@pytest.mark.parametrize("action", ["trickle", "corrupt"])
def test_what_happens_at_a_byte_needs_one(action):
    with pytest.raises(ValueError, match="needs at_byte"):
        Fault("send", action)


def test_the_first_fault_that_fits_is_met():
    script = (
        Fault("send", "cut", filesystem="a", occurrence=2),
        Fault("send", "refuse", occurrence=2),
        Fault("send", "stall", filesystem="b"),
    )

    assert find(script, "send", "a", 1) is None
    assert find(script, "send", "a", 2).action == "cut"
    assert find(script, "send", "c", 2).action == "refuse"
    assert find(script, "send", "b", 3).action == "stall"
    assert find(script, "receive", "b", 3) is None


def test_an_occurrence_counts_what_the_fault_selects():
    script = (
        Fault("send", "cut", occurrence=2),
        Fault("send", "cut", filesystem="a", occurrence=1),
    )

    assert find_fault(script, "send", "b", of_operation=2, of_filesystem=1) is script[0]
    assert find_fault(script, "send", "a", of_operation=3, of_filesystem=1) is script[1]
    assert find_fault(script, "send", "a", of_operation=4, of_filesystem=2) is None


@pytest.mark.parametrize(
    "value",
    [
        Fault("send", "cut"),
        Fault("receive", "trickle", filesystem="a/b", at_byte=0, seconds=0.5, local=False),
        SeededFaults(3),
        SeededFaults(3, rate=0.5, actions=("cut", "stall"), operations=("send",), call_limit=7),
        FakeTransport((Fault("send", "cut", occurrence=3),)),
        FakeTransport(SeededFaults(5), buffer_bytes=100),
    ],
)
def test_a_repr_is_python_that_makes_the_same(value):
    names = {each: getattr(fsrep_fake, each) for each in fsrep_fake.__all__}

    again = eval(repr(value), names)  # noqa: S307  (that it can be evaluated is the point)

    assert repr(again) == repr(value)
    assert getattr(again, "script", again) == getattr(value, "script", value)


def test_a_repr_leaves_out_what_goes_without_saying():
    assert repr(Fault("send", "cut", at_byte=7)) == "Fault('send', 'cut', at_byte=7)"
    assert repr(SeededFaults(3)) == "SeededFaults(3)"


def every_call(count=200):
    for operation in OPERATIONS:
        for number in range(1, count + 1):
            yield operation, f"fs{number % 7}", number


def test_a_seed_gives_the_same_faults_in_any_order_of_work():
    script = SeededFaults(11, rate=0.3)
    calls = list(every_call())
    met = {call: find(script, *call) for call in calls}
    random.Random(1).shuffle(calls)

    assert {
        call: find_fault(script, *call[:2], of_operation=1, of_filesystem=call[2]) for call in calls
    } == met
    assert {call: find(SeededFaults(12, rate=0.3), *call) for call in calls} != met


def test_seeded_faults_are_temporary_of_every_kind_and_about_as_many_as_wanted():
    script = SeededFaults(1, rate=0.2, actions=tuple(ACTIONS))
    met = [find(script, *call) for call in every_call(500)]
    faults = [fault for fault in met if fault]

    assert {fault.action for fault in faults} == set(ACTIONS)
    assert all(fault.temporary for fault in faults)
    assert 0.15 < len(faults) / len(met) < 0.25
    in_streams = [fault.at_byte for fault in faults if fault.operation == "send"]
    assert None in in_streams
    assert max(each for each in in_streams if each is not None) < script.byte_limit


def test_seeded_faults_keep_to_what_was_asked_for():
    assert not any(find(SeededFaults(1, rate=0), *call) for call in every_call())
    limited = SeededFaults(
        1, rate=1, actions=("cut",), operations=("receive", "inventory"), call_limit=3
    )

    met = [call for call in every_call() if find(limited, *call)]

    assert met == [("receive", "fs1", 1), ("receive", "fs2", 2), ("receive", "fs3", 3)]


def test_a_seed_without_more_leaves_corruption_out():
    assert "corrupt" not in SeededFaults(1).actions


def test_options_are_read_from_a_table():
    options = structure_options(
        FakeConfig,
        {
            "faults": [{"operation": "send", "action": "cut", "at_byte": 3, "occurrence": 1}],
            "buffer": "1 MiB",
        },
        "transport",
    )

    assert options.faults == (Fault("send", "cut", at_byte=3, occurrence=1),)
    assert options.buffer_bytes == 1 << 20
    made = fsrep_fake._create_fake(
        structure_options(FakeConfig, {"seed": 5, "fault_rate": 0.5}, "t")
    )
    assert made.script == SeededFaults(5, rate=0.5)


def test_options_that_cannot_be_are_refused():
    for wrong in (
        {"faults": [{"operation": "send", "action": "fail_after_commit"}]},
        {"faults": [{"operation": "send", "action": "cut"}], "seed": 1},
        {"fault_rate": 1.5},
    ):
        with pytest.raises(OptionsError):
            structure_options(FakeConfig, wrong, "transport")
