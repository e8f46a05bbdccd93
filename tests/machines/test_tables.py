"""The tables are the machines: each is complete, and nothing but the table can happen."""

import enum
import itertools
from typing import get_args

import pytest

from fsrep_core.machines import replication, run, step
from fsrep_core.machines.replication import ReplicationState
from fsrep_core.machines.run import RunState
from fsrep_core.machines.step import StepState
from fsrep_core.table import IllegalTransitionError, advance, is_terminal
from fsrep_core.values import Problem

PROBLEM = Problem(message="no", temporary=True, local=True)
MACHINES = {
    "step": (
        step.TRANSITIONS,
        StepState,
        get_args(step.StepEvent),
        StepState.REPLICATION_READY,
        {StepState.COMPLETED},
    ),
    "replication": (
        replication.TRANSITIONS,
        ReplicationState,
        (replication.StepCompleted, replication.LastStepCompleted, step.StepFailed),
        ReplicationState.READY,
        {ReplicationState.COMPLETED},
    ),
    "run": (
        run.TRANSITIONS,
        RunState,
        get_args(run.RunEvent),
        RunState.PLANNING,
        {RunState.COMPLETED, RunState.PERMANENT_ERROR},
    ),
}
each_machine = pytest.mark.parametrize("name", MACHINES)


def event_of(kind):
    """One event of a class; the fields do not matter to a table."""
    values = {"problem": PROBLEM, "sleep_until": 1.0}
    return kind(*(values[field.name] for field in kind.__attrs_attrs__))


def reachable(table, state):
    found, todo = {state}, [state]
    while todo:
        following = set(table[todo.pop()].values()) - found
        found |= following
        todo.extend(following)
    return found


@each_machine
def test_every_state_has_a_row_and_every_row_leads_to_a_state(name):
    table, states, *_ = MACHINES[name]

    assert list(table) == list(states)
    assert {after for row in table.values() for after in row.values()} <= set(states)


@each_machine
def test_every_event_is_taken_somewhere_and_no_other_is(name):
    table, _, events, *_ = MACHINES[name]

    assert {event for row in table.values() for event in row} == set(events)


@each_machine
def test_every_state_can_be_reached_and_leads_to_an_end(name):
    table, states, _, initial, terminal = MACHINES[name]

    assert reachable(table, initial) == set(states)
    assert all(reachable(table, state) & terminal for state in states)


@each_machine
def test_terminal_states_are_visible_empty_rows(name):
    table, states, _, _, terminal = MACHINES[name]

    assert {state for state in states if table[state] == {}} == terminal
    assert {state for state in states if is_terminal(table, state)} == terminal


@each_machine
def test_what_is_not_in_the_table_is_loud(name):
    table, states, events, *_ = MACHINES[name]

    for state, event in itertools.product(states, events):
        if event in table[state]:
            assert advance(table, state, event_of(event)) is table[state][event]
        else:
            words = f"{states.__name__}.{state.name} cannot take {event.__name__}"
            with pytest.raises(IllegalTransitionError, match=words):
                advance(table, state, event_of(event))


def test_values_of_states_are_the_words_of_reports():
    words = [state.value for _, states, *_ in MACHINES.values() for state in states]

    assert all(word == word.lower() and "_" not in word for word in words)


def test_event_is_looked_up_by_its_exact_class():
    class Light(enum.Enum):
        ON = "on"

    class Press:
        pass

    class LongPress(Press):
        pass

    with pytest.raises(IllegalTransitionError):
        advance({Light.ON: {Press: Light.ON}}, Light.ON, LongPress())
