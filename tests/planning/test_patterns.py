import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_core.errors import InvalidRequestError
from fsrep_core.planning import check_pattern, parse_pattern, select_filesystems
from fsrep_core.planning.patterns import select

NAMES = (
    "docs",
    "docs/old",
    "photos",
    "photos/cache",
    "photos/cache/old",
    "photos/raw",
    "photosets",
)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["docs"], "docs"),
        (["docs/*"], "docs/old"),
        (["*"], "docs photos photosets"),
        (["**"], " ".join(NAMES)),
        (["photos/**"], "photos photos/cache photos/cache/old photos/raw"),
        (["photos/*/**"], "photos/cache photos/cache/old photos/raw"),
        (["photos/*"], "photos/cache photos/raw"),
        (["**/old"], "docs/old photos/cache/old"),
        (["photos/**/old"], "photos/cache/old"),
        (["photos/**/cache"], "photos/cache"),
        (["**/cache/**"], "photos/cache photos/cache/old"),
        (["**/**"], " ".join(NAMES)),
        (["photo?"], "photos"),
        (["photo*"], "photos photosets"),
        (["photos/[a-c]*"], "photos/cache"),
        (["photos/[!a-c]*"], "photos/raw"),
        (["photos/**", "!photos/cache"], "photos photos/cache/old photos/raw"),
        (["photos/**", "!photos/cache/**"], "photos photos/raw"),
        (["**", "!**/old"], "docs photos photos/cache photos/raw photosets"),
        (["**", "!photos/**", "photos/raw"], "docs docs/old photos/raw photosets"),
        (["!docs", "docs"], "docs"),
        (["!docs"], ""),
        ([], ""),
        (["DOCS"], ""),
    ],
)
def test_selection(patterns, expected):
    assert select_filesystems(patterns, reversed(NAMES)) == tuple(expected.split())


def test_prefix_of_a_name_is_not_its_parent():
    assert select_filesystems(["photos/**"], ["photosets", "photos.old/x"]) == ()


def test_special_characters_of_regular_expressions_mean_themselves():
    names = ["a.b", "axb", "a+", "aa", "(x)", "c\nd"]

    assert select_filesystems(["a.?"], names) == ("a.b",)
    assert select_filesystems(["a+"], names) == ("a+",)
    assert select_filesystems(["(?)"], names) == ("(x)",)
    assert select_filesystems(["c*d"], names) == ("c\nd",)


def test_brackets_name_wildcards_themselves():
    names = ["a*", "ab", "a[", "a]", "a!"]

    assert select_filesystems(["a[*]"], names) == ("a*",)
    assert select_filesystems(["a[[]"], names) == ("a[",)
    assert select_filesystems(["a[]]"], names) == ("a]",)
    assert select_filesystems(["a[!]b]"], names) == ("a!", "a*", "a[")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "empty"),
        ("!", "empty"),
        ("/docs", "absolute"),
        ("!/docs", "absolute"),
        ("/", "absolute"),
        ("docs/", "ends in '/'"),
        ("docs//old", "'//'"),
        ("..", "'..'"),
        ("docs/../photos", "'..'"),
        ("./docs", "'..'"),
        ("docs/a**", "'**' beside"),
        ("***", "'**' beside"),
        ("docs/[a", "not closed"),
        ("[a/b]", "not closed"),
        ("[]", "not closed"),
        ("[!]", "not closed"),
        ("[a]b[", "not closed"),
    ],
)
def test_bad_pattern_is_refused_with_a_remedy(pattern, words):
    with pytest.raises(InvalidRequestError, match=re.escape(words)) as caught:
        check_pattern(pattern)

    assert repr(pattern) in caught.value.message
    assert caught.value.hint
    assert not caught.value.local


@pytest.mark.parametrize("pattern", ["docs", "!docs", "**", "a/[]x]/b", "[!]a]", "...", "-x"])
def test_good_pattern_is_accepted(pattern):
    check_pattern(pattern)


def test_bad_pattern_is_refused_wherever_it_stands():
    with pytest.raises(InvalidRequestError):
        select_filesystems(["docs", "photos/"], NAMES)


def test_pattern_that_does_nothing_is_told():
    selection = select(["docs", "dosc", "!photos", "docs", "!docs/old", "**", "!docs/o*"], NAMES)

    assert selection.idle_patterns == ("dosc", "!photos", "!docs/old")


def test_many_wildcards_cost_no_more_than_their_number_times_the_name():
    deep = "/".join(["a" * 60] * 200)
    pattern = parse_pattern("/".join(["**", "*a*a*a*a*a*b"] * 20))

    assert not pattern.matches(deep)


def plainly_matches(pattern, name):
    """The meaning of a pattern, by trying everything."""
    if not pattern:
        return not name
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(plainly_matches(rest, name[at:]) for at in range(len(name) + 1))
    return bool(name) and plainly_matches_within(first, name[0]) and plainly_matches(rest, name[1:])


def plainly_matches_within(glob, text):
    if not glob:
        return not text
    if glob[0] == "*":
        return any(plainly_matches_within(glob[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and glob[0] in ("?", text[0]) and plainly_matches_within(glob[1:], text[1:])


words = st.text("ab", min_size=1, max_size=3)
names = st.lists(words, min_size=1, max_size=5)
globs = st.one_of(
    st.just("**"),
    st.text("ab?", min_size=1, max_size=3),
    st.tuples(words, words).map("*".join),
    st.just("*"),
)


@given(st.lists(globs, min_size=1, max_size=5), names)
def test_matching_means_what_trying_everything_means(pattern, name):
    found = parse_pattern("/".join(pattern)).matches("/".join(name))

    assert found == plainly_matches(pattern, name)


@given(st.lists(st.lists(globs, min_size=1, max_size=3), max_size=4), st.lists(names, max_size=6))
def test_last_pattern_that_matches_decides(patterns, some_names):
    texts = [("!" if at % 2 else "") + "/".join(pattern) for at, pattern in enumerate(patterns)]
    expected = [
        name
        for name in sorted({"/".join(name) for name in some_names})
        if (
            [
                at % 2 == 0
                for at, pattern in enumerate(patterns)
                if plainly_matches(pattern, name.split("/"))
            ]
            or [False]
        )[-1]
    ]

    assert list(select_filesystems(texts, ["/".join(name) for name in some_names])) == expected


def test_order_makes_no_difference_with_the_excludes_at_the_end():
    for some in itertools.permutations(["photos/**", "docs", "docs/*"]):
        assert select_filesystems([*some, "!**/cache"], NAMES) == (
            "docs",
            "docs/old",
            "photos",
            "photos/cache/old",
            "photos/raw",
        )
