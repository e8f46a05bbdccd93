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
    Origin,
    ResumeToken,
    Version,
    VersionKind,
)

ABLE = Capabilities(stream_formats=frozenset({"x"}), nests=True, clones=True, resumable=True)
UNABLE = attrs.evolve(ABLE, clones=False)


def filesystem(name, text="", *, origin=None, **more):
    """Make a filesystem whose snapshots have guids of its own: ``docs`` has ``docs@1``."""
    if origin is not None:
        more["origin"] = Origin(origin.partition("@")[0], origin)
    versions = tuple(
        Version(VersionKind.SNAPSHOT, each, f"{name}@{each}", order)
        for order, each in enumerate(text.split())
    )
    return Filesystem(name=name, versions=versions, **more)


DOCS = filesystem("docs", "1 2 3")
CLONE = filesystem("variant", "4 5", origin="docs@2")


def plan(sender, receiver=(), *, able=ABLE, patterns=("**",), refused=(), **policy):
    made = make_plan(
        Inventory(capabilities=ABLE, filesystems=tuple(sender)),
        Inventory(capabilities=able, filesystems=tuple(receiver)),
        patterns=patterns,
        policy=Policy(**{"initial": Initial.ALL, **policy}),
        refused_tokens=dict(refused),
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
        "is a clone of docs@2, which the receiver will not have: it is sent in full"
    )


def test_a_clone_waits_for_an_origin_in_conflict_and_so_fails_with_it():
    stray = attrs.evolve(DOCS.versions[0], guid="stray", name="stray", order=9)
    there = attrs.evolve(DOCS, versions=(DOCS.versions[0], stray))
    made = plan([DOCS, CLONE], [there])

    assert made["docs"].conflict is not None
    assert starts(made) == ("docs@2", (Awaited("docs", "docs@2"),))


def test_an_origin_that_the_sender_does_not_show_is_told_by_its_guid():
    made = plan([filesystem("variant", "4", origin="gone@7")])

    assert made["variant"].reasons[-1].startswith("is a clone of gone (guid gone@7), which")


def test_of_two_that_have_the_origin_the_one_that_it_is_counts():
    """A root may hold originals and their copies."""
    copy = attrs.evolve(DOCS, name="copies/docs")
    made = plan([copy, DOCS, CLONE, attrs.evolve(DOCS, name="z")])

    assert starts(made) == ("docs@2", (Awaited("docs", "docs@2"),))
    assert any("starts from docs@2" in reason for reason in made["variant"].reasons)


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
    begun = filesystem("variant", "4")
    made = plan([DOCS, CLONE], [DOCS, begun])

    assert starts(made) == (None, ())
    assert made["variant"].steps[0].from_version == CLONE.versions[0]


def test_a_place_that_holds_children_is_not_replaced_by_a_clone():
    made = plan([DOCS, CLONE], [DOCS, Filesystem(name="variant", placeholder=True)])

    assert starts(made) == (None, ())


def test_a_clone_below_a_new_parent_waits_for_both():
    child = filesystem("new/variant", "4 5", origin="docs@2")
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
    assert "cannot be received before it: it is sent in full" in made["docs"].reasons[-1]
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

    def test_a_partial_in_full_is_completed_in_full(self):
        made = plan([DOCS, CLONE], [DOCS, self.partial(None)], stale_token=StaleToken.FAIL)

        assert starts(made) == (None, ())
        assert made["variant"].steps[0].resume_token.value == "t"

    def test_a_clone_of_what_follows_a_partial_waits_for_that(self):
        second = filesystem("a", "6", origin="variant@5")
        made = plan([DOCS, CLONE, second], [DOCS, self.partial("docs@2")], initial=Initial.NEWEST)

        assert made["variant"].steps[0].to_version.guid == "variant@4"
        assert starts(made, "a") == ("variant@5", (Awaited("variant", "variant@5"),))

    @pytest.mark.parametrize("stale_token", StaleToken)
    def test_a_clone_of_what_a_partial_completes_waits_for_that(self, stale_token):
        second = filesystem("a", "6", origin="variant@4")
        made = plan(
            [DOCS, CLONE, second],
            [DOCS, self.partial("docs@2")],
            initial=Initial.NEWEST,
            stale_token=stale_token,
        )

        assert starts(made, "a") == ("variant@4", (Awaited("variant", "variant@4"),))

    def test_a_partial_in_full_that_was_refused_makes_way_for_a_clone(self):
        made = plan([DOCS, CLONE], [DOCS, self.partial(None)], refused={("variant", "t"): "why"})

        assert starts(made) == ("docs@2", ())
        assert made["variant"].steps[0].clear_resume_token

    def test_a_partial_from_elsewhere_is_thrown_away(self):
        made = plan([DOCS, CLONE], [DOCS, self.partial("docs@1")])

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
        if there:
            receiver.append(filesystem(name, " ".join(map(str, range(there)))))
        elif draw(st.booleans()):
            start = draw(st.sampled_from([None, origin]))
            token = ResumeToken("t", to_guid=f"{name}@{draw(st.integers(0, 3))}", from_guid=start)
            receiver.append(Filesystem(name=name, resume_token=token))
    return sender, receiver


@given(
    families(),
    st.fixed_dictionaries(
        {
            "initial": st.sampled_from(Initial),
            "steps": st.sampled_from([Steps.EACH, Steps.NEWEST]),
            "stale_token": st.sampled_from(StaleToken),
        }
    ),
)
def test_every_plan_can_be_carried_out_and_no_clone_runs_before_its_origin(family, policy):
    """But for what waits for a conflict."""
    sender, receiver = family
    made = plan(sender, receiver, **policy)
    there = {version.guid for each in receiver for version in each.versions}
    exists = {each.name for each in receiver if each.versions}
    todo = {name: list(each.steps) for name, each in made.items() if each.steps}
    clones = 0
    for name in todo:
        for awaited in made[name].waits_for:
            source = made[awaited.filesystem]
            brought = {step.to_version.guid for step in source.steps}
            assert source.conflict or awaited.guid is None or awaited.guid in brought

    while todo:
        ready = [
            name
            for name in todo
            if all(
                (awaited.guid in there) if awaited.guid else (awaited.filesystem in exists)
                for awaited in made[name].waits_for
            )
        ]
        if not ready:
            lost = {name for name, each in made.items() if each.conflict}
            for _ in todo:
                lost |= {
                    name
                    for name in todo
                    if any(awaited.filesystem in lost for awaited in made[name].waits_for)
                }
            assert lost >= set(todo), (todo, made)
            break
        for name in ready:
            step = todo[name].pop(0)
            assert step.origin is None or step.origin in there
            clones += step.origin is not None
            there.add(step.to_version.guid)
            exists.add(name)
        todo = {name: steps for name, steps in todo.items() if steps}
    event(f"{clones} clones")


def test_a_long_chain_of_clones_is_planned_in_order():
    """Whether a tie closes a circle is asked only where somebody waits for the clone."""
    count = 4_000
    chain = [filesystem("0", "1")]
    chain += [filesystem(str(at), "1", origin=f"{at - 1}@1") for at in range(1, count)]
    made = plan(chain)

    assert all(
        starts(made, str(at)) == (f"{at - 1}@1", (Awaited(str(at - 1), f"{at - 1}@1"),))
        for at in range(1, count)
    )
