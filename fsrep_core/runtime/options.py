"""From plain tables, as TOML gives them, to the attrs classes that declare options.

One reader serves the configuration file and the options of every plugin. The rules:

* A class's fields are its keys (a field's ``alias``, where it has one). A key that is no
  field is a mistake, and so is a missing key whose field has no default.
* Types are exact: ``"5"`` is no number and ``1`` is not ``true``. A field may be a
  string, integer, number, boolean, absolute :class:`~pathlib.Path`, enum (by value),
  ``Literal``, optional, tuple, list, frozenset or mapping of these, or an attrs class.
* ``metadata={"parse": parse_size}`` makes an option a string that this function reads:
  :func:`~fsrep_core.quantities.parse_size`, ``parse_rate`` and ``parse_duration``, or any
  that raises ``ValueError`` with advice. An attrs converter gets the plain value.
* A field with ``metadata={"rest": True}`` takes all keys that no other field takes.
* Every mistake is collected; none hides another. A value is never repeated where its
  field is declared ``repr=False``: it may be a secret.

This is our own reader, not cattrs, for two reasons that were measured: exact types and
exact messages would need a hook for each type and a second walk over its nested errors,
which is as long as this; and its import adds 40 ms to the start of every command.
"""

from __future__ import annotations

import difflib
import enum
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import attrs

from fsrep_core.errors import ConfigError, PluginError
from fsrep_core.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Mistake", "OptionsError", "describe_type", "nearest", "structure_options"]

T = TypeVar("T")


@attrs.frozen(repr=False)
class Mistake(Shown):
    """One thing that is wrong, where, and what to do about it."""

    key: str
    """The path of the key, dots between the tables."""
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        parts = [part for part in (self.key, self.message) if part]
        return ": ".join(parts) + (f"; {self.remedy}" if self.remedy else "")

    def within(self, where: str) -> Mistake:
        """The same mistake, seen from the table that holds this one."""
        joint = "." if where and self.key and not self.key.startswith("[") else ""
        return attrs.evolve(self, key=f"{where}{joint}{self.key}")


class OptionsError(ConfigError):
    """Options cannot be used; :attr:`mistakes` says all that is wrong with them."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))

    def within(self, where: str) -> OptionsError:
        """The same mistakes, seen from the table that holds this one."""
        return OptionsError(mistake.within(where) for mistake in self.mistakes)


def structure_options(config_class: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Make an instance of an attrs class from a plain table.

    :param where: names the table in messages, such as ``"sender.storage"``
    :raises OptionsError: one or more options are wrong; all of them are listed
    :raises PluginError: the class declares a field that cannot be read from a file
    """
    try:
        return _structure(config_class, mapping)
    except OptionsError as exc:
        raise exc.within(where) from None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Advise on a word that is not known: the nearest one, or all where they are few."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(sorted(known))}" if known else None


def describe_type(field: attrs.Attribute[Any], hint: object) -> str:
    """Say in a few words what a field takes, for messages and documentation."""
    parse = field.metadata.get("parse")
    if parse is not None:
        return str(parse.__name__).removeprefix("parse_")
    return _describe(hint)


def _wrong(message: str, remedy: str | None = None) -> NoReturn:
    raise OptionsError([Mistake("", message, remedy)])


# --- a table -----------------------------------------------------------------------------


def _structure(config_class: type[T], mapping: object) -> T:
    if not isinstance(mapping, Mapping):
        _wrong(f"expected a table, not {_name_of(mapping)}")
    declared = attrs.fields(typing.cast("Any", config_class))
    fields = {_key_of(field): field for field in declared if field.init}
    rest = next((key for key, field in fields.items() if field.metadata.get("rest")), None)
    hints = _hints(config_class)
    values: dict[str, Any] = {}
    converted: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    others = {key: value for key, value in mapping.items() if key not in fields or key == rest}
    if rest is not None:
        values[rest] = others
    else:
        mistakes += [_unknown(str(key), fields) for key in others]
    for key, field in fields.items():
        if key == rest:
            continue
        if key in mapping:
            try:
                values[key], converted[key] = _field_value(field, hints[field.name], mapping[key])
            except OptionsError as exc:
                mistakes += exc.within(key).mistakes
        elif field.default is attrs.NOTHING:
            kind = describe_type(field, hints[field.name])
            mistakes.append(Mistake(key, "missing", f"it is required and takes {kind}"))
    mistakes += _refusals(fields, converted)
    if not mistakes:
        try:
            return config_class(**values)
        except _REFUSALS as exc:
            mistakes.append(_mistake_of(exc))
    raise OptionsError(mistakes)


def _unknown(key: str, fields: Mapping[str, object]) -> Mistake:
    return Mistake(key, "unknown key", nearest(key, fields) or "no key is known here")


def _key_of(field: attrs.Attribute[Any]) -> str:
    return field.alias or field.name.lstrip("_")


def _hints(config_class: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(config_class)
    except NameError as exc:
        raise PluginError(
            f"the options of {config_class.__qualname__} cannot be read: {exc}",
            hint="its module must import the types of its fields when it runs, "
            "not only under TYPE_CHECKING",
        ) from exc


def _field_value(field: attrs.Attribute[Any], hint: object, value: object) -> tuple[object, object]:
    """Give a value as the class takes it, and as the class will keep it."""
    parse: Callable[[str], object] | None = field.metadata.get("parse")
    try:
        if parse is not None:
            read = _parsed(parse, value)
        elif field.converter is not None:
            return value, _converted(field.converter, hint, value)
        else:
            read = _value(hint, value)
    except OptionsError as exc:
        if field.repr is False:
            raise OptionsError(
                attrs.evolve(each, message=f"expected {describe_type(field, hint)}")
                for each in exc.mistakes
            ) from None
        raise
    return read, read


def _converted(converter: Any, hint: object, value: object) -> object:  # noqa: ANN401  (a callable, or attrs.Converter)
    """See what a converter makes of a value; the class will convert it again.

    :returns: ``attrs.NOTHING`` where only the class can tell
    """
    if isinstance(converter, attrs.Converter):
        return attrs.NOTHING
    try:
        return converter(value)
    except Exception as exc:
        _value(hint, value)  # says better what is wrong, where it is the type
        if not isinstance(exc, _REFUSALS):
            raise
        raise OptionsError([_mistake_of(exc)]) from exc


def _parsed(parse: Callable[[str], object], value: object) -> object:
    what = parse.__name__.removeprefix("parse_")
    if not isinstance(value, str):
        _wrong(f"expected a {what} as a string, not {_name_of(value)}", _advice(parse))
    try:
        return parse(value)
    except ValueError as exc:
        _wrong(f'"{value}" is no {what} that fsrep can read', str(exc))


def _advice(parse: Callable[[str], object]) -> str | None:
    try:
        parse("")
    except ValueError as exc:
        return str(exc)
    return None


_REFUSALS = (ValueError, TypeError, ConfigError)
"""What the converters and validators of a class may raise."""


def _refusals(
    fields: Mapping[str, attrs.Attribute[Any]], values: Mapping[str, Any]
) -> list[Mistake]:
    """Ask every validator, since the class itself stops at the first that refuses."""
    stand_in = types.SimpleNamespace(
        **{field.name: values[key] for key, field in fields.items() if key in values}
    )
    mistakes = []
    for key, field in fields.items():
        if field.validator is None or values.get(key, attrs.NOTHING) is attrs.NOTHING:
            continue
        try:
            field.validator(stand_in, field, values[key])
        except _REFUSALS as exc:
            mistakes.append(_mistake_of(exc).within(key))
        except AttributeError:
            continue  # it compares with another field, which is missing or wrong itself
    return mistakes


def _mistake_of(exc: Exception) -> Mistake:
    if isinstance(exc, ConfigError):
        return Mistake("", exc.message, exc.hint)
    # The validators of attrs give more arguments than their message.
    return Mistake("", str(exc.args[0]) if exc.args else type(exc).__name__)


# --- a value -----------------------------------------------------------------------------


def _value(hint: Any, value: object) -> object:  # noqa: ANN401  (a type is what it is)
    """Check a value against a type and give it in the form that the type asks for."""
    origin = typing.get_origin(hint)
    if origin is not None:
        read = _GENERICS.get(origin)
        if read is not None:
            return read(typing.get_args(hint), value)
    elif hint in _SCALARS:
        return _SCALARS[hint](value)
    elif hint is Any:
        return value
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(hint, value)
    elif isinstance(hint, type) and attrs.has(hint):
        return _structure(hint, value)
    raise PluginError(f"an option is declared as {hint!r}, which no file can hold")


def _exactly(what: str, *accepted: type) -> Callable[[object], object]:
    def read(value: object) -> object:
        if type(value) not in accepted:
            _wrong(f"expected {what}, not {_name_of(value)}")
        return value

    return read


def _number(value: object) -> float:
    if type(value) not in {int, float} or not math.isfinite(typing.cast("float", value)):
        _wrong(f"expected a number, not {_name_of(value)}")
    return float(typing.cast("float", value))


def _path(value: object) -> Path:
    if not isinstance(value, str | os.PathLike):
        _wrong(f"expected a path, not {_name_of(value)}")
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        _wrong("a path cannot hold a NUL character")
    path = Path(text)
    if not path.is_absolute():
        _wrong(
            f'"{text}" is not an absolute path',
            "write it from / on, so that it means the same wherever fsrep is started",
        )
    return path


_SCALARS: Mapping[Any, Callable[[object], object]] = {
    str: _exactly("a string", str),
    int: _exactly("an integer", int),
    bool: _exactly("true or false", bool),
    float: _number,
    Path: _path,
}


def _enum(hint: type[enum.Enum], value: object) -> enum.Enum:
    for member in hint:
        if value is member or (type(value) is type(member.value) and value == member.value):
            return member
    allowed = [_word(member.value) for member in hint]
    _wrong(f"{_shown(value)} is not one of {_alternatives(allowed)}", _close(value, allowed))


def _literal(allowed: Sequence[object], value: object) -> object:
    for each in allowed:
        if type(value) is type(each) and value == each:
            return value
    words = [_word(each) for each in allowed]
    _wrong(f"{_shown(value)} is not one of {_alternatives(words)}", _close(value, words))


def _union(members: Sequence[Any], value: object) -> object:
    if value is None and type(None) in members:
        return None
    members = [member for member in members if member is not type(None)]
    if len(members) == 1:
        return _value(members[0], value)
    for member in members:
        try:
            return _value(member, value)
        except OptionsError:
            continue
    _wrong(f"expected {_alternatives([_describe(m) for m in members])}, not {_name_of(value)}")


def _items(arguments: Sequence[Any], value: object) -> list[object]:
    if not isinstance(value, list | tuple | frozenset):
        _wrong(
            f"expected a list, not {_name_of(value)}",
            f"write [{_shown(value)}]" if isinstance(value, str) else None,
        )
    members: list[object] = []
    mistakes: list[Mistake] = []
    for index, item in enumerate(value):
        try:
            members.append(_value(arguments[0], item))
        except OptionsError as exc:
            mistakes.extend(exc.within(f"[{index}]").mistakes)
    if mistakes:
        raise OptionsError(mistakes)
    return members


def _mapping(arguments: Sequence[Any], value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        _wrong(f"expected a table, not {_name_of(value)}")
    members: dict[str, object] = {}
    mistakes: list[Mistake] = []
    for key, item in value.items():
        try:
            members[key] = _value(arguments[1], item)
        except OptionsError as exc:
            mistakes.extend(exc.within(str(key)).mistakes)
    if mistakes:
        raise OptionsError(mistakes)
    return members


_GENERICS: Mapping[Any, Callable[[Sequence[Any], object], object]] = {
    tuple: lambda arguments, value: tuple(_items(arguments, value)),
    list: _items,
    frozenset: lambda arguments, value: frozenset(_items(arguments, value)),
    dict: _mapping,
    Mapping: _mapping,
    typing.Literal: _literal,
    typing.Union: _union,
    types.UnionType: _union,
}


# --- words -------------------------------------------------------------------------------

_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    str: "a string",
    int: "an integer",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "a table",
    Mapping: "a table",
    Path: "an absolute path",
}


def _name_of(value: object) -> str:
    """Name what a file holds, as its author would."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string {_shown(value)}"
    if isinstance(value, date | time):
        return "a date or time"
    if isinstance(value, int | float):
        return f"the number {value}"
    return _NAMES.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """Write a value as the file does: ``true``, not ``True``; what is long is only named."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return _name_of(value)


def _word(value: object) -> str:
    return value if isinstance(value, str) else _shown(value)


def _alternatives(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]


def _close(value: object, allowed: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(str(value), allowed, n=1)
    return f'did you mean "{near[0]}"?' if near else None


def _describe(hint: Any) -> str:  # noqa: ANN401  (a type is what it is)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_describe(each) for each in arguments if each is not type(None))
    if origin is typing.Literal:
        return " or ".join(_shown(each) for each in arguments)
    if origin in {tuple, list, frozenset}:
        item = _describe(arguments[0])
        if '"' in item:
            return f"a list of {item}"
        return f"a list of {item.removeprefix('a ').removeprefix('an ')}s"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(_shown(each.value) for each in hint)
    return _NAMES.get(origin or hint, "a table" if attrs.has(hint) else str(hint))
