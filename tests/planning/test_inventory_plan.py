"""The plan of a job: which filesystems, in which order, and what ties them together."""

import attrs
import pytest

from fsrep_core.errors import InvalidRequestError
from fsrep_core.planning import ConflictKind, Initial, Policy, make_plan
from fsrep_core.values import (
    Capabilities,
    Filesystem,
    Inventory,
    Problem,
    ResumeToken,
    Version,
    VersionKind,
)

NESTING = Capabilities(stream_formats=frozenset({"x"}), nests=True)
FLAT = attrs.evolve(NESTING, nests=False)


def versions(text):
    return tuple(
        Version(VersionKind.SNAPSHOT, name, name, order) for order, name in enumerate(text.split())
    )


def filesystem(name, text="a", **more):
    return Filesystem(name=name, versions=versions(text), **more)


def plan(sender, receiver=(), *, patterns=("**",), capabilities=NESTING, refused=(), **policy):
    sender = [filesystem(each) if isinstance(each, str) else each for each in sender]
    receiver = [filesystem(each) if isinstance(each, str) else each for each in receiver]
    return make_plan(
        Inventory(capabilities=NESTING, filesystems=tuple(sender)),
        Inventory(capabilities=capabilities, filesystems=tuple(receiver)),
        patterns=patterns,
        policy=Policy(**policy),
        refused_tokens=dict(refused),
    )


def waits(made):
    """Give the parent that each filesystem waits for."""
    awaited = {each.filesystem: each.waits_for for each in made.filesystems}
    return {name: each[0].filesystem if each else None for name, each in awaited.items()}


def test_filesystems_stand_sorted_by_name():
    made = plan(["b", "a/c", "a"])

    assert [each.filesystem for each in made.filesystems] == ["a", "a/c", "b"]


def test_only_what_the_patterns_select_is_planned():
    made = plan(["docs", "photos", "photos/cache"], patterns=["photos/**", "!photos/cache"])

    assert [each.filesystem for each in made.filesystems] == ["photos"]


def test_receivers_other_filesystems_are_none_of_our_business():
    made = plan(["a"], ["a", "z"])

    assert [each.filesystem for each in made.filesystems] == ["a"]


def test_a_token_is_refused_by_its_filesystem_and_its_value():
    sender = [filesystem(name, "a b") for name in "xyz"]
    receiver = [
        filesystem(name, "a", resume_token=ResumeToken(value, to_guid="b", from_guid="a"))
        for name, value in [("x", "old"), ("y", "old"), ("z", "new")]
    ]

    made = plan(sender, receiver, refused=[(("x", "old"), "why"), (("z", "old"), "why")])

    cleared = [each.steps[0].clear_resume_token for each in made.filesystems]
    assert cleared == [True, False, False]


def test_bad_pattern_is_refused():
    with pytest.raises(InvalidRequestError):
        plan(["a"], patterns=["a/"])


def test_conflict_of_one_filesystem_touches_no_other():
    made = plan(
        [filesystem("empty", ""), "good", filesystem("other", "a b")],
        [filesystem("other", "a z")],
    )

    kinds = [each.conflict and each.conflict.kind for each in made.filesystems]
    assert kinds == [ConflictKind.NOTHING_TO_SEND, None, ConflictKind.DIVERGED]
    assert len(made.filesystems[1].steps) == 1


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_what_a_side_cannot_read_is_a_conflict_of_that_filesystem_alone(side):
    problem = Problem(message="x is damaged", temporary=False, local=True, hint="mend x")
    broken = [filesystem("a", problem=problem), "b", filesystem("c", "")]
    good = ["a", "c"]
    made = plan(broken, good) if side == "sender" else plan([*good, "b"], broken)

    a, b, _ = made.filesystems
    assert a.conflict.kind is ConflictKind.UNREADABLE
    assert a.conflict.message == f"the {side} cannot say what it has: x is damaged"
    assert (a.conflict.hint, a.steps) == ("mend x", ())
    assert b.conflict is None
    assert not made.empty


def test_a_problem_without_a_hint_gets_one():
    problem = Problem(message="x", temporary=True, local=True)

    [a] = plan([filesystem("a", problem=problem)]).filesystems

    assert "on the sender" in a.conflict.hint


class TestPlaceholdersOfTheSender:
    def test_have_nothing_to_replicate(self):
        made = plan([filesystem("a", "", placeholder=True), "a/b"])

        assert waits(made) == {"a/b": None}
        assert made.warnings == ()

    def test_are_planned_once_they_have_versions(self):
        made = plan([filesystem("a", "x", placeholder=True), "a/b"])

        assert waits(made) == {"a": None, "a/b": "a"}


def test_each_side_answers_for_its_own_capabilities():
    made = make_plan(
        Inventory(
            capabilities=attrs.evolve(FLAT, bookmarks=True),
            filesystems=(
                Filesystem(
                    name="f",
                    versions=(
                        Version(VersionKind.BOOKMARK, "a", "a", 0),
                        Version(VersionKind.SNAPSHOT, "b", "b", 1),
                    ),
                ),
            ),
        ),
        Inventory(capabilities=FLAT, filesystems=(filesystem("f", "a"),)),
        patterns=["**"],
        policy=Policy(),
    )

    assert made.filesystems[0].steps[0].from_version.relative_name == "#a"


class TestEmpty:
    def test_plan_with_nothing_to_do_is_empty(self):
        [cursor] = versions("a")

        assert plan([filesystem("f", "a", cursor=cursor)], ["f"]).empty

    def test_plan_with_only_a_mark_is_not_empty(self):
        assert not plan(["f"], ["f"]).empty

    def test_plan_with_a_step_is_not_empty(self):
        assert not plan(["f"]).empty

    def test_plan_with_a_conflict_is_not_empty(self):
        assert not plan([filesystem("f", "")]).empty


class TestWarnings:
    def test_usual_plan_has_none(self):
        assert plan(["a", "b"], patterns=["**", "!b"]).warnings == ()

    def test_pattern_that_matches_nothing_is_named(self):
        made = plan(["docs"], patterns=["docs", "dosc/**"])

        assert made.warnings == ("the pattern 'dosc/**' matches no filesystem of the sender",)

    def test_name_that_the_sender_lacks_is_a_conflict_of_its_own(self):
        made = plan(["docs"], patterns=["docs", "dosc", "gone", "!gone"])

        assert [each.filesystem for each in made.filesystems] == ["docs", "dosc"]
        assert made.filesystems[1].conflict.kind is ConflictKind.NO_SUCH_FILESYSTEM
        assert made.warnings == (
            "the pattern 'gone' matches no filesystem of the sender",
            "the pattern '!gone' takes nothing away",
        )

    def test_sender_without_the_one_that_is_named_is_not_up_to_date(self):
        made = plan([], patterns=["docs"])

        assert not made.empty
        assert made.warnings == ()

    def test_exclude_that_takes_nothing_away_is_named(self):
        made = plan(["docs"], patterns=["docs", "!docs/cache"])

        assert made.warnings == ("the pattern '!docs/cache' takes nothing away",)

    def test_sender_without_filesystems_is_a_warning(self):
        made = plan([])

        assert made.empty
        assert made.warnings[-1] == "no filesystem is selected: the sender has none"

    def test_sender_that_has_lost_all_that_the_receiver_has_is_not_up_to_date(self):
        """A disk that is not mounted, and a job of wildcards."""
        receiver = ["a", "a/b", "other", filesystem("a/empty", "")]
        made = plan([], receiver, patterns=["a/**"])

        assert [each.filesystem for each in made.filesystems] == ["a", "a/b"]
        assert {each.conflict.kind for each in made.filesystems} == {
            ConflictKind.NO_SUCH_FILESYSTEM
        }

    def test_what_only_the_receiver_has_is_left_in_peace_while_the_sender_has_something(self):
        made = plan(["a"], ["a", "gone"])

        assert [each.filesystem for each in made.filesystems] == ["a"]

    def test_selection_of_nothing_is_a_warning(self):
        made = plan(["a", "b"], patterns=["**", "!**"])

        assert made.empty
        assert made.warnings == (
            "no filesystem is selected: the patterns leave nothing of the 2 that the sender has",
        )


class TestParents:
    def test_child_waits_for_the_parent_that_is_to_be_created(self):
        made = plan(["a", "a/b", "a/b/c"])

        assert waits(made) == {"a": None, "a/b": "a", "a/b/c": "a/b"}
        assert "waits until a exists on the receiver" in made.filesystems[1].reasons[-1]

    def test_nearest_ancestor_in_the_plan_is_waited_for(self):
        made = plan(["a", "a/b/c"])

        assert waits(made) == {"a": None, "a/b/c": "a"}

    def test_components_are_compared_and_not_prefixes(self):
        made = plan(["a", "aa", "a.b", "a/b"])

        assert waits(made) == {"a": None, "a.b": None, "aa": None, "a/b": "a"}

    def test_parent_that_exists_is_not_waited_for(self):
        made = plan([filesystem("a", "a b"), "a/b"], ["a"])

        assert waits(made) == {"a": None, "a/b": None}

    def test_existing_filesystem_waits_for_nobody(self):
        made = plan(["a", filesystem("a/b", "a b")], ["a/b"])

        assert waits(made) == {"a": None, "a/b": None}

    def test_placeholder_exists(self):
        made = plan(["a", "a/b"], [filesystem("a", "", placeholder=True)])

        assert waits(made) == {"a": None, "a/b": None}
        assert len(made.filesystems[0].steps) == 1

    def test_placeholder_with_a_partial_receive_exists(self):
        token = ResumeToken("t", to_guid="a")
        parent = filesystem("a", "", placeholder=True, resume_token=token)

        assert waits(plan(["a", "a/b"], [parent])) == {"a": None, "a/b": None}

    def test_partial_first_receive_is_not_yet_a_parent(self):
        token = ResumeToken("t", to_guid="a")

        made = plan(["a", "a/b"], [filesystem("a", "", resume_token=token)])

        assert waits(made) == {"a": None, "a/b": "a"}

    def test_parent_with_a_partial_of_a_later_step_exists(self):
        token = ResumeToken("t", to_guid="b", from_guid="a")

        made = plan([filesystem("a", "a b"), "a/b"], [filesystem("a", "a", resume_token=token)])

        assert waits(made) == {"a": None, "a/b": None}

    def test_parent_outside_the_plan_is_not_waited_for(self):
        made = plan(["a", "a/b"], patterns=["a/*"])

        assert waits(made) == {"a/b": None}

    def test_receiver_that_does_not_nest_takes_children_first(self):
        made = plan(["a", "a/b"], capabilities=FLAT)

        assert waits(made) == {"a": None, "a/b": None}

    def test_child_waits_also_for_a_parent_in_conflict(self):
        made = plan([filesystem("a", ""), "a/b"])

        assert waits(made) == {"a": None, "a/b": "a"}

    def test_child_in_conflict_waits_for_nobody(self):
        made = plan(["a", "a/b"], initial=Initial.FAIL)

        assert waits(made) == {"a": None, "a/b": None}
