"""``fsrep plugins``: what is installed, from where, and what is broken."""

from __future__ import annotations

from fsrep_core.ops.report import document, print_document
from fsrep_core.ops.screen import print_table
from fsrep_core.ops.words import visible
from fsrep_core.runtime.registry import load_plugins

__all__ = ["plugins"]


def plugins(*, as_json: bool) -> int:
    """List them. A broken plugin is a fact to show, and the exit status is 1."""
    registry = load_plugins()
    broken = [each for each in registry.plugins if each.error is not None]
    status = {each.name: each for each in registry.plugins}
    offers = [
        offer for kind in ("transport", "listener", "storage") for offer in registry.offers(kind)
    ]
    if as_json:
        found = [
            {
                "name": offer.name,
                "kind": offer.kind,
                "summary": offer.summary,
                "plugin": offer.plugin,
                "distribution": status[offer.plugin].distribution,
                "version": status[offer.plugin].version,
                "origin": status[offer.plugin].origin,
            }
            for offer in offers
        ]
        print_document(document("plugins", offers=found, broken=broken))
        return 1 if broken else 0
    rows = [
        (
            offer.name,
            offer.kind,
            f"{status[offer.plugin].distribution} {status[offer.plugin].version}",
            status[offer.plugin].origin,
            offer.summary,
        )
        for offer in offers
    ]
    print_table(["name", "kind", "version", "origin", "what it is"], rows)
    for each in broken:
        print(  # noqa: T201  (the result of the command)
            f"broken: {visible(each.name)} ({visible(each.distribution)} {each.version}, "
            f"{visible(each.origin)}): {visible(each.error or '')}"
        )
    return 1 if broken else 0
