"""JSON as the wire writes it: ASCII, compact, only finite numbers, never a surprise."""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["MalformedError", "dump_json", "dump_json_text", "is_printable", "load_json"]


class MalformedError(Exception):
    """What was read is not as the wire has it. Becomes a ``WireError`` that says where."""


_encode = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def dump_json_text(value: Any) -> str:  # noqa: ANN401  (whatever JSON can say)
    """Write a value.

    Characters beyond ASCII are escaped, also the lone surrogates with which Python keeps
    the bytes of a name that is not UTF-8.

    :raises ValueError: JSON cannot say it
    """
    try:
        return _encode(value)
    except TypeError as error:
        raise ValueError(str(error)) from error


def dump_json(value: Any) -> bytes:  # noqa: ANN401  (whatever JSON can say)
    """Write a value as bytes. See :func:`dump_json_text`."""
    return dump_json_text(value).encode("ascii")


def load_json(data: bytes) -> Any:  # noqa: ANN401  (whatever JSON can say)
    """Read a value.

    :raises MalformedError: it is not JSON, holds ``NaN`` or infinities, or is nested
        deeper than the machine can read
    """
    try:
        return json.loads(data.decode("ascii"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedError("it is not JSON in ASCII") from None
    except RecursionError:
        raise MalformedError("it is nested too deeply") from None
    except ValueError as error:
        raise MalformedError(f"it is not JSON: {error}") from None


def is_printable(text: str) -> bool:
    """Tell whether a text holds no control character: nothing a terminal would obey."""
    return text.isprintable() or not any(each < " " or "\x7f" <= each < "\xa0" for each in text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
