"""Whoever uses a public name needs no other: what stands in signatures is public too."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache

import attrs
import pytest

import fsrep_core

NAMES = re.compile(r"[A-Za-z_]\w*")


@cache
def names_of_ours(module_name):
    """The classes and aliases of ``fsrep_core`` that a module's annotations can mean."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module_name)))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fsrep_core"):
            found |= {each.asname or each.name for each in node.names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):  # an alias; a TypeVar is made by a call
            found |= {
                target.id
                for target in node.targets
                if isinstance(target, ast.Name) and isinstance(node.value, ast.Subscript)
            }
    return found


def annotations_of(value):
    """Every annotation that a user of a public name has to do with, and its module."""
    if not inspect.isclass(value):
        if inspect.isfunction(value):
            yield value.__module__, value.__annotations__
        return
    for base in value.__mro__:
        if not base.__module__.startswith("fsrep_core"):
            continue
        if attrs.has(base):
            shown = {
                each.name: each.type for each in attrs.fields(base) if not each.name.startswith("_")
            }
            yield base.__module__, shown
        for name, member in vars(base).items():
            if name.startswith("_") and name not in {"__init__", "__call__"}:
                continue
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            function = inspect.unwrap(function) if callable(function) else function
            if inspect.isfunction(function) and function.__module__ == base.__module__:
                shown = dict(function.__annotations__)
                if name == "__init__" and attrs.has(base):
                    shown = {}  # the fields, which were seen
                yield base.__module__, shown


@pytest.mark.parametrize("name", fsrep_core.__all__)
def test_what_stands_in_a_public_signature_is_public(name):
    missing = {
        mentioned
        for module, annotations in annotations_of(getattr(fsrep_core, name))
        for annotation in annotations.values()
        for mentioned in NAMES.findall(str(annotation))
        if mentioned in names_of_ours(module) and mentioned not in fsrep_core.__all__
        if not mentioned.startswith("_")  # what only our own modules ask for
    }

    assert missing == set()


def test_a_name_that_is_not_public_would_be_found():
    from fsrep_core.runtime.binding import Endpoint

    mentioned = {
        name
        for module, annotations in annotations_of(Endpoint)
        for annotation in annotations.values()
        for name in NAMES.findall(str(annotation))
        if name in names_of_ours(module)
    }

    assert {"InventoryRequest", "SendResponse", "ByteStream"} <= mentioned
