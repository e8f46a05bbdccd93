"""``[serve]``: where this host listens, and how many may come at once.

Whom it serves, and with what, the ``[[identity]]`` tables say (:mod:`fsrep_core.ops.serving`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.ops.checks import check_choice
from fsrep_core.ops.config import PluginChoice
from fsrep_core.quantities import parse_duration
from fsrep_core.runtime.options import Mistake, OptionsError, structure_options

if TYPE_CHECKING:
    from fsrep_core.runtime.registry import Registry
    from fsrep_core.transports import Listener

__all__ = ["ServeConfig", "check_serve", "make_listeners", "parse_serve"]

_COUNT_LIMIT = 65536


def _check_listeners(
    _instance: object, _attribute: object, listeners: tuple[PluginChoice, ...]
) -> None:
    if not listeners:
        raise ValueError("listens nowhere; write one that begins with [[serve.listener]]")


def _check_count(_instance: object, _attribute: object, count: int) -> None:
    if not 1 <= count <= _COUNT_LIMIT:
        raise ValueError(f"{count} is out of range; write 1 to {_COUNT_LIMIT}")


def _check_positive(_instance: object, _attribute: object, seconds: float) -> None:
    if seconds <= 0:
        raise ValueError('must be longer than zero; write a duration such as "10s"')


def _duration(
    default: float, key: str, validator: Callable[[Any, Any, Any], None] | None = None
) -> Any:  # noqa: ANN401  (attrs gives what the annotation says)
    return attrs.field(
        default=default, alias=key, metadata={"parse": parse_duration}, validator=validator
    )


@attrs.frozen(kw_only=True)
class ServeConfig:
    """How this host serves others."""

    listeners: tuple[PluginChoice, ...] = attrs.field(alias="listener", validator=_check_listeners)
    """Where to listen: the name of a listener, and its options."""
    connections: int = attrs.field(default=256, validator=_check_count)
    """The most connections of clients; more are told to come again."""
    handshakes: int = attrs.field(default=256, validator=_check_count)
    """The most connections whose clients have not yet proved who they are. One too many
    drops the one that has taken longest."""
    handshake_timeout_seconds: float = _duration(10.0, "handshake_timeout", _check_positive)
    """How long a client may take to prove who it is, and to greet."""
    stop_timeout_seconds: float = _duration(60.0, "stop_timeout")
    """How long a stop waits for the operations that go on; then they are cut, and go on
    where they were when the client tries again."""


def parse_serve(raw: object) -> tuple[ServeConfig | None, list[Mistake]]:
    """Read the table, as far as it can be read, and list what is wrong.

    :returns: ``None`` where it has mistakes
    """
    if not isinstance(raw, Mapping):
        return None, [Mistake("serve", "is one table", "write [serve], not [[serve]]")]
    if isinstance(raw.get("listener"), Mapping):
        return None, [
            Mistake(
                "serve.listener",
                "listeners are a list of tables",
                "write [[serve.listener]], not [serve.listener]",
            )
        ]
    try:
        return structure_options(ServeConfig, raw, "serve"), []
    except OptionsError as exc:
        return None, list(exc.mistakes)


def check_serve(raw: object, registry: Registry) -> list[Mistake]:
    """List what is wrong with the listeners that the table names."""
    listeners = raw.get("listener") if isinstance(raw, Mapping) else None
    mistakes: list[Mistake] = []
    for index, choice in enumerate(listeners if isinstance(listeners, list) else []):
        _, found = check_choice(registry, "listener", choice, f"serve.listener[{index}]")
        mistakes += found
    return mistakes


def make_listeners(serve: ServeConfig, registry: Registry) -> list[Listener]:
    """Make the listeners; nothing listens yet.

    :raises PluginError: the plugin of one is missing or broken
    :raises ConfigError: an option is wrong
    """
    listeners = []
    for index, choice in enumerate(serve.listeners):
        offer = registry.find("listener", choice.name)
        where = f"serve.listener[{index}]"
        listeners.append(offer.create(structure_options(offer.config_class, choice.options, where)))
    return listeners
