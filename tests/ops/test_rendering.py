"""How plans and comparisons read, in the cases that real directories seldom show."""

from __future__ import annotations

import sys

import pytest

from fsrep_core import Capabilities, Filesystem, Inventory, ResumeToken, Version, VersionKind
from fsrep_core.ops import progress
from fsrep_core.ops.bars import BarsListener
from fsrep_core.ops.commands import plan, versions
from fsrep_core.ops.words import format_moved, format_time, step_name, visible
from fsrep_core.planning import FilesystemPlan, Plan
from fsrep_core.reports import StepReport
from fsrep_core.runtime.survey import PlanPreview
from fsrep_core.values import PlannedStep


def snapshot(name: str, order: int, *, created: float | None = 0.0) -> Version:
    made = None if created is None else created + 3600.0 * order
    return Version(VersionKind.SNAPSHOT, name, f"guid-{name}", order, made)


A, B, C = snapshot("a", 1), snapshot("b", 2), snapshot("c", 3)
MARK = Version(VersionKind.BOOKMARK, "mark", A.guid, 1, A.created)
CAPABILITIES = Capabilities(stream_formats=frozenset({"x"}))


# --- plans --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "size_bytes", "text"),
    [
        (PlannedStep(to_version=A), None, "fs@a (full): size unknown"),
        (PlannedStep(from_version=A, to_version=B), 2048, "fs@a => @b: size 2.0 KiB"),
        (
            PlannedStep(from_version=MARK, to_version=C, intermediates=(B,)),
            0,
            "fs#mark => @c: size 0 B, with 1 snapshot between",
        ),
        (
            PlannedStep(to_version=A, resume_token=ResumeToken("t", A.guid)),
            None,
            "fs@a (full): size unknown, goes on where a receive was cut",
        ),
        (
            PlannedStep(to_version=A, clear_resume_token=True, rollback=(B, C)),
            None,
            (
                "fs@a (full): size unknown, throws a partial receive away, "
                "destroys @b @c on the receiver first"
            ),
        ),
        (
            PlannedStep(from_version=A, to_version=B, mark_only=True),
            None,
            "fs@a => @b: only the cursor moves",
        ),
    ],
)
def test_a_step_says_all_that_it_would_do(step, size_bytes, text):
    assert plan._step_line("fs", step, size_bytes) == text


def test_a_plan_sums_up_what_it_knows():
    found = PlanPreview(
        plan=Plan(
            filesystems=(
                FilesystemPlan(
                    filesystem="x",
                    steps=(PlannedStep(to_version=A), PlannedStep(to_version=B)),
                    warnings=("strange",),
                ),
                FilesystemPlan(filesystem="y"),
            ),
            warnings=("odd",),
        ),
        estimates={"x": (1024, None), "y": ()},
        warnings=("no size",),
    )

    assert list(plan._lines("j", found)) == [
        "j: 2 filesystems, 2 steps, at least 1.0 KiB",
        "  warning: odd",
        "  warning: no size",
        "  x: 2 steps",
        "      x@a (full): size 1.0 KiB",
        "      x@b (full): size unknown",
        "      warning: strange",
        "  y: nothing to do",
    ]


# --- comparisons --------------------------------------------------------------------------


def compare(sender: Filesystem | None, receiver: Filesystem | None) -> versions.Comparison:
    sides = [
        Inventory(capabilities=CAPABILITIES, filesystems=(each,) if each else ())
        for each in (sender, receiver)
    ]
    (found,) = versions.compare(*sides, patterns=("**",))
    return found


def test_versions_are_matched_by_identity_and_not_by_name():
    same_name = Version(VersionKind.SNAPSHOT, "b", "another guid", 1, 0.0)
    found = compare(
        Filesystem(name="fs", versions=(B, A, C)),
        Filesystem(name="fs", versions=(same_name, A)),
    )

    assert found.newest_common == A
    assert (found.lag_versions, found.lag_seconds) == (2, 7200.0)
    assert [version.name for version in found.sender] == ["a", "b", "c"]
    assert versions._verdict(found) == "common up to @a, 2 versions, 2h behind"
    assert [row[0].strip() + row[2] + row[3] for row in versions._rows(found)] == [
        "@ayesyes",
        "@byes-",
        "@cyes-",
        "@b-yes",
    ]


def test_a_bookmark_can_be_what_is_common():
    found = compare(
        Filesystem(name="fs", versions=(MARK, B), cursor=MARK),
        Filesystem(name="fs", versions=(A,)),
    )

    assert found.newest_common == MARK
    assert found.lag_versions == 1
    assert next(iter(versions._rows(found)))[2:] == ("yes", "", "cursor")


def test_bookmarks_of_the_receiver_are_nothing_in_common():
    found = compare(Filesystem(name="fs", versions=(A,)), Filesystem(name="fs", versions=(MARK,)))

    assert found.newest_common is None
    assert versions._verdict(found) == "nothing in common"


def test_a_filesystem_of_one_side_is_shown():
    only_there = compare(None, Filesystem(name="old", versions=(A,)))
    only_here = compare(Filesystem(name="new", versions=(A,)), None)

    assert (only_there.lag_versions, only_here.lag_versions) == (0, 1)
    assert versions._verdict(only_there) == versions._verdict(only_here) == "nothing in common"


def test_a_partial_receive_and_unknown_dates_are_told():
    timeless = snapshot("c", 3, created=None)
    found = compare(
        Filesystem(name="fs", versions=(A, timeless)),
        Filesystem(name="fs", versions=(A,), resume_token=ResumeToken("t", timeless.guid)),
    )

    assert found.lag_seconds is None
    assert versions._verdict(found) == (
        "common up to @a, 1 version behind; a receive was cut and can go on"
    )


def test_a_job_without_versions(fsrep, job):
    job.config.write_text(job.config.read_text().replace('"docs", "photos"', '"x/*"'))

    assert fsrep("versions").out == "documents: no filesystem has versions\n"


def test_versions_fails_where_a_side_does_not_answer(fsrep, job):
    job.receiver.rmdir()

    ended = fsrep("versions")
    planned = fsrep("plan")

    assert ended.status == planned.status == 1
    assert ended.out == planned.out
    assert ended.out.startswith("documents: ")


# --- words --------------------------------------------------------------------------------


def test_what_was_there_already_moved_nothing():
    step = StepReport(from_version=A, to_version=B, status="completed", mark_only=True)

    assert format_moved(step) == "was there already"


def test_a_step_without_times_has_no_rate():
    step = StepReport(from_version=A, to_version=B, status="completed", transferred_bytes=10)

    assert format_moved(step) == "10 B"


def test_unknown_moments_and_hostile_names():
    assert format_time(None) == "unknown"
    assert visible("a\x9b\x07\tb") == "a\\x9b\\x07\\x09b"
    assert step_name("f\ns", PlannedStep(to_version=A)) == "f\\x0as@a (full)"
    assert step_name("fs", PlannedStep(to_version=A, origin="5")) == "fs@a (clone)"


def test_bars_are_for_terminals(monkeypatch):
    assert isinstance(progress.progress_listener(), progress.LinesListener)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(progress.progress_listener(), BarsListener)


# --- a run that does not get far ----------------------------------------------------------


def test_a_plugin_that_fails_to_open_is_that_jobs_failure(fsrep, job, monkeypatch):
    fsrep("snapshot", "--name", "one")

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fsrep_core.ops.commands.run.open_sides", fail)

    ended = fsrep("run", "--metrics-file", "fsrep.prom")

    assert ended.status == 1
    assert "Input/output error" in ended.out
    assert 'fsrep_last_run_success{job="documents"} 0.0' in (job.root / "fsrep.prom").read_text()
