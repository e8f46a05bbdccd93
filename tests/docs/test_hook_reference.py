"""The hook reference names every hook with its exact signature, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from fsrep_core import EndpointSpec, ObserverSpec, PluginSpec

PAGE = (Path(__file__).parents[2] / "docs/reference/hooks.md").read_text(encoding="utf-8")
ON_PAGE = re.findall(
    r"autoclass:: (?P<class>\w+)|automethod:: (?P<hook>\w+)(?P<signature>\(.*)$",
    PAGE,
    flags=re.MULTILINE,
)


def documented():
    found, owner = [], None
    for class_name, hook, signature in ON_PAGE:
        if class_name:
            owner = class_name
        else:
            found.append((f"{owner}.{hook}", signature))
    return found


def exact_signature(function):
    """The signature as one would type it: annotations bare, not quoted."""
    return re.sub(r"'([^']*)'", r"\1", str(inspect.signature(function)))


def hooks():
    return {
        f"{spec.__name__}.{name}": function
        for spec in (EndpointSpec, PluginSpec, ObserverSpec)
        for name, function in vars(spec).items()
        if hasattr(function, "fsrep_spec")
    }


def test_the_specs_hold_hooks():
    assert {"EndpointSpec.send", "PluginSpec.register", "ObserverSpec.observe"} <= set(hooks())


@pytest.mark.parametrize("hook", sorted(hooks()))
def test_hook_stands_there_with_its_exact_signature(hook):
    assert (hook, exact_signature(hooks()[hook])) in documented()


def test_no_hook_stands_there_that_does_not_exist():
    assert [hook for hook, _ in documented() if hook not in hooks()] == []


@pytest.mark.parametrize("hook", sorted(hooks()))
def test_hook_says_what_it_promises(hook):
    """The page shows the docstring: a hook without one would be an empty entry."""
    assert len(inspect.getdoc(hooks()[hook]).splitlines()) > 1
