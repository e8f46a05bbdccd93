"""What fsrep writes onto disks is read again as what it was, and is a legal name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_zfs import names

LEGAL = re.compile(r"[A-Za-z0-9_.:-]+")
jobs = st.text(min_size=1, max_size=256)
guids = st.integers(min_value=0, max_value=2**64 - 1).map(str)


@given(jobs, guids, st.booleans())
def test_a_cursor_says_whose_it_is_and_what_it_marks(job, guid, raw):
    name = names.cursor_name(job, guid, raw=raw)

    read = names.parse_cursor_name(name)

    assert LEGAL.fullmatch(name)
    assert len(name) < 200
    assert (read.guid, read.raw, read.job) == (guid, raw, names.job_word(job))


@given(jobs)
def test_tags_say_whose_they_are(job):
    assert names.parse_tag(names.step_tag(job)) == ("step", names.job_word(job))
    assert names.parse_tag(names.last_tag(job)) == ("last", names.job_word(job))


@given(jobs, jobs)
def test_different_jobs_have_different_words(one, other):
    assert (names.job_word(one) == names.job_word(other)) == (one == other)


def test_long_jobs_that_begin_alike_differ():
    words = {names.job_word("j" * 200 + end) for end in ("a", "b")}

    assert len(words) == 2
    assert max(map(len, words)) <= 100


def test_a_job_as_the_configuration_allows_it_stands_as_it_is():
    assert names.step_tag("my-job_2.x") == "fsrep_step_my-job_2.x"


@pytest.mark.parametrize(
    "name",
    [
        "monday",
        "fsrep_cursor_0123_plain_job",
        "fsrep_cursor_0123456789abcdef_job",
        "fsrep_cursor_0123456789ABCDEF_plain_job",
        "xfsrep_cursor_0123456789abcdef_plain_job",
        "zrepl_CURSOR_G_0123456789abcdef_J_job",
    ],
)
def test_what_is_not_ours_is_no_cursor(name):
    assert names.parse_cursor_name(name) is None


def test_what_is_not_ours_is_no_hold():
    assert names.parse_tag("keep") is None
    assert names.parse_tag("fsrep_other_job") is None


def test_each_placeholder_has_a_mark_of_its_own():
    assert names.new_placeholder_mark() != names.new_placeholder_mark()
