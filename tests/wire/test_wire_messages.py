"""Values as JSON: what comes out equals what went in, and nothing wrong comes in."""

from __future__ import annotations

import copy
import json
from contextlib import suppress

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsrep_core import (
    Capabilities,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    Filesystem,
    FsrepError,
    InvalidRequestError,
    Inventory,
    InventoryRequest,
    Origin,
    Problem,
    ReceiveRequest,
    ReceiveResponse,
    ResumeToken,
    SendRequest,
    SizeEstimate,
    Version,
    VersionKind,
    VersionResult,
    errors,
)
from fsrep_core.wire import (
    OPERATIONS,
    CursorAnswer,
    Results,
    SendEnded,
    SendOpened,
    Unpacker,
    WireError,
    make_error,
    pack,
)
from fsrep_core.wire.codec import decode, encode
from fsrep_core.wire.frames import PART_LIMIT_BYTES
from fsrep_core.wire.messages import PIECE_BYTES
from fsrep_core.wire.names import TEXT_LIMIT
from fsrep_core.wire.text import MalformedError, dump_json, load_json

letters = st.characters(exclude_characters="/@#", exclude_categories=["Cc", "Cs"])
surrogates = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
words = st.text(letters | surrogates, min_size=1, max_size=20).filter(
    lambda word: word not in {".", ".."} and not word.startswith("-")
)
names = st.lists(words, min_size=1, max_size=3).map("/".join)
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=40)
integers = st.integers(-(2**63), 2**64 - 1)
versions = st.builds(
    Version,
    kind=st.sampled_from(VersionKind),
    name=words,
    guid=words,
    order=integers,
    created=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
tokens = st.builds(
    ResumeToken,
    value=st.text(st.characters(min_codepoint=48, max_codepoint=126), min_size=1, max_size=50),
    to_guid=words,
    from_guid=st.none() | words,
    received_bytes=st.none() | st.integers(0, 2**60),
)
problems = st.builds(
    Problem,
    message=texts,
    temporary=st.booleans(),
    local=st.booleans(),
    kind=words,
    hint=st.none() | texts,
)


def tuples(items, max_size=4):
    return st.lists(items, max_size=max_size).map(tuple)


capabilities = st.builds(
    Capabilities,
    stream_formats=st.frozensets(words, max_size=3),
    resumable=st.booleans(),
    nests=st.booleans(),
    clones=st.booleans(),
)
filesystems = st.builds(
    Filesystem,
    name=names,
    versions=tuples(versions),
    cursor=st.none() | versions,
    resume_token=st.none() | tokens,
    origin=st.none() | st.builds(Origin, names, words),
    placeholder=st.booleans(),
    problem=st.none() | problems,
    attributes=st.dictionaries(words, texts, max_size=3),
)
sends = st.builds(
    SendRequest,
    job=words,
    filesystem=names,
    to_version=versions,
    from_version=st.none() | versions,
    intermediates=tuples(versions),
    resume_token=st.none() | tokens,
    origin=st.none() | words,
)
results = st.builds(
    VersionResult,
    filesystem=names,
    name=words,
    version=st.none() | versions,
    problem=st.none() | problems,
    warnings=tuples(texts),
)
MESSAGES = {
    InventoryRequest: st.builds(InventoryRequest, job=words, patterns=tuples(names)),
    Inventory: st.builds(Inventory, capabilities=capabilities, filesystems=tuples(filesystems)),
    SendRequest: sends,
    SizeEstimate: st.builds(SizeEstimate, size_bytes=st.none() | integers),
    SendOpened: st.builds(SendOpened, resumed=st.booleans(), size_bytes=st.none() | integers),
    SendEnded: st.builds(SendEnded),
    ReceiveRequest: st.builds(
        ReceiveRequest,
        job=words,
        filesystem=names,
        to_version=versions,
        from_version=st.none() | versions,
        intermediates=tuples(versions),
        resume_token=st.none() | tokens,
        clear_resume_token=st.booleans(),
        rollback=tuples(versions),
        origin=st.none() | words,
    ),
    ReceiveResponse: st.builds(ReceiveResponse, version=versions, warnings=tuples(texts)),
    CursorRequest: st.builds(
        CursorRequest, job=words, filesystem=names, move_to=st.none() | versions
    ),
    CursorAnswer: st.builds(CursorAnswer, version=st.none() | versions),
    CreateVersionRequest: st.builds(
        CreateVersionRequest, job=words, filesystems=tuples(names), name=words
    ),
    DestroyVersionsRequest: st.builds(
        DestroyVersionsRequest, job=words, filesystem=names, versions=tuples(versions)
    ),
    Results: st.builds(Results, results=tuples(results)),
}


def unpack(cls, pieces):
    *parts, last = pieces
    unpacker = Unpacker(cls)
    for part in parts:
        unpacker.add_part(part)
    return unpacker.finish(last)


def make_version(number=0, **changes):
    fields = {"name": f"snap-{number}", "guid": f"guid-{number}", "order": number, **changes}
    return Version(VersionKind.SNAPSHOT, **fields)


VERSION = make_version()
SEND = SendRequest(job="docs", filesystem="a/b", to_version=VERSION)


def test_every_message_of_every_operation_is_tried_here():
    of_operations = {
        cls for each in OPERATIONS.values() for cls in (each.request_class, each.answer_class)
    }

    assert of_operations | {SendOpened} == set(MESSAGES)


@pytest.mark.parametrize("cls", MESSAGES)
def test_a_message_comes_back_as_it_went(cls):
    @given(MESSAGES[cls])
    @settings(max_examples=60)
    def check(message):
        pieces = list(pack(message))
        assert unpack(cls, pieces) == message
        assert all(piece.isascii() for piece in pieces)

    check()


@given(problems)
def test_a_problem_comes_back_as_it_went(problem):
    assert decode(Problem, load_json(dump_json(encode(problem)))) == problem


def test_what_has_its_default_is_left_out():
    (piece,) = pack(SEND)

    assert piece == (
        b'{"job":"docs","filesystem":"a/b","to_version":'
        b'{"kind":"snapshot","name":"snap-0","guid":"guid-0","order":0}}'
    )


def test_long_lists_travel_in_bounded_parts():
    message = attrs.evolve(SEND, intermediates=tuple(map(make_version, range(20_000))))

    pieces = list(pack(message))

    assert len(pieces) > 3
    assert max(map(len, pieces)) < PIECE_BYTES + 1000
    assert unpack(SendRequest, pieces) == message


def test_a_filesystem_with_very_many_versions_is_divided():
    many = Filesystem(name="a", versions=tuple(map(make_version, range(30_000))))
    few = Filesystem(name="b", versions=(VERSION,))
    message = Inventory(
        capabilities=Capabilities(stream_formats=frozenset({"tar"})),
        filesystems=(few, many, few, attrs.evolve(many, name="c")),
    )

    pieces = list(pack(message))

    assert max(map(len, pieces)) < PIECE_BYTES + 1000
    assert unpack(Inventory, pieces) == message


def test_the_worst_items_stay_below_the_limit_of_a_frame():
    worst = "\udc80" * 256
    version = Version(VersionKind.BOOKMARK, worst, worst, 2**64 - 1, 1.2345678901234567e300)
    filesystem = Filesystem(
        name=worst,
        versions=(version,) * 1000,
        cursor=version,
        resume_token=ResumeToken("x" * 65536, worst, worst, 2**63),
        attributes={worst[:250] + str(n): worst * 10 for n in range(100)},
    )
    problem = Problem(message=worst * 50, temporary=True, local=True, hint=worst * 50)
    result = VersionResult(
        filesystem=worst, name=worst, version=version, problem=problem, warnings=(worst * 50,) * 99
    )
    inventory = Inventory(
        capabilities=Capabilities(stream_formats=frozenset({"x"})), filesystems=(filesystem,) * 3
    )

    for message in (inventory, Results((result,) * 3)):
        assert max(map(len, pack(message))) <= PART_LIMIT_BYTES


def test_of_many_warnings_the_first_travel_and_the_rest_are_counted():
    result = VersionResult(filesystem="a", name="b", warnings=tuple(map(str, range(40))))

    (read,) = unpack(Results, list(pack(Results((result,))))).results

    assert read.warnings == (*map(str, range(15)), "and 25 more warnings")


BAD_NAMES = [
    "",
    "/a",
    "a/",
    "a//b",
    "..",
    "a/../b",
    "./a",
    "-a",
    "a/-b",
    "a@b",
    "a#b",
    "a\0b",
    "a\nb",
]
BAD_WORDS = ["", ".", "..", "-a", "a/b", "a@b", "a#b", "a\0", "a\x1b", "\x85", "a" * 257]


@pytest.mark.parametrize("name", [*BAD_NAMES, "a" * 1025])
def test_a_bad_filesystem_name_crosses_in_neither_direction(name):
    with pytest.raises(InvalidRequestError):
        list(pack(attrs.evolve(SEND, filesystem=name)))
    with pytest.raises(InvalidRequestError):
        unpack(SendRequest, [dump_json({**encode(SEND), "filesystem": name})])
    with pytest.raises(InvalidRequestError):
        unpack(
            Inventory,
            [dump_json({"field": "filesystems", "items": [{"name": name}]}), b"{}"],
        )


@pytest.mark.parametrize("word", BAD_WORDS)
@pytest.mark.parametrize("key", ["name", "guid"])
def test_a_bad_version_crosses_in_neither_direction(word, key):
    with pytest.raises(InvalidRequestError):
        encode(make_version(**{key: word}))
    with pytest.raises(InvalidRequestError):
        decode(Version, {**encode(VERSION), key: word})


@pytest.mark.parametrize("value", ["", "-x", "a\nb", "é", "x" * 65537])
def test_a_token_that_no_storage_makes_is_refused_without_repeating_it(value):
    with pytest.raises(InvalidRequestError) as caught:
        decode(ResumeToken, {"value": value, "to_guid": "g"})

    assert "x" * 20 not in str(caught.value)


def test_texts_are_bounded_and_cannot_drive_a_terminal():
    text = "start\x1b[2J\r" + "x" * 10_000 + "end\nline\t."

    clean = encode(Problem(message=text, temporary=True, local=True))["message"]

    assert clean.startswith("start\ufffd[2J\ufffd")
    assert clean.endswith("end\nline\t.")
    assert len(clean) <= TEXT_LIMIT
    assert decode(Problem, {"message": text, "temporary": True, "local": True}).message == clean


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"novelty": 1}, "'novelty' is not known"),
        ({"job": 5}, "job: expected a string, not a number"),
        ({"job": None}, "job: expected a string, not null"),
        ({"to_version": []}, "to_version: expected an object, not a list"),
        ({"to_version": {"kind": "snapshot"}}, "to_version: guid is missing"),
        ({"intermediates": {}}, "intermediates: expected a list, not an object"),
        ({"intermediates": [5]}, "intermediates: expected an object, not a number"),
    ],
)
def test_a_wrong_structure_is_refused_and_says_where(changes, complaint):
    with pytest.raises(WireError, match="a send request that cannot be read") as caught:
        unpack(SendRequest, [dump_json({**encode(SEND), **changes})])

    assert complaint in caught.value.message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "folder"}, "kind: expected one of snapshot, bookmark, not a string"),
        ({"kind": ["snapshot"]}, "kind"),
        ({"order": True}, "order: expected an integer, not true or false"),
        ({"order": 1.0}, "order: expected an integer"),
        ({"order": 2**64}, "order: the integer has more than 64 bits"),
        ({"created": "now"}, "created: expected a finite number, not a string"),
    ],
)
def test_a_wrong_version_is_refused_and_says_where(changes, complaint):
    with pytest.raises(MalformedError, match=complaint.replace(".", r"\.")):
        decode(Version, {**encode(VERSION), **changes})


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000])
def test_numbers_that_are_none_are_refused(text):
    body = dump_json(encode(VERSION))[:-1] + b',"created":' + text + b"}"

    with pytest.raises(MalformedError):
        decode(Version, load_json(body))


@pytest.mark.parametrize(
    "part",
    [
        b"[]",
        b"{}",
        b'{"field":"intermediates","items":[]}',
        b'{"field":"intermediates","items":[1]}',
        b'{"field":"intermediates","items":"x"}',
        b'{"field":"rollback","items":[1]}',
        b'{"field":["intermediates"],"items":[1]}',
        b'{"field":"versions","items":[1]}',
        b'{"field":"intermediates","items":[1],"more":1}',
    ],
)
def test_a_part_that_does_not_belong_is_refused(part):
    with pytest.raises(WireError, match="cannot be read"):
        Unpacker(SendRequest).add_part(part)


@pytest.mark.parametrize("body", [b"[]", b"5", b"null", b'"x"', b"{]", b"", b"\xff"])
@pytest.mark.parametrize("cls", MESSAGES)
def test_a_message_that_is_no_object_is_refused(cls, body):
    with pytest.raises(WireError, match="cannot be read"):
        Unpacker(cls).finish(body)


def test_versions_belong_to_a_filesystem():
    part = dump_json({"field": "versions", "items": [encode(VERSION)]})

    with pytest.raises(WireError, match="before any filesystem"):
        Unpacker(Inventory).add_part(part)


def test_collections_that_are_only_shown_are_bounded():
    filesystem = Filesystem(name="a", attributes={f"k{n}": "v" for n in range(100)})

    assert len(encode(filesystem)["attributes"]) == 64
    with pytest.raises(MalformedError, match="100 keys"):
        decode(Filesystem, {"name": "a", "attributes": {f"k{n}": "v" for n in range(100)}})
    with pytest.raises(MalformedError, match="100 members"):
        decode(Capabilities, {"stream_formats": [str(n) for n in range(100)]})


ERROR_CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("cls", [*ERROR_CLASSES, WireError])
@pytest.mark.parametrize("temporary", [True, False])
@pytest.mark.parametrize("local", [True, False])
def test_an_error_arrives_as_its_own_class_with_its_facts(cls, temporary, local):
    problem = Problem(
        message="what happened", temporary=temporary, local=local, kind=cls.kind, hint="do this"
    )

    error = make_error(problem)

    assert type(error) is cls
    assert (error.message, error.hint) == ("what happened", "do this")
    assert (error.temporary, error.local) == (temporary, local)


def test_an_error_of_an_unknown_kind_keeps_its_facts():
    error = make_error(Problem(message="m", temporary=True, local=True, kind="invented-later"))

    assert type(error) is FsrepError
    assert (error.temporary, error.local) == (True, True)


ODD = [None, True, -1, 2**70, 0.5, "", "..", "x", [], [None], [[]], {}, {"name": 1}, {"": []}]


@given(st.sampled_from(list(MESSAGES)), st.data())
def test_nothing_but_a_typed_error_comes_of_a_damaged_message(cls, data):
    pieces = list(pack(data.draw(MESSAGES[cls])))
    fields = json.loads(pieces[-1])
    for _ in range(data.draw(st.integers(1, 3))):
        place = fields
        key = data.draw(st.sampled_from([*fields, "filesystem", "name"]))
        if isinstance(place.get(key), dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            key = data.draw(st.sampled_from(list(place)))
        place[key] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    damaged = json.dumps(fields).encode()
    with suppress(WireError, InvalidRequestError):
        assert isinstance(unpack(cls, [*pieces[:-1], damaged]), cls)
