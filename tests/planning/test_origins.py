"""Clones: begun from their origin where the receiver has it in time, else in full."""

import attrs
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from fsrep_core.planning import Initial, Policy, StaleToken, Steps, make_plan
from fsrep_core.values import (
    Awaited,
    Capabilities,
    Filesystem,
    Inventory,
    ResumeToken,
    Version,
    VersionKind,
)

ABLE = Capabilities(stream_formats=frozenset({"x"}), nests=True, clones=True, resumable=True)
UNABLE = attrs.evolve(ABLE, clones=False)


def filesystem(name, text="", **more):
    """Make a filesystem whose snapshots have guids of its own: ``docs`` has ``docs@1``."""
    versions = tuple(
        Version(VersionKind.SNAPSHOT, each, f"{name}@{each}", order)
        for order, each in enumerate(text.split())
    )
    return Filesystem(name=name, versions=versions, **more)


DOCS = filesystem("docs", "1 2 3")
CLONE = filesystem("variant", "4 5", origin="docs@2")


def plan(sender, receiver=(), *, able=ABLE, patterns=("**",), **policy):
    made = make_plan(
        Inventory(capabilities=ABLE, filesystems=tuple(sender)),
        Inventory(capabilities=able, filesystems=tuple(receiver)),
        patterns=patterns,
        policy=Policy(**{"initial": Initial.ALL, **policy}),
    )
    return {each.filesystem: each for each in made.filesystems}


def starts(made, name="variant"):
    """Give what the first step starts from, and what it waits for."""
    return made[name].steps[0].origin, made[name].waits_for


def test_a_clone_starts_from_an_origin_that_is_there():
    made = plan([DOCS, CLONE], [DOCS])

    assert starts(made) == ("docs@2", ())
    assert "starts from docs@2, which it is a clone of" in made["variant"].reasons
    assert [step.origin for step in made["variant"].steps[1:]] == [None]
    assert made["docs"].steps[0].mark_only


def test_a_clone_waits_for_an_origin_that_comes():
    made = plan([DOCS, CLONE])

    assert starts(made) == ("docs@2", (Awaited("docs", "docs@2"),))
    assert made["variant"].reasons[-1].endswith("and waits for that")


def test_a_batch_brings_an_origin_as_well():
    batched = attrs.evolve(ABLE, batched=True)
    both = [Inventory(capabilities=batched, filesystems=each) for each in ((DOCS, CLONE), ())]
    policy = Policy(initial=Initial.ALL, steps=Steps.BATCHED)

    made = make_plan(*both, patterns=("**",), policy=policy)

    assert made.filesystems[1].waits_for == (Awaited("docs", "docs@2"),)


@pytest.mark.parametrize(
    ("patterns", "initial"), [(("variant",), Initial.ALL), (("**",), Initial.NEWEST)]
)
def test_a_clone_is_sent_in_full_where_its_origin_will_not_be_there(patterns, initial):
    made = plan([DOCS, CLONE], patterns=patterns, initial=initial)

    assert starts(made) == (None, ())
    assert made["variant"].reasons[-1] == (
        "is a clone of docs@2, but in full: the receiver will not have that"
    )


def test_an_origin_that_the_sender_does_not_show_is_told_by_its_guid():
    made = plan([attrs.evolve(CLONE, origin="elsewhere")])

    assert "does not show (guid elsewhere)" in made["variant"].reasons[-1]


def test_an_origin_may_be_anywhere_on_the_receiver():
    moved = attrs.evolve(DOCS, name="old/docs")

    assert starts(plan([CLONE], [moved])) == ("docs@2", ())


def test_a_bookmark_is_no_origin():
    mark = Version(VersionKind.BOOKMARK, "2", "docs@2", 1)
    made = plan([CLONE], [Filesystem(name="docs", versions=(mark,))])

    assert starts(made) == (None, ())


def test_a_side_that_knows_no_clones_gets_everything_in_full():
    made = plan([DOCS, CLONE], able=UNABLE)

    assert starts(made) == (None, ())
    assert not any("clone" in reason for reason in made["variant"].reasons)


def test_what_is_there_already_goes_on_as_it_began():
    begun = attrs.evolve(CLONE, versions=CLONE.versions[:1], origin=None)
    made = plan([DOCS, CLONE], [DOCS, begun])

    assert starts(made) == (None, ())
    assert made["variant"].steps[0].from_version == CLONE.versions[0]


def test_a_place_that_holds_children_is_not_replaced_by_a_clone():
    made = plan([DOCS, CLONE], [DOCS, Filesystem(name="variant", placeholder=True)])

    assert starts(made) == (None, ())


def test_a_clone_below_a_new_parent_waits_for_both():
    child = attrs.evolve(CLONE, name="new/variant")
    made = plan([DOCS, filesystem("new", "9"), child])

    assert starts(made, "new/variant") == (
        "docs@2",
        (Awaited("new"), Awaited("docs", "docs@2")),
    )


def test_a_parent_that_is_a_clone_of_its_child_does_not_wait_for_it():
    """As after ``zfs promote`` and a rename: each would wait for the other."""
    parent = filesystem("docs", "4", origin="docs/old@1")
    made = plan([parent, filesystem("docs/old", "1")])

    assert starts(made, "docs") == (None, ())
    assert made["docs/old"].waits_for == (Awaited("docs"),)


def test_a_clone_of_a_clone_waits_for_the_first():
    second = filesystem("a", "6", origin="variant@4")
    made = plan([DOCS, CLONE, second])

    assert starts(made, "a") == ("variant@4", (Awaited("variant", "variant@4"),))


class TestPartials:
    def partial(self, from_guid):
        token = ResumeToken("t", to_guid="variant@4", from_guid=from_guid)
        return Filesystem(name="variant", resume_token=token)

    def test_a_partial_from_the_origin_is_gone_on_with(self):
        made = plan([DOCS, CLONE], [DOCS, self.partial("docs@2")])

        assert starts(made) == ("docs@2", ())
        assert made["variant"].steps[0].resume_token.value == "t"

    @pytest.mark.parametrize("from_guid", [None, "docs@1"])
    def test_a_partial_from_elsewhere_is_thrown_away(self, from_guid):
        made = plan([DOCS, CLONE], [DOCS, self.partial(from_guid)])

        assert starts(made) == ("docs@2", ())
        assert made["variant"].steps[0].clear_resume_token
        assert any("what the filesystem is a clone of" in each for each in made["variant"].reasons)

    def test_a_partial_from_the_origin_is_no_conflict(self):
        made = plan([DOCS, CLONE], [DOCS, self.partial("docs@2")], stale_token=StaleToken.FAIL)

        assert made["variant"].conflict is None


NAMES = ["a", "a/b", "a/b/c", "d", "d/e"]


@st.composite
def families(draw):
    """Draw filesystems, some of them clones of any other's snapshots, and what is there."""
    sender, receiver = [], []
    for name in NAMES:
        count = draw(st.integers(1, 3))
        other = draw(st.sampled_from([None, *NAMES]))
        origin = f"{other}@{draw(st.integers(0, 3))}" if other not in {None, name} else None
        text = " ".join(map(str, range(count)))
        sender.append(filesystem(name, text, origin=origin))
        there = draw(st.integers(0, count))
        parent = name.rpartition("/")[0]
        if there and (not parent or any(each.name == parent for each in receiver)):
            receiver.append(filesystem(name, " ".join(map(str, range(there)))))
    return sender, receiver


@given(families(), st.sampled_from(Initial), st.sampled_from([Steps.EACH, Steps.NEWEST]))
def test_every_plan_can_be_carried_out_and_no_clone_runs_before_its_origin(family, initial, steps):
    sender, receiver = family
    made = plan(sender, receiver, initial=initial, steps=steps)
    there = {version.guid for each in receiver for version in each.versions}
    exists = {each.name for each in receiver}
    todo = {name: list(each.steps) for name, each in made.items() if each.steps}
    clones = 0

    while todo:
        ready = [
            name
            for name in todo
            if all(
                (awaited.guid in there) if awaited.guid else (awaited.filesystem in exists)
                for awaited in made[name].waits_for
            )
        ]
        assert ready, (todo, made)
        for name in ready:
            step = todo[name].pop(0)
            assert step.origin is None or step.origin in there
            clones += step.origin is not None
            there.add(step.to_version.guid)
            exists.add(name)
            todo = {name: steps for name, steps in todo.items() if steps}
    event(f"{clones} clones")
