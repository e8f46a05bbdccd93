"""The options of the storage ``btrfs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

__all__ = ["BtrfsConfig"]


def _check_command(_instance: object, _attribute: object, command: tuple[str, ...]) -> None:
    if not command or not all(command):
        raise ValueError('is empty; write ["btrfs"], or leave the key out')


def _check_relative(path: str, key: str) -> None:
    if path.startswith("/") or ".." in path.split("/") or not path:
        raise ValueError(f"{key} = {path!r} must lie below the root; write a relative path")


def _check_snapshots(_instance: object, _attribute: object, path: str) -> None:
    _check_relative(path, "snapshots")


def _check_paths(
    _instance: object, attribute: attrs.Attribute[Any], paths: Mapping[str, Any]
) -> None:
    for name, path in paths.items():
        for each in (path,) if isinstance(path, str) else path:
            _check_relative(each, f"{attribute.name}.{name}")


@attrs.frozen(kw_only=True)
class BtrfsConfig:
    """The options of ``btrfs``."""

    root: Path
    """The directory, on a mounted btrfs, whose subvolumes are the filesystems."""
    snapshots: str = attrs.field(default="snapshots", validator=_check_snapshots)
    """Where fsrep keeps what it makes and receives, relative to the root: each version is
    ``<snapshots>/<filesystem>/@<name>/snapshot``. ``"."`` = in the root itself."""
    subvolumes: Mapping[str, str] = attrs.field(factory=dict, validator=_check_paths)
    """Names for the subvolumes to replicate, such as ``{ home = "@home" }``, relative to
    the root; ``"."`` is the root itself. Default: every writable subvolume below the root,
    by its path."""
    also: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, validator=_check_paths)
    """Where a filesystem has snapshots besides those that are found without it: patterns
    relative to the root, such as ``{ home = ["btrbk_snapshots/home.*"] }``."""
    compressed_data: bool = False
    """Send data as it is compressed on the disk (protocol 2). Needs Linux 6.0 on the
    sender and btrfs-progs 6.2 on both sides."""
    command: tuple[str, ...] = attrs.field(default=("btrfs",), validator=_check_command)
    """How ``btrfs`` is started, such as ``["sudo", "-n", "btrfs"]``."""
