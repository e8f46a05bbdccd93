"""The storages, transports and listeners that are installed, by name.

Plugins are found through the entry-point group ``fsrep``. Each is imported on its own,
and only once it may be needed: a job that selects ``directory`` imports the plugin of
that name and no other. One that fails is kept with its error, which is raised only when
a job selects it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.errors import PluginError
from fsrep_core.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsrep_core.transports import Listener, Transport

__all__ = ["ENTRY_POINT_GROUP", "Offer", "PluginStatus", "Registry", "load_plugins"]

ENTRY_POINT_GROUP = "fsrep"


@attrs.frozen(kw_only=True, repr=False)
class Offer(Shown):
    """One storage, transport or listener that a plugin added."""

    name: str
    kind: str
    """``storage``, ``transport`` or ``listener``."""
    config_class: type[Any]
    """An attrs class; its fields are the options."""
    create: Callable[[Any], Any]
    """Makes it from an instance of ``config_class``."""
    summary: str
    plugin: str
    """The entry point that added it."""


@attrs.frozen(kw_only=True, repr=False)
class PluginStatus(Shown):
    """One entry point of the group, as found."""

    name: str
    distribution: str
    version: str
    origin: str
    """The module and attribute that the entry point names."""
    error: str | None = None
    """Why it cannot be used; ``None`` = it is loaded."""


@attrs.define(eq=False, repr=False)
class Registry:
    """Collects what plugins offer. Given to each plugin's ``register`` hook."""

    _offers: dict[tuple[str, str], Offer] = attrs.field(factory=dict)
    _waiting: list[importlib.metadata.EntryPoint] = attrs.field(factory=list)
    _loaded: list[tuple[importlib.metadata.EntryPoint, str | None]] = attrs.field(factory=list)
    _loading: str = ""

    @property
    def plugins(self) -> list[PluginStatus]:
        """Every plugin, by name, with its error where it is broken."""
        self._load_all()
        statuses = [_status(entry_point, error) for entry_point, error in self._loaded]
        return sorted(statuses, key=lambda status: status.name)

    def add_storage(
        self,
        name: str,
        create: Callable[[Any], object],
        *,
        config_class: type[Any],
        summary: str,
    ) -> None:
        """Offer a storage.

        :param create: makes the endpoint from an instance of ``config_class``
        :raises PluginError: the name is taken, or ``config_class`` is no attrs class
        """
        self._add("storage", name, create, config_class, summary)

    def add_transport(
        self,
        name: str,
        create: Callable[[Any], Transport],
        *,
        config_class: type[Any],
        summary: str,
    ) -> None:
        """Offer a transport. Parameters and errors as with :meth:`add_storage`."""
        self._add("transport", name, create, config_class, summary)

    def add_listener(
        self,
        name: str,
        create: Callable[[Any], Listener],
        *,
        config_class: type[Any],
        summary: str,
    ) -> None:
        """Offer the accepting end of a transport. As with :meth:`add_storage`."""
        self._add("listener", name, create, config_class, summary)

    def offers(self, kind: str) -> tuple[Offer, ...]:
        """All offers of a kind, by name."""
        self._load_all()
        return tuple(offer for (each, _), offer in sorted(self._offers.items()) if each == kind)

    def find(self, kind: str, name: str) -> Offer:
        """The offer of this kind and name.

        The plugin of that name is asked first, and the others only if it does not offer it.

        :raises PluginError: there is none; names the nearest, and the plugins that are
            broken, since one of them may be the missing one
        """
        for entry_point in [each for each in self._waiting if each.name == name]:
            self.load(entry_point)
        if (kind, name) not in self._offers:
            self._load_all()
        offer = self._offers.get((kind, name))
        if offer is not None:
            return offer
        raise PluginError(
            f"no plugin offers the {kind} {name!r}",
            hint=self._hint(kind, name),
        )

    def _hint(self, kind: str, name: str) -> str:
        import difflib

        known = [offer.name for offer in self.offers(kind)]
        near = difflib.get_close_matches(name, known, n=1)
        parts = [f"did you mean {near[0]!r}?"] if near else []
        parts.append(f"installed: {', '.join(known) or 'none'}")
        broken = [f"{each.name} ({each.error})" for each in self.plugins if each.error]
        if broken:
            parts.append(f"broken plugins: {'; '.join(broken)}")
        return "; ".join(parts)

    def _add(
        self,
        kind: str,
        name: str,
        create: Callable[[Any], Any],
        config_class: type[Any],
        summary: str,
    ) -> None:
        if not attrs.has(config_class):
            raise PluginError(
                f"the config class of {kind} {name!r} is not an attrs class: {config_class!r}"
            )
        taken = self._offers.get((kind, name))
        if taken is not None:
            raise PluginError(
                f"the {kind} {name!r} is already offered by the plugin {taken.plugin!r}"
            )
        self._offers[kind, name] = Offer(
            name=name,
            kind=kind,
            config_class=config_class,
            create=create,
            summary=summary,
            plugin=self._loading,
        )

    def await_need(self, entry_points: Iterable[importlib.metadata.EntryPoint]) -> None:
        """Keep plugins until they may be needed."""
        self._waiting += sorted(entry_points, key=lambda each: each.name)

    def _load_all(self) -> None:
        while self._waiting:
            self.load(self._waiting[0])

    def load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        """Import one plugin and let it register. A failure is recorded, never raised."""
        self._waiting = [each for each in self._waiting if each is not entry_point]
        self._loading = entry_point.name
        before = dict(self._offers)
        error = None
        try:
            entry_point.load().register(self)
        except Exception as exc:  # noqa: BLE001  (a stranger's import may raise anything)
            self._offers = before
            error = f"{type(exc).__name__}: {exc}"
        self._loaded.append((entry_point, error))


def _status(entry_point: importlib.metadata.EntryPoint, error: str | None) -> PluginStatus:
    distribution = entry_point.dist
    return PluginStatus(
        name=entry_point.name,
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "unknown",
        origin=entry_point.value,
        error=error,
    )


def load_plugins(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> Registry:
    """Give a registry of every installed plugin, or of the ones given.

    :returns: a registry that imports a plugin when it may be needed; broken ones are in
        its ``plugins``, with their error
    """
    registry = Registry()
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    registry.await_need(entry_points)
    return registry
