"""The listeners of a run. One that fails is dropped; the run goes on without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from fsrep_core.events import Warned
from fsrep_core.hookspecs import ObserverSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsrep_core.events import Event

__all__ = ["Observers"]


class Observers:
    """Tells every listener of every event, in the order in which they were given.

    :param listeners: objects with an ``observe`` hook
    """

    def __init__(self, listeners: Iterable[object] = ()) -> None:
        self._manager = pluggy.PluginManager("fsrep")
        self._manager.add_hookspecs(ObserverSpec)
        for listener in reversed(list(listeners)):  # pluggy calls the last one first
            self._manager.register(listener)

    def tell(self, event: Event) -> None:
        """Let every listener observe ``event``. Never raises."""
        for implementation in reversed(self._manager.hook.observe.get_hookimpls()):
            try:
                implementation.function(event)
            except Exception as error:  # noqa: BLE001  (a listener must not stop a run)
                self._manager.unregister(implementation.plugin)
                self.tell(
                    Warned(
                        job=event.job,
                        message=(
                            f"the observer {implementation.plugin_name} failed and hears "
                            f"nothing more: {type(error).__name__}: {error}"
                        ),
                    )
                )
