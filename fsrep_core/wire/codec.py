"""The contract's values as JSON, strictly.

Each class of :mod:`fsrep_core.values` that travels is an object with a key for each
field, in the field's name; a field that has its default is left out. Enums travel as
their values, tuples and sets as lists. Reading is strict, since both sides have agreed
on one version of the wire: an unknown or missing key, a wrong type, a number out of
bounds is an error that says where it stands. ``1`` is a number where one is asked for,
``true`` never is.

Every string has a rule (:data:`_RULES`), which is checked in both directions; a class
whose strings have none cannot be compiled. Readers are compiled once for each class:
this runs a million times for an inventory of a million versions.
"""

from __future__ import annotations

import enum
import itertools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import attrs

from fsrep_core.values import (
    Capabilities,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    Filesystem,
    InventoryRequest,
    Origin,
    Problem,
    ReceiveRequest,
    ReceiveResponse,
    ResumeToken,
    SendRequest,
    Version,
    VersionResult,
)
from fsrep_core.wire.names import (
    ATTRIBUTE_LIMIT,
    check_filesystem_name,
    check_opaque,
    check_pattern,
    check_word,
    clean_text,
)
from fsrep_core.wire.text import MalformedError

__all__ = ["decode", "decode_items", "encode", "item_writer"]

T = TypeVar("T")
Reader = Callable[[Any], Any]
Rule = Callable[[str], str]

INTEGER_BITS = 64
ATTRIBUTES_LIMIT = 64
FORMATS_LIMIT = 64
WORD_SHOWN = 40

_job = partial(check_word, "name of the job")
_version_name = partial(check_word, "name of a version")
_guid = partial(check_word, "guid of a version")
_format = partial(check_word, "name of a stream format")
_kind = partial(check_word, "kind of an error")

_RULES: Mapping[tuple[type[Any], str], Rule] = types.MappingProxyType(
    {
        (Version, "name"): _version_name,
        (Version, "guid"): _guid,
        (ResumeToken, "value"): partial(check_opaque, "resume token"),
        (ResumeToken, "to_guid"): _guid,
        (ResumeToken, "from_guid"): _guid,
        (Capabilities, "stream_formats"): _format,
        (Filesystem, "name"): check_filesystem_name,
        (Filesystem, "attributes"): partial(clean_text, limit=ATTRIBUTE_LIMIT),
        (Origin, "filesystem"): check_filesystem_name,
        (Origin, "guid"): _guid,
        (InventoryRequest, "job"): _job,
        (InventoryRequest, "patterns"): check_pattern,
        (SendRequest, "job"): _job,
        (SendRequest, "filesystem"): check_filesystem_name,
        (SendRequest, "origin"): _guid,
        (ReceiveRequest, "job"): _job,
        (ReceiveRequest, "filesystem"): check_filesystem_name,
        (ReceiveRequest, "origin"): _guid,
        (ReceiveResponse, "warnings"): clean_text,
        (CursorRequest, "job"): _job,
        (CursorRequest, "filesystem"): check_filesystem_name,
        (CreateVersionRequest, "job"): _job,
        (CreateVersionRequest, "filesystems"): check_filesystem_name,
        (CreateVersionRequest, "name"): _version_name,
        (DestroyVersionsRequest, "job"): _job,
        (DestroyVersionsRequest, "filesystem"): check_filesystem_name,
        (VersionResult, "filesystem"): check_filesystem_name,
        (VersionResult, "name"): _version_name,
        (VersionResult, "warnings"): clean_text,
        (Problem, "message"): clean_text,
        (Problem, "kind"): _kind,
        (Problem, "hint"): clean_text,
    }
)
"""What each string must be. A collection's rule holds for each of its strings."""


@attrs.frozen
class _Form:
    """How values of one type stand on the wire: the way there and the way back."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def encode(value: Any) -> Any:  # noqa: ANN401  (any value that travels, to whatever JSON can say)
    """Give a value as JSON can say it.

    :raises InvalidRequestError: a string of it may not cross the wire
    """
    return _form(type(value)).write(value)


def decode(cls: type[T], raw: Any) -> T:  # noqa: ANN401  (as JSON gave it)
    """Make a value from what JSON said.

    :raises MalformedError: it is not as the class has it; says where
    :raises InvalidRequestError: it holds a name that may not cross the wire
    """
    return typing.cast("T", _form(cls).read(raw))


def item_writer(cls: type[Any], field: str) -> Callable[[Any], Any]:
    """Give what writes one item of a class's tuple. Raises as :func:`encode`."""
    return _item_form(cls, field).write


def decode_items(cls: type[Any], field: str, raw: Any) -> tuple[Any, ...]:  # noqa: ANN401  (as JSON gave it)
    """Read items of a class's tuple that travelled without the rest. Raises as :func:`decode`."""
    return _read_list(_item_form(cls, field).read, raw)


_compiled_items: dict[tuple[type[Any], str], _Form] = {}


def _item_form(cls: type[Any], field: str) -> _Form:
    """Give the form of one item of a class's tuple, compiled when it is first asked for."""
    form = _compiled_items.get((cls, field))
    if form is None:
        (item_hint, _) = typing.get_args(_hints(cls)[field])
        form = _compiled_items[cls, field] = _field_form(item_hint, (cls, field))
    return form


def _hints(cls: type[Any]) -> Mapping[str, Any]:
    # The classes that travel import the types of their fields when they run.
    return typing.get_type_hints(cls)


_compiled: dict[type[Any], _Form] = {}


def _form(cls: type[Any]) -> _Form:
    """Give the form of a class, compiled when it is first asked for."""
    form = _compiled.get(cls)
    if form is None:
        form = _compiled[cls] = _compile(cls)
    return form


def _compile(cls: type[Any]) -> _Form:
    hints = _hints(cls)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    forms = {field.name: _field_form(hints[field.name], (cls, field.name)) for field in fields}
    defaults = {field.name: _default_of(field) for field in fields}
    return _Form(
        write=partial(_write_object, [(name, defaults[name], forms[name].write) for name in forms]),
        read=partial(
            _read_object,
            cls,
            {name: form.read for name, form in forms.items()},
            frozenset(name for name, default in defaults.items() if default is attrs.NOTHING),
        ),
    )


def _default_of(field: attrs.Attribute[Any]) -> object:
    factory = getattr(field.default, "factory", None)
    return field.default if factory is None else factory()


def _field_form(hint: Any, key: tuple[type[Any], str]) -> _Form:  # noqa: ANN401  (a type)
    """Compile the form of one field of a class."""
    if hint is str:
        return _Form(write=_RULES[key], read=partial(_read_string, _RULES[key]))
    if hint in _SCALARS:
        return _Form(write=_as_it_is, read=_SCALARS[hint])
    if isinstance(hint, type) and attrs.has(hint):
        return _form(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        members = {member.value: member for member in hint}
        return _Form(write=_value_of, read=partial(_read_enum, members))
    return _generic_form(hint, key)


def _generic_form(hint: Any, key: tuple[type[Any], str]) -> _Form:  # noqa: ANN401  (a type)
    origin = typing.get_origin(hint)
    if origin is Mapping:
        rule = _RULES[key]
        return _Form(write=partial(_write_mapping, rule), read=partial(_read_mapping, rule))
    inner_hint = next(each for each in typing.get_args(hint) if each is not type(None))
    inner = _field_form(inner_hint, key)
    if origin is tuple:
        return _Form(
            write=lambda items: [inner.write(item) for item in items],
            read=partial(_read_list, inner.read),
        )
    if origin is frozenset:
        return _Form(
            write=lambda items: sorted(inner.write(item) for item in items),
            read=partial(_read_set, inner.read),
        )
    # Optional: ``None`` is the default wherever it is allowed, and so is never written.
    return _Form(write=inner.write, read=lambda raw: None if raw is None else inner.read(raw))


# --- writing -------------------------------------------------------------------------------


def _write_object(
    steps: Sequence[tuple[str, object, Callable[[Any], Any]]], value: object
) -> dict[str, Any]:
    written = {}
    for name, default, write in steps:
        item = getattr(value, name)
        if item != default:
            written[name] = write(item)
    return written


def _write_mapping(rule: Rule, items: Mapping[str, str]) -> dict[str, str]:
    # What is shown of a filesystem is never decided upon: the first ones are enough.
    few = itertools.islice(items.items(), ATTRIBUTES_LIMIT)
    return {rule(name): rule(item) for name, item in few}


def _as_it_is(item: Any) -> Any:  # noqa: ANN401  (what JSON can say)
    return item


def _value_of(item: enum.Enum) -> Any:  # noqa: ANN401  (what JSON can say)
    return item.value


# --- reading -------------------------------------------------------------------------------


def _read_object(
    cls: Callable[..., object],
    readers: Mapping[str, Reader],
    required: frozenset[str],
    raw: Any,  # noqa: ANN401  (as JSON gave it)
) -> object:
    if type(raw) is not dict:
        _wrong("an object", raw)
    if not required <= raw.keys():
        raise MalformedError(f"{min(required - raw.keys())} is missing")
    values = {}
    for name, item in raw.items():
        read = readers.get(name)
        if read is None:
            raise MalformedError(f"{name[:WORD_SHOWN]!r} is not known")
        try:
            values[name] = read(item)
        except MalformedError as error:
            raise MalformedError(f"{name}: {error}") from None
    return cls(**values)


def _read_list(read_item: Reader, raw: Any) -> tuple[Any, ...]:  # noqa: ANN401  (as JSON gave it)
    if type(raw) is not list:
        _wrong("a list", raw)
    return tuple([read_item(item) for item in raw])


def _read_set(read_item: Reader, raw: Any) -> frozenset[Any]:  # noqa: ANN401  (as JSON gave it)
    items = _read_list(read_item, raw)
    if len(items) > FORMATS_LIMIT:
        raise MalformedError(f"it has {len(items)} members, more than {FORMATS_LIMIT}")
    return frozenset(items)


def _read_mapping(rule: Rule, raw: Any) -> dict[str, str]:  # noqa: ANN401  (as JSON gave it)
    if type(raw) is not dict:
        _wrong("an object", raw)
    if len(raw) > ATTRIBUTES_LIMIT:
        raise MalformedError(f"it has {len(raw)} keys, more than {ATTRIBUTES_LIMIT}")
    return {rule(name): _read_string(rule, item) for name, item in raw.items()}


def _read_string(rule: Rule, raw: Any) -> str:  # noqa: ANN401  (as JSON gave it)
    if type(raw) is not str:
        _wrong("a string", raw)
    return rule(raw)


def _read_enum(members: Mapping[Any, enum.Enum], raw: Any) -> enum.Enum:  # noqa: ANN401  (as JSON gave it)
    member = members.get(raw) if type(raw) is str else None
    if member is None:
        _wrong(f"one of {', '.join(members)}", raw)
    return member


def _read_integer(raw: Any) -> int:  # noqa: ANN401  (as JSON gave it)
    if type(raw) is not int:
        _wrong("an integer", raw)
    if raw.bit_length() > INTEGER_BITS:
        raise MalformedError(f"the integer has more than {INTEGER_BITS} bits")
    return raw


def _read_number(raw: Any) -> float:  # noqa: ANN401  (as JSON gave it)
    if type(raw) is int:
        return float(_read_integer(raw))
    if type(raw) is not float or not math.isfinite(raw):
        _wrong("a finite number", raw)
    return raw


def _read_boolean(raw: Any) -> bool:  # noqa: ANN401  (as JSON gave it)
    if type(raw) is not bool:
        _wrong("true or false", raw)
    return raw


_SCALARS: Mapping[Any, Reader] = types.MappingProxyType(
    {int: _read_integer, float: _read_number, bool: _read_boolean}
)


def _wrong(wanted: str, raw: object) -> NoReturn:
    raise MalformedError(f"expected {wanted}, not {_name_of(raw)}")


def _name_of(raw: object) -> str:
    """Name what JSON gave, without repeating it: it may be long, or secret."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if raw is None else names.get(type(raw), "a number")
