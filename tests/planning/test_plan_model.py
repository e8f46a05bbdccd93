"""Random histories: the plan against a slow, obvious model, and against its own execution.

The model says what must come out, by trying everything, in the words of the rules. The
execution carries a plan out on plain values, refuses what no receiver could do, and
plans again: in the end there must be nothing left to do.
"""

import attrs
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from fsrep_core.planning import (
    Base,
    ConflictKind,
    Diverged,
    Initial,
    Policy,
    StaleToken,
    Steps,
    plan_filesystem,
)
from fsrep_core.values import Capabilities, Filesystem, ResumeToken, Version, VersionKind

MORE = settings(max_examples=200, deadline=None)
GUIDS = "abcdefgh"
"""Of all versions that the sender ever had, oldest first."""


def is_snapshot(version):
    return version.kind is VersionKind.SNAPSHOT


@st.composite
def senders(draw):
    versions = []
    for at, guid in enumerate(GUIDS):
        kinds = draw(st.sampled_from(["", "", "@", "@", "@", "#", "@#"]))
        for sign, kind in (("#", VersionKind.BOOKMARK), ("@", VersionKind.SNAPSHOT)):
            if sign in kinds:
                name = draw(st.sampled_from([guid, "n" + guid]))
                versions.append(Version(kind, name, guid, at, None))
    cursor = draw(st.one_of(st.none(), st.sampled_from(versions))) if versions else None
    return Filesystem(name="f", versions=tuple(draw(st.permutations(versions))), cursor=cursor)


@st.composite
def receivers(draw):
    common = [guid for guid in GUIDS[: draw(st.integers(0, 8))] if draw(st.integers(0, 3))]
    if not draw(st.integers(0, 7)):
        common = draw(st.permutations(common))
    foreign = [f"foreign{at}" for at in range(draw(st.sampled_from([0, 0, 1, 2])))]
    at = draw(st.sampled_from([0, len(common) // 2, len(common)]))
    versions, used = [], set()
    for order, guid in enumerate([*common[:at], *foreign, *common[at:]]):
        kind = draw(st.sampled_from([VersionKind.SNAPSHOT] * 7 + [VersionKind.BOOKMARK]))
        name = draw(st.sampled_from([guid, *GUIDS])) if guid in foreign else guid
        if name not in used:
            used.add(name)
            versions.append(Version(kind, name, guid, 1000 + order, None))
    return Filesystem(
        name="f",
        versions=tuple(draw(st.permutations(versions))),
        resume_token=draw(st.one_of(st.none(), tokens([None, *common]))),
    )


def tokens(starts):
    """What a cut receive left: mostly a step after the newest, sometimes anything."""
    return st.builds(
        ResumeToken,
        st.just("token"),
        to_guid=st.sampled_from([*GUIDS[-4:], *GUIDS, "foreign0"]),
        from_guid=st.one_of(st.just(starts[-1]), st.sampled_from(starts)),
    )


policies = st.builds(
    Policy,
    initial=st.sampled_from([Initial.NEWEST, Initial.ALL, Initial.ALL, Initial.FAIL]),
    diverged=st.sampled_from(Diverged),
    stale_token=st.sampled_from(StaleToken),
    steps=st.sampled_from(Steps),
    base=st.sampled_from([Base.NEWEST, Base.NEWEST, Base.CURSOR]),
)
capabilities = st.builds(
    Capabilities,
    stream_formats=st.sampled_from([frozenset("x"), frozenset("x"), frozenset("xy")]),
    batched=st.booleans(),
    bookmarks=st.booleans(),
)
worlds = st.fixed_dictionaries(
    {
        "sender": senders(),
        "receiver": st.one_of(st.none(), receivers()),
        "policy": policies,
        "sender_capabilities": capabilities,
        "receiver_capabilities": capabilities,
    }
)


def make(world):
    world = dict(world)
    return plan_filesystem(world.pop("sender"), world.pop("receiver"), **world)


def expect(  # noqa: C901, PLR0911  (the rules, one after the other, are the point)
    sender, receiver, policy, sender_capabilities, receiver_capabilities
):
    """What must come out: a kind of conflict, or what each step is, as plain tuples."""
    has = [version for version in receiver.versions if is_snapshot(version)] if receiver else []
    snapshots = [version for version in sender.versions if is_snapshot(version)]
    if not snapshots:
        return ConflictKind.NOTHING_TO_SEND
    if not has and policy.initial is Initial.FAIL:
        return ConflictKind.INITIAL_FORBIDDEN
    if has and policy.base is Base.CURSOR:
        if not sender.cursor:
            return ConflictKind.CURSOR_MISSING
        if all(version.guid != sender.cursor.guid for version in has):
            return ConflictKind.NO_COMMON_ANCESTOR

    def rank(version):
        return (version.order, is_snapshot(version))

    common = [
        version
        for version in sender.versions
        if any(version.guid == other.guid for other in has)
        and (is_snapshot(version) or sender_capabilities.bookmarks)
    ]
    base = max(common, key=rank, default=None)
    if has and base is None:
        return ConflictKind.NO_COMMON_ANCESTOR
    newer = ()
    later = sorted(snapshots, key=rank)
    if base is not None:
        [copy] = [version for version in has if version.guid == base.guid]
        newer = tuple(sorted((other for other in has if rank(other) > rank(copy)), key=rank))
        later = [version for version in later if rank(version) > rank(base)]
    if newer and policy.diverged is Diverged.FAIL:
        return ConflictKind.DIVERGED
    if not later:
        cursor = sender.cursor
        if cursor and (cursor.guid == base.guid or cursor.order > base.order):
            return []
        return [("mark", base)]
    token = receiver.resume_token if receiver else None
    batched = sender_capabilities.batched and receiver_capabilities.batched
    steps = expect_steps(base, later, newer, token, policy=policy, batched=batched)
    if steps is ConflictKind.STALE_TOKEN:
        return steps
    sent = {version.name for _, to, between, *_ in steps for version in (to, *between)}
    if any(version.name in sent for version in has if version not in newer):
        return ConflictKind.NAME_TAKEN
    return steps


def expect_steps(  # noqa: PLR0913  (what the rules need)
    base, later, newer, token, *, policy, batched
):
    steps = []
    at = base
    fits = (
        token is not None
        and not newer
        and token.from_guid == (base.guid if base else None)
        and token.to_guid in [version.guid for version in later]
    )
    if token and not fits and policy.stale_token is StaleToken.FAIL:
        return ConflictKind.STALE_TOKEN
    if fits:
        while at is None or at.guid != token.to_guid:
            at = later.pop(0)
        steps.append((base, at, (), token))
    elif base is None:
        at = later.pop(0)
        while later and policy.initial is Initial.NEWEST:
            at = later.pop(0)
        steps.append((None, at, (), None))
    if later and batched and policy.steps is Steps.BATCHED and not is_snapshot(at):
        steps.append((at, later[0], (), None))
        at = later.pop(0)
    if later and policy.steps is Steps.NEWEST:
        steps.append((at, later[-1], (), None))
    elif later and batched and policy.steps is Steps.BATCHED:
        steps.append((at, later[-1], tuple(later[:-1]), None))
    else:
        for version in later:
            steps.append((at, version, (), None))
            at = version
    return [
        (*step, token is not None and not fits and number == 0, newer if number == 0 else ())
        for number, step in enumerate(steps)
    ]


def plain(made):
    if made.conflict is not None:
        assert made.steps == ()
        return made.conflict.kind
    return [
        ("mark", step.to_version)
        if step.mark_only
        else (
            step.from_version,
            step.to_version,
            step.intermediates,
            step.resume_token,
            step.clear_resume_token,
            step.rollback,
        )
        for step in made.steps
    ]


@MORE
@given(worlds)
def test_plan_is_what_the_model_says(world):
    made = make(world)
    outcome = plain(made)

    event(str(outcome) if isinstance(outcome, ConflictKind) else f"{len(outcome)} steps")
    if made.steps and made.steps[0].resume_token:
        event("resumed")
    assert outcome == expect(**world)
    assert made.replan_after_first == any(step.resume_token for step in made.steps)
    assert made.reasons or made.conflict


@MORE
@given(worlds, st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_how_the_versions_are_listed(world, chance):
    shuffled = dict(world)
    for side in ("sender", "receiver"):
        if world[side] is not None:
            versions = list(world[side].versions)
            chance.shuffle(versions)
            shuffled[side] = attrs.evolve(world[side], versions=tuple(versions))

    assert make(shuffled) == make(world)


def receive(receiver, step):
    """Do what a receiver does, and refuse what none could."""
    versions = [version for version in receiver.versions if version not in step.rollback]
    assert len(versions) == len(receiver.versions) - len(step.rollback)
    snapshots = [version for version in versions if is_snapshot(version)]
    newest = max(snapshots, key=lambda version: version.order, default=None)
    token = receiver.resume_token
    assert step.clear_resume_token or step.resume_token == token
    if step.from_version is None:
        assert newest is None
    else:
        assert newest.guid == step.from_version.guid
    if step.resume_token:
        assert step.to_version.guid == token.to_guid
        assert not step.intermediates
    if step.intermediates:
        assert is_snapshot(step.from_version)
    order = max((version.order for version in versions), default=0)
    for version in (*step.intermediates, step.to_version):
        assert is_snapshot(version)
        assert version.name not in {other.name for other in versions if is_snapshot(other)}
        order += 1
        versions.append(attrs.evolve(version, order=order))
    return attrs.evolve(receiver, versions=tuple(versions), resume_token=None)


def mark(sender, version):
    """Move the cursor as a storage does: forward, or not at all."""
    if sender.cursor is not None and sender.cursor.order > version.order:
        return sender
    return attrs.evolve(sender, cursor=version)


def carry_out(world):
    """Plan and do, as a run does, until nothing is left; give the sides before and after."""
    world = dict(world)
    for attempt in range(3):
        made = make(world)
        if made.conflict is not None or not made.steps:
            return world, made, attempt
        for step in made.steps[:1] if made.replan_after_first else made.steps:
            sender, receiver = world["sender"], world["receiver"]
            assert step.from_version in (None, *sender.versions)
            assert step.to_version in sender.versions
            if step.mark_only:
                assert any(step.to_version.guid == other.guid for other in receiver.versions)
                assert sender.cursor is None or sender.cursor.order < step.to_version.order
            else:
                world["receiver"] = receive(receiver or Filesystem(name="f"), step)
            world["sender"] = mark(sender, step.to_version)
    raise AssertionError("three attempts were not enough, although nothing failed")


@MORE
@given(worlds)
def test_plan_that_is_carried_out_leaves_nothing_to_do(world):
    first = make(world)
    assume(first.conflict is None)
    lost = world["sender"].cursor is not None and first.warnings != ()
    assume(not (lost and world["policy"].base is Base.CURSOR))

    after, last, attempts = carry_out(world)

    event(f"{attempts} attempts")
    assert last.conflict is None
    assert last.steps == ()
    had = world["receiver"].versions if world["receiver"] else ()
    has = after["receiver"].versions if after["receiver"] else ()
    gone = {version for version in had if version not in has}
    allowed = {version for step in first.steps for version in step.rollback}
    assert gone == allowed
    assert not gone or world["policy"].diverged is Diverged.ROLLBACK
    assert has or not any(map(is_snapshot, world["sender"].versions))


@MORE
@given(worlds)
def test_every_later_snapshot_arrives_unless_the_policy_leaves_it_out(world):
    first = make(world)
    assume(first.conflict is None)
    after, last, _ = carry_out(world)
    assume(last.conflict is None)

    guids = {version.guid for version in after["receiver"].versions if is_snapshot(version)}
    snapshots = [version for version in world["sender"].versions if is_snapshot(version)]
    newest = max(snapshots, key=lambda version: version.order)
    if not first.base or newest.order >= first.base.order:
        assert newest.guid in guids
    if world["policy"].steps is not Steps.NEWEST:
        start = first.base.order if first.base else -1
        resumed = first.replan_after_first
        if resumed or (first.base is None and world["policy"].initial is Initial.NEWEST):
            start = first.steps[0].to_version.order - 1
        assert {version.guid for version in snapshots if version.order > start} <= guids
