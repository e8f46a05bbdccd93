"""Which names may cross the wire, in either direction.

Names become parts of paths and arguments of commands at the other end, so each is
checked where it comes out of the wire: a server checks what clients ask for, a client
what servers list. What passes here cannot leave a root, be taken for an option, hide
one thing in another, or write to a terminal.
"""

from __future__ import annotations

import re

from fsrep_core.errors import InvalidRequestError
from fsrep_core.wire.text import is_printable

__all__ = [
    "check_filesystem_name",
    "check_opaque",
    "check_pattern",
    "check_word",
    "clean_text",
]

NAME_LIMIT = 1024
WORD_LIMIT = 256
PATTERN_LIMIT = 4096
OPAQUE_LIMIT = 1 << 16
TEXT_LIMIT = 4096
ATTRIBUTE_LIMIT = 256
_GOOD_WORD = re.compile(rf"(?!-|\.\.?\Z)[^/@#\x00-\x1f\x7f-\x9f]{{1,{WORD_LIMIT}}}")
"""What :func:`check_word` takes, in one look: a large inventory asks a million times."""
_LEFT_OUT = " […] "


def check_filesystem_name(name: str) -> str:
    """Give the name of a filesystem back, if it is one.

    :raises InvalidRequestError: it is absolute, too long, begins with ``-``, has an empty,
        ``.`` or ``..`` component, or holds ``@``, ``#`` or a control character
    """
    _check_size("filesystem name", name, NAME_LIMIT)
    if name.startswith("/"):
        raise _refusal("filesystem name", name, "is absolute")
    for component in name.split("/"):
        if component in {"", ".", ".."}:
            raise _refusal("filesystem name", name, f"has the component {component!r}")
        if component.startswith("-"):
            raise _refusal("filesystem name", name, "has a component that begins with '-'")
    _check_characters("filesystem name", name, "@#")
    return name


def check_word(what: str, word: str) -> str:
    """Give back a name that has no components: of a version or a job, or a guid.

    :raises InvalidRequestError: it is empty, too long, ``.`` or ``..``, begins with
        ``-``, or holds ``/``, ``@``, ``#`` or a control character
    """
    if _GOOD_WORD.fullmatch(word):
        return word
    _check_size(what, word, WORD_LIMIT)
    if word in {".", ".."} or word.startswith("-"):
        raise _refusal(what, word, "could be taken for something else")
    _check_characters(what, word, "/@#")
    return word


def check_pattern(pattern: str) -> str:
    """Give back what may be a pattern of filesystem names; planning knows its grammar.

    :raises InvalidRequestError: it is empty, too long, or holds a control character
    """
    _check_size("pattern", pattern, PATTERN_LIMIT)
    _check_characters("pattern", pattern, "")
    return pattern


def check_opaque(what: str, value: str) -> str:
    """Give back a value that only its maker understands, such as a resume token.

    :raises InvalidRequestError: it is too long, begins with ``-``, or holds
        anything but printable ASCII. The message does not repeat it.
    """
    if not 0 < len(value) <= OPAQUE_LIMIT or value.startswith("-") or not _is_token(value):
        raise InvalidRequestError(f"the {what} is not one that a storage makes")
    return value


def clean_text(text: str, *, limit: int = TEXT_LIMIT) -> str:
    """Give words for people as they may be shown: bounded, and free of what terminals obey.

    A text that is too long keeps its start and its end. Line ends and tabs stay.
    """
    if len(text) > limit:
        half = (limit - len(_LEFT_OUT)) // 2
        text = text[:half] + _LEFT_OUT + text[-half:]
    if is_printable(text):
        return text
    return "".join(each if each in "\n\t" or is_printable(each) else "\ufffd" for each in text)


def _check_size(what: str, name: str, limit: int) -> None:
    if not name:
        raise InvalidRequestError(f"the {what} is empty")
    if len(name) > limit:
        raise InvalidRequestError(
            f"the {what} {name[:40]!r}… has {len(name)} characters, more than {limit}"
        )


def _check_characters(what: str, name: str, forbidden: str) -> None:
    held = next((each for each in forbidden if each in name), None)
    if held is not None:
        raise _refusal(what, name, f"holds {held!r}")
    if not is_printable(name):
        raise _refusal(what, name, "holds a control character")


def _refusal(what: str, name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the {what} {name!r} {why}", hint=f"such a {what} cannot be used across hosts"
    )


def _is_token(value: str) -> bool:
    return value.isascii() and value.isprintable()
