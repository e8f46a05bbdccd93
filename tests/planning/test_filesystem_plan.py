"""Every rule of planning one filesystem, each on the smallest history that shows it.

Histories are written oldest first: ``"a #b c:g"`` is a snapshot ``a``, a bookmark ``b``,
and a snapshot ``c`` whose guid is ``g`` (otherwise the guid is the name). Steps are
written ``a>d(b c)``: from ``a`` to ``d`` with ``b`` and ``c`` in the same stream; ``>d``
is full, ``=d`` moves the cursor only.
"""

import attrs
import pytest

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

ABLE = Capabilities(stream_formats=frozenset({"tar", "x"}), batched=True, bookmarks=True)


def history(text, *, first_order=10):
    versions = []
    for at, word in enumerate(text.split()):
        kind = VersionKind.BOOKMARK if word.startswith("#") else VersionKind.SNAPSHOT
        name, _, guid = word.removeprefix("#").partition(":")
        order = first_order + 10 * at
        versions.append(Version(kind, name, guid or name, order, float(order)))
    return tuple(versions)


def plan(  # noqa: PLR0913  (each test names the one or two that it is about)
    sender,
    receiver,
    *,
    cursor=None,
    token=None,
    token_refusal=None,
    able=ABLE,
    taking=ABLE,
    **policy,
):
    """Plan; the receiver's orders have nothing to do with the sender's."""
    versions = history(sender) if isinstance(sender, str) else sender
    if isinstance(cursor, str):
        [cursor] = [each for each in versions if each.relative_name == cursor]
    received = receiver
    if isinstance(receiver, str):
        received = history(receiver, first_order=-7)
    return plan_filesystem(
        Filesystem(name="f", versions=versions, cursor=cursor),
        None if receiver is None else Filesystem(name="f", versions=received, resume_token=token),
        policy=Policy(**policy),
        token_refusal=token_refusal,
        sender_capabilities=able,
        receiver_capabilities=taking,
    )


def written(step):
    if step.mark_only:
        return f"={step.to_version.relative_name}"
    start = "" if step.from_version is None else step.from_version.relative_name.lstrip("@")
    middle = " ".join(version.name for version in step.intermediates)
    return f"{start}>{step.to_version.name}" + (f"({middle})" if middle else "")


def steps(made):
    assert made.conflict is None, made.conflict
    return [written(step) for step in made.steps]


def conflict(made, kind):
    assert made.conflict is not None, made
    assert made.conflict.kind is kind
    assert made.steps == ()
    assert made.conflict.hint
    return made.conflict


def names(versions):
    return [version.relative_name for version in versions]


class TestBase:
    def test_newest_common_version_is_the_base(self):
        made = plan("a b c", "a b", steps=Steps.EACH, cursor="@b")

        assert steps(made) == ["b>c"]
        assert made.base.name == "b"
        assert made.reasons[0] == "starts from @b, the newest version that both sides have"

    def test_versions_are_matched_by_guid_whatever_their_names(self):
        made = plan("a:1 b:2 c:3", "x:1 y:2")

        assert steps(made) == ["b>c"]

    def test_same_name_and_date_with_another_guid_is_no_common_version(self):
        made = plan("a b", "a b:other", diverged=Diverged.ROLLBACK)

        assert made.base.name == "a"
        assert names(made.steps[0].rollback) == ["@b"]

    def test_order_of_the_other_side_means_nothing(self):
        sender = history("a b c", first_order=1)
        receiver = history("a b", first_order=10**12)

        assert steps(plan(sender, receiver)) == ["b>c"]

    def test_order_decides_and_not_the_listing(self):
        sender = history("a b c d")
        shuffled = (sender[2], sender[0], sender[3], sender[1])

        assert steps(plan(shuffled, "a b")) == ["b>d(c)"]

    def test_creation_dates_decide_nothing(self):
        sender = tuple(
            attrs.evolve(version, created=date)
            for version, date in zip(history("a b c"), (9.0, None, 1.0), strict=True)
        )

        assert steps(plan(sender, "a")) == ["a>c(b)"]

    def test_receivers_bookmarks_are_ignored(self):
        made = plan("a b c", "a #b #c")

        assert steps(made) == ["a>c(b)"]

    def test_receiver_with_only_bookmarks_has_nothing(self):
        assert steps(plan("a b", "#a #b")) == [">b"]

    def test_snapshot_is_preferred_to_the_bookmark_of_the_same_guid(self):
        twins = (*history("a b c"), Version(VersionKind.BOOKMARK, "mark", "b", 20))

        made = plan(twins, "a b")

        assert steps(made) == ["b>c"]
        assert made.base.kind is VersionKind.SNAPSHOT

    def test_bookmark_that_claims_a_later_order_than_its_snapshot_hides_no_newer_base(self):
        odd = (*history("a b c"), Version(VersionKind.BOOKMARK, "mark", "a", 99))

        assert steps(plan(odd, "a b")) == ["b>c"]

    def test_bookmark_is_the_base_where_its_snapshot_is_gone(self):
        made = plan("a #b c", "a b")

        assert steps(made) == ["#b>c"]
        assert "bookmark #b" in made.reasons[0]

    def test_older_bookmark_does_not_beat_a_newer_snapshot(self):
        assert steps(plan("#a b c", "a b")) == ["b>c"]

    def test_newest_of_several_bookmarks_is_the_base(self):
        sender = history("#a #b #c d")

        assert steps(plan((sender[1], sender[2], sender[0], sender[3]), "a b c")) == ["#c>d"]

    def test_snapshot_stands_after_the_bookmark_of_the_same_order(self):
        mark = Version(VersionKind.BOOKMARK, "mark", "gone", 20)

        made = plan((*history("a b c"), mark), "gone b")

        assert made.base.relative_name == "@b"

    def test_bookmark_stands_before_the_snapshot_of_the_same_order(self):
        mark = Version(VersionKind.BOOKMARK, "mark", "gone", 20)
        same = Version(VersionKind.SNAPSHOT, "same", "same", 20)

        assert steps(plan((same, mark), "gone")) == ["#mark>same"]

    def test_bookmark_is_no_base_where_the_sender_cannot_send_from_it(self):
        unable = attrs.evolve(ABLE, bookmarks=False)

        made = plan("#a b", "a", able=unable)

        conflict(made, ConflictKind.NO_COMMON_ANCESTOR)

    def test_bookmark_is_never_a_target(self):
        assert steps(plan("a b #c #d", "a")) == ["a>b"]

    def test_receiver_that_has_the_base_twice_has_not_diverged(self):
        assert steps(plan("a b", "a:a again:a")) == ["a>b"]


class TestPath:
    def test_batched_carries_all_in_one_stream(self):
        assert steps(plan("a b c d", "a")) == ["a>d(b c)"]

    def test_batched_is_the_default(self):
        assert Policy().steps is Steps.BATCHED

    def test_each_is_one_step_a_snapshot(self):
        assert steps(plan("a b c d", "a", steps=Steps.EACH)) == ["a>b", "b>c", "c>d"]

    def test_newest_leaves_out_the_snapshots_between(self):
        assert steps(plan("a b c d", "a", steps=Steps.NEWEST)) == ["a>d"]

    @pytest.mark.parametrize("side", ["able", "taking"])
    def test_batched_needs_both_storages(self, side):
        made = plan("a b c", "a", **{side: attrs.evolve(ABLE, batched=False)})

        assert steps(made) == ["a>b", "b>c"]
        assert "not both storages can carry several" in made.reasons[-1]

    def test_batched_from_a_bookmark_begins_with_one_snapshot(self):
        assert steps(plan("#a b c d e", "a")) == ["#a>b", "b>e(c d)"]

    def test_bookmarks_between_are_not_carried(self):
        assert steps(plan("a b #x c", "a")) == ["a>c(b)"]


class TestNothingToDo:
    def test_receiver_has_everything_and_the_cursor_says_so(self):
        made = plan("a b", "a b", cursor="@b")

        assert steps(made) == []
        assert made.reasons == (
            "nothing to send: the receiver has @b, and the sender has no later snapshot",
        )

    def test_missing_cursor_is_set_without_sending(self):
        made = plan("a b", "a b")

        assert steps(made) == ["=@b"]
        assert made.reasons[-1].endswith("the cursor is not set and moves to @b")

    def test_cursor_behind_is_moved_without_sending(self):
        made = plan("a b", "a b", cursor="@a")

        assert steps(made) == ["=@b"]
        assert made.reasons[-1].endswith("the cursor marks @a and moves to @b")

    def test_cursor_is_a_bookmark_of_the_base(self):
        twins = (*history("a b"), Version(VersionKind.BOOKMARK, "cursor", "b", 20))

        assert steps(plan(twins, "a b", cursor="#cursor")) == []

    def test_cursor_may_have_an_order_of_its_own(self):
        cursor = Version(VersionKind.BOOKMARK, "cursor", "b", order=0)

        assert steps(plan("a b", "a b", cursor=cursor)) == []

    def test_cursor_of_the_same_order_is_not_older(self):
        cursor = Version(VersionKind.BOOKMARK, "cursor", "other", order=20)

        made = plan("a b", "a b", cursor=cursor)

        assert steps(made) == []
        assert made.warnings == ()

    def test_cursor_never_moves_backwards(self):
        made = plan("a #b", "a", cursor="#b")

        assert steps(made) == []
        assert "the receiver had confirmed #b" in made.warnings[0]

    def test_mark_may_name_a_bookmark(self):
        sender = (*history("a"), Version(VersionKind.BOOKMARK, "b", "b", 20))

        assert steps(plan(sender, "a b")) == ["=#b"]

    def test_snapshot_to_send_comes_before_the_mark(self):
        assert steps(plan("a b c", "a b", cursor="@a")) == ["b>c"]

    def test_receiver_may_lack_older_versions(self):
        assert steps(plan("a b c", "c", cursor="@c")) == []

    def test_receiver_may_keep_older_versions_that_the_sender_pruned(self):
        assert steps(plan("c", "a b c", cursor="@c")) == []


class TestInitial:
    @pytest.mark.parametrize("receiver", [None, ""])
    def test_newest_is_the_default(self, receiver):
        made = plan("a b c", receiver)

        assert steps(made) == [">c"]
        assert made.reasons[0] == (
            "the receiver has no snapshot: the first replication begins with @c "
            "(initial = 'newest'); 2 older stay on the sender"
        )

    def test_all_begins_with_the_oldest(self):
        made = plan("a b c d", None, initial=Initial.ALL)

        assert steps(made) == [">a", "a>d(b c)"]
        assert "begins with @a (initial = 'all')" in made.reasons[0]
        assert "stay on the sender" not in made.reasons[0]

    def test_all_of_a_single_snapshot_is_one_step(self):
        assert steps(plan("a", None, initial=Initial.ALL)) == [">a"]

    def test_all_with_each(self):
        made = plan("a b c", None, initial=Initial.ALL, steps=Steps.EACH)

        assert steps(made) == [">a", "a>b", "b>c"]

    def test_all_with_newest_keeps_the_oldest_and_the_newest(self):
        made = plan("a b c", None, initial=Initial.ALL, steps=Steps.NEWEST)

        assert steps(made) == [">a", "a>c"]

    def test_full_stream_starts_at_a_snapshot_even_after_a_bookmark(self):
        assert steps(plan("#a b c", None, initial=Initial.ALL)) == [">b", "b>c"]

    def test_fail_forbids_it(self):
        found = conflict(plan("a b", None, initial=Initial.FAIL), ConflictKind.INITIAL_FORBIDDEN)

        assert "@a, @b" in found.message

    def test_fail_allows_what_has_begun(self):
        assert steps(plan("a b", "a", initial=Initial.FAIL)) == ["a>b"]

    def test_receiver_that_lost_what_it_had_confirmed_is_a_warning(self):
        made = plan("a b", "", cursor="@a")

        assert steps(made) == [">b"]
        assert "had confirmed @a" in made.warnings[0]

    def test_receiver_that_pruned_what_an_older_cursor_marks_is_no_warning(self):
        assert plan("a b", "b", cursor="@a").warnings == ()

    def test_receiver_that_has_what_the_cursor_marks_is_no_warning(self):
        assert plan("a b", "a", cursor="@a").warnings == ()


class TestConflicts:
    @pytest.mark.parametrize("receiver", [None, "", "a"])
    def test_sender_without_snapshots_has_nothing_to_send(self, receiver):
        conflict(plan("", receiver), ConflictKind.NOTHING_TO_SEND)

    def test_sender_with_only_bookmarks_has_nothing_to_send(self):
        found = conflict(plan("#a #b", "a"), ConflictKind.NOTHING_TO_SEND)

        assert "#a, #b" in found.message

    def test_no_common_ancestor_names_both_sides(self):
        found = conflict(plan("a b", "x y"), ConflictKind.NO_COMMON_ANCESTOR)

        assert "@a, @b" in found.message
        assert "@x, @y" in found.message
        assert names(found.versions) == ["@x", "@y"]

    def test_no_common_ancestor_explains_equal_names(self):
        found = conflict(plan("a b", "a:other"), ConflictKind.NO_COMMON_ANCESTOR)

        assert "@a exist by name on both, but with another guid" in found.message

    def test_diverged_names_the_newer_versions(self):
        found = conflict(plan("a b c", "a x y"), ConflictKind.DIVERGED)

        assert "newer than @a" in found.message
        assert names(found.versions) == ["@x", "@y"]
        assert "rollback" in found.hint

    def test_diverged_also_with_nothing_to_send(self):
        conflict(plan("a", "a x"), ConflictKind.DIVERGED)

    def test_nothing_is_destroyed_by_default(self):
        assert Policy().diverged is Diverged.FAIL

    def test_common_version_out_of_place_on_the_receiver_is_newer_too(self):
        found = conflict(plan("a b c", "a c b"), ConflictKind.DIVERGED)

        assert names(found.versions) == ["@b"]

    def test_rollback_destroys_exactly_the_newer_versions_with_the_first_step(self):
        made = plan("a b c", "o a x #m y", diverged=Diverged.ROLLBACK, steps=Steps.EACH)

        assert steps(made) == ["a>b", "b>c"]
        assert [names(step.rollback) for step in made.steps] == [["@x", "@y"], []]
        assert "destroys @x, @y on the receiver first" in made.reasons[-1]

    def test_rollback_with_nothing_to_send_does_nothing(self):
        made = plan("a", "a x", diverged=Diverged.ROLLBACK, cursor="@a")

        assert steps(made) == []
        assert made.reasons[-1].startswith("leaves @x on the receiver")

    def test_rollback_never_replaces_an_unrelated_receiver(self):
        made = plan("a", "x", diverged=Diverged.ROLLBACK)

        conflict(made, ConflictKind.NO_COMMON_ANCESTOR)

    def test_name_of_a_version_to_send_is_taken(self):
        found = conflict(plan("a b c d", "c:other a"), ConflictKind.NAME_TAKEN)

        assert names(found.versions) == ["@c"]
        assert "@c" in found.message

    def test_taken_name_of_a_version_left_out_is_no_matter(self):
        assert steps(plan("a b c", "b:other a", steps=Steps.NEWEST)) == ["a>c"]

    def test_name_that_a_rollback_frees_is_not_taken(self):
        made = plan("a b", "a b:other", diverged=Diverged.ROLLBACK)

        assert steps(made) == ["a>b"]

    def test_name_of_a_receivers_bookmark_is_free(self):
        assert steps(plan("a b", "#b:other a")) == ["a>b"]

    def test_storages_without_a_common_stream_format(self):
        other = attrs.evolve(ABLE, stream_formats=frozenset({"zfs"}))

        found = conflict(plan("a", None, taking=other), ConflictKind.INCOMPATIBLE_FORMATS)

        assert "tar, x" in found.message
        assert "zfs" in found.message

    def test_formats_do_not_matter_where_nothing_is_sent(self):
        other = attrs.evolve(ABLE, stream_formats=frozenset({"zfs"}))

        assert steps(plan("a", "a", taking=other)) == ["=@a"]

    def test_problem_of_a_conflict_is_permanent_and_local(self):
        found = conflict(plan("", None), ConflictKind.NOTHING_TO_SEND)

        problem = found.problem()

        assert (problem.temporary, problem.local, problem.kind) == (False, True, "conflict")
        assert (problem.message, problem.hint) == (found.message, found.hint)

    def test_many_versions_are_counted_and_not_listed(self):
        found = conflict(plan("a", "a n o p q r"), ConflictKind.DIVERGED)

        assert "@n, 3 more, @r" in found.message
        assert len(found.versions) == 5


class TestBasePolicy:
    def test_missing_cursor_matters_only_where_one_is_needed(self):
        assert steps(plan("a b", "a", base=Base.NEWEST)) == ["a>b"]
        found = conflict(plan("a b", "a", base=Base.CURSOR), ConflictKind.CURSOR_MISSING)
        assert "@a" in found.message

    def test_first_replication_needs_no_cursor(self):
        assert steps(plan("a b", None, base=Base.CURSOR)) == [">b"]

    def test_starts_from_what_the_cursor_marks(self):
        assert steps(plan("a b c", "a b", base=Base.CURSOR, cursor="@b")) == ["b>c"]

    def test_receiver_without_what_the_cursor_marks(self):
        made = plan("a b c", "a", base=Base.CURSOR, cursor="@b")

        found = conflict(made, ConflictKind.NO_COMMON_ANCESTOR)

        assert "(@b)" in found.message

    def test_mark_that_was_cut_off_is_made_up_for(self):
        made = plan("a b", "a b", base=Base.CURSOR, cursor="@a")

        assert steps(made) == ["=@b"]

    def test_cursor_that_cannot_be_sent_from_is_no_reason_to_send_again(self):
        unable = attrs.evolve(ABLE, bookmarks=False)

        made = plan("a #b c", "a b", base=Base.CURSOR, cursor="#b", able=unable)

        assert names(conflict(made, ConflictKind.DIVERGED).versions) == ["@b"]


class TestResumeToken:
    def test_fitting_token_is_the_first_step_and_everything_is_planned_again(self):
        token = ResumeToken("t", to_guid="b", from_guid="a", received_bytes=17)

        made = plan("a b c d", "a", token=token)

        assert steps(made) == ["a>b", "b>d(c)"]
        assert made.steps[0].resume_token is token
        assert made.steps[1].resume_token is None
        assert made.replan_after_first
        assert not any(step.clear_resume_token for step in made.steps)
        assert "completes the partial receive of @b, of which 17 bytes" in made.reasons[1]

    def test_target_of_the_token_and_not_the_intended_one_is_committed(self):
        token = ResumeToken("t", to_guid="c", from_guid="a")

        assert steps(plan("a b c d", "a", token=token)) == ["a>c", "c>d"]

    def test_full_token(self):
        token = ResumeToken("t", to_guid="b")

        made = plan("a b c", "", token=token)

        assert steps(made) == [">b", "b>c"]
        assert made.steps[0].resume_token is token
        assert "begins with @b (initial = 'newest'); 1 older stay" in made.reasons[0]

    def test_token_from_a_bookmark(self):
        token = ResumeToken("t", to_guid="b", from_guid="a")

        assert steps(plan("#a b", "a", token=token)) == ["#a>b"]

    @pytest.mark.parametrize(
        ("sender", "receiver", "token", "why"),
        [
            ("a c", "a", ResumeToken("t", "b", "a"), "no longer has the snapshot"),
            ("a #b c", "a", ResumeToken("t", "b", "a"), "no longer has the snapshot"),
            ("b c", "b", ResumeToken("t", "c", "a"), "does not start from the newest"),
            ("a b c", "a b", ResumeToken("t", "c", "a"), "does not start from the newest"),
            ("a b c", "", ResumeToken("t", "c", "a"), "does not start from the newest"),
            ("a b", "a", ResumeToken("t", "b", None), "does not start from the newest"),
            ("a b", "a", ResumeToken("t", "a", "a"), "no longer has the snapshot"),
        ],
    )
    def test_stale_token_is_discarded_with_the_first_step(self, sender, receiver, token, why):
        made = plan(sender, receiver, token=token, steps=Steps.EACH, initial=Initial.ALL)

        assert made.conflict is None
        assert [step.clear_resume_token for step in made.steps] == [
            True,
            *[False for _ in made.steps[1:]],
        ]
        assert all(step.resume_token is None for step in made.steps)
        assert not made.replan_after_first
        assert "throws the receiver's partial receive away" in made.reasons[1]
        assert why in made.reasons[1]

    def test_unattended_runs_do_not_stop_by_default(self):
        assert Policy().stale_token is StaleToken.DISCARD

    def test_stale_token_is_a_conflict_where_the_policy_says_so(self):
        token = ResumeToken("t", to_guid="gone", from_guid="a")

        made = plan("a b", "a", token=token, stale_token=StaleToken.FAIL)

        assert "no longer has" in conflict(made, ConflictKind.STALE_TOKEN).message

    def test_refused_token_is_a_stale_one(self):
        token = ResumeToken("t", to_guid="b", from_guid="a")
        refused = {"token": token, "token_refusal": "too old"}

        made = plan("a b", "a", **refused)
        kept = plan("a b", "a", **refused, stale_token=StaleToken.FAIL)

        assert made.steps[0].clear_resume_token
        assert made.steps[0].resume_token is None
        assert "away: it was refused: too old" in made.reasons[1]
        assert "too old" in conflict(kept, ConflictKind.STALE_TOKEN).message

    def test_fitting_token_is_no_conflict(self):
        token = ResumeToken("t", to_guid="b", from_guid="a")

        assert steps(plan("a b", "a", token=token, stale_token=StaleToken.FAIL)) == ["a>b"]

    def test_unused_token_is_left_alone_where_nothing_is_sent(self):
        token = ResumeToken("t", to_guid="gone", from_guid="a")

        for stale in StaleToken:
            made = plan("a b", "a b", cursor="@b", token=token, stale_token=stale)

            assert steps(made) == []
            assert "left alone" in made.reasons[-1]

    def test_unused_token_is_left_alone_where_only_the_mark_is_missing(self):
        token = ResumeToken("t", to_guid="gone", from_guid="a")

        made = plan("a b", "a b", token=token)

        assert steps(made) == ["=@b"]
        assert not made.steps[0].clear_resume_token
        assert "left alone" in made.reasons[-1]

    def test_rollback_ends_a_partial(self):
        token = ResumeToken("t", to_guid="b", from_guid="a")

        made = plan("a b", "a x", token=token, diverged=Diverged.ROLLBACK)

        [step] = made.steps
        assert step.clear_resume_token
        assert step.resume_token is None
        assert names(step.rollback) == ["@x"]

    def test_what_a_token_leaves_out_is_told(self):
        skipping = ResumeToken("t", to_guid="d", from_guid="a")
        next_one = ResumeToken("t", to_guid="b", from_guid="a")

        assert "leaves out @b, @c" in plan("a b c d", "a", token=skipping).reasons[1]
        assert "leaves out" not in plan("a b c d", "a", token=next_one).reasons[1]

    def test_first_token_decides_where_all_begins(self):
        token = ResumeToken("t", to_guid="b")

        made = plan("a b c", "", token=token, initial=Initial.ALL)

        assert steps(made) == [">b", "b>c"]
        assert "begins with @b (initial = 'all'); 1 older stay on the sender" in made.reasons[0]

    def test_token_value_is_in_no_word_of_the_plan(self):
        token = ResumeToken("secret", to_guid="b", from_guid="a")

        assert "secret" not in repr(plan("a b", "a", token=token))
