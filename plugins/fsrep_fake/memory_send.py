"""What the memory storage sends: a request becomes a stream, or a refusal."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs

from fsrep_core import (
    InvalidRequestError,
    ResumeToken,
    StaleTokenError,
    VersionMissingError,
)
from fsrep_fake.content import NOTHING, Generated, Literal, changes_since
from fsrep_fake.memory_stream import FORMAT, Header, MemoryStream
from fsrep_fake.stores import Mark

if TYPE_CHECKING:
    from fsrep_core import SendRequest
    from fsrep_fake.content import Change, Content
    from fsrep_fake.stores import MemoryFilesystem, Partial

__all__ = ["Opened", "make_token", "open_stream"]


@attrs.frozen
class Opened:
    """A stream that can be read, and the versions that must stay while it is."""

    stream: MemoryStream
    ends: tuple[Mark, ...]


def open_stream(
    request: SendRequest, chain: MemoryFilesystem | None, *, from_token: bool
) -> Opened:
    """Make the stream of a request.

    :param chain: the filesystem; ``None`` = there is none of that name
    :param from_token: go on from the request's resume token, if there is one
    :raises VersionMissingError: a version of the request is gone
    :raises InvalidRequestError: the versions do not follow from each other
    :raises StaleTokenError: the token means something else than the request
    """
    base, marks = _find_versions(request, chain)
    legs = []
    before = base
    for mark in marks:
        legs.append(_changes(request, before, mark))
        before = mark
    headers = [
        _header(mark, [base, *marks][index], changes, following=len(marks) - 1 - index)
        for index, (mark, changes) in enumerate(zip(marks, legs, strict=True))
    ]
    offset = _token_offset(request, headers) if from_token and request.resume_token else 0
    headers[0] = attrs.evolve(headers[0], offset=offset)
    parts: list[tuple[Content, int]] = []
    for header, changes in zip(headers, legs, strict=True):
        parts.append((Literal(header.encode()), 0))
        for change in changes:
            skipped = min(offset, change.content.size_bytes)
            parts.append((change.content, skipped))
            offset -= skipped
    ends = (marks[-1],) if base is None else (base, marks[-1])
    return Opened(MemoryStream(parts), ends)


def make_token(partial: Partial) -> ResumeToken:
    """Give the token that lets a sender go on where a partial receive stands."""
    header = partial.header
    return ResumeToken(
        value=f"{FORMAT}:{partial.offset}:{_check(header, partial.offset)}",
        to_guid=header.guid,
        from_guid=header.from_guid,
        received_bytes=partial.offset,
    )


def _find_versions(
    request: SendRequest, chain: MemoryFilesystem | None
) -> tuple[Mark | None, list[Mark]]:
    marks = []
    for version in (request.from_version, *request.intermediates, request.to_version):
        if version is None:
            continue
        mark = chain.find(version) if chain else None
        if mark is None:
            raise VersionMissingError(
                f"sending {request.filesystem}: {version.relative_name} "
                f"(guid {version.guid}) does not exist",
                hint="plan again",
            )
        marks.append(mark)
    return (None, marks) if request.from_version is None else (marks[0], marks[1:])


def _changes(request: SendRequest, before: Mark | None, mark: Mark) -> tuple[Change, ...]:
    changes = changes_since(before.change if before else NOTHING, mark.change)
    if changes is None or (before and before.version.order >= mark.version.order):
        raise InvalidRequestError(
            f"sending {request.filesystem}{mark.version.relative_name}: it does not follow "
            f"from {before.version.relative_name if before else 'nothing'}"
        )
    return changes


def _header(
    mark: Mark, before: Mark | None, changes: tuple[Change, ...], *, following: int
) -> Header:
    contents = [change.content for change in changes]
    return Header(
        guid=mark.version.guid,
        from_guid=before.version.guid if before else None,
        created=mark.version.created,
        pieces=tuple(
            (content.size_bytes, content.seed if isinstance(content, Generated) else None)
            for content in contents
        ),
        digest=mark.change.digest,
        following=following,
    )


def _token_offset(request: SendRequest, headers: list[Header]) -> int:
    """Check the request's resume token; give the byte of its version to begin with."""
    token = request.resume_token
    header = headers[0]
    if token is not None and len(headers) == 1:
        name, _, rest = token.value.partition(":")
        digits, _, check = rest.partition(":")
        offset = int(digits) if digits.isdecimal() else -1
        said = name, token.from_guid, token.to_guid, check
        meant = FORMAT, header.from_guid, header.guid, _check(header, offset)
        if said == meant and 0 <= offset <= header.size_bytes:
            return offset
    raise StaleTokenError(
        f"sending {request.filesystem}{request.to_version.relative_name}: "
        "the resume token does not mean this step",
        hint="discard the partial receive",
    )


def _check(header: Header, offset: int) -> str:
    """Bind a token to one stream and one byte of it, so that a changed one is noticed."""
    meant = f"{header.from_guid}/{header.guid}/{header.digest}/{offset}"
    return hashlib.sha256(meant.encode()).hexdigest()[:16]
