"""The options of the storage ``zfs``."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["PlaceholderEncryption", "Protection", "ZfsConfig"]

_DATASET = re.compile(r"[A-Za-z][\w.:-]*(?: +[\w.:-]+)*(?:/[\w.:-]+(?: +[\w.:-]+)*)*", re.ASCII)
_PROPERTY = re.compile(r"[a-z0-9][a-z0-9:+._-]*")
_RESERVED = frozenset({"version", "volsize", "utf8only", "normalization", "casesensitivity"})
"""Set when a dataset is made, by the stream and by nothing else."""


class Protection(enum.Enum):
    """What fsrep keeps from being destroyed while a step is not yet confirmed."""

    RESUMABLE = "resumable"
    """Both ends of the step: an interrupted send can be resumed."""
    INCREMENTAL = "incremental"
    """The base only, as a bookmark: an interrupted send may have to begin again, but
    never in full."""
    NONE = "none"
    """Nothing but the cursor."""


class PlaceholderEncryption(enum.Enum):
    """How a filesystem is made that only holds others."""

    INHERIT = "inherit"
    OFF = "off"


def _check_root(_instance: object, _attribute: object, root: str) -> None:
    if not _DATASET.fullmatch(root):
        raise ValueError(
            f'"{root}" is not the name of a dataset; write one such as "tank" or "tank/backup"'
        )


def _check_command(_instance: object, _attribute: object, command: tuple[str, ...]) -> None:
    if not command or not all(command):
        raise ValueError('is empty; write ["zfs"], or leave the key out')


def _check_property(name: str, key: str) -> None:
    if not _PROPERTY.fullmatch(name):
        raise ValueError(f'{key}: "{name}" is not the name of a property')
    if name in _RESERVED or name.startswith("fsrep:"):
        raise ValueError(f'{key}: "{name}" cannot be chosen by the receiver')


def _check_override(
    _instance: object, attribute: attrs.Attribute[Any], override: Mapping[str, str]
) -> None:
    for name in override:
        _check_property(name, attribute.name)


def _check_exclude(
    instance: ZfsConfig, attribute: attrs.Attribute[Any], exclude: tuple[str, ...]
) -> None:
    for name in exclude:
        _check_property(name, attribute.name)
        if name in instance.override:
            raise ValueError(f'"{name}" stands in override, too; one of both is enough')


@attrs.frozen(kw_only=True)
class ZfsConfig:
    """The options of ``zfs``."""

    root: str = attrs.field(validator=_check_root)
    """The dataset below which the filesystems are, such as ``"tank"``. It is not one itself."""
    command: tuple[str, ...] = attrs.field(default=("zfs",), validator=_check_command)
    """How ``zfs`` is started, such as ``["sudo", "-n", "zfs"]``."""

    protect_initial: Protection = Protection.RESUMABLE
    """What is kept from being destroyed during a full step."""
    protect_incremental: Protection = Protection.RESUMABLE
    """What is kept from being destroyed during an incremental step."""

    raw: bool = False
    """On a sender: send encrypted datasets as they are on the disk (``-w``). The receiver
    then never needs a key. It cannot be changed for what was once replicated."""
    large_blocks: bool = True
    """On a sender: keep blocks larger than 128 KiB (``-L``)."""
    compressed: bool = True
    """On a sender: send compressed blocks as they are on the disk (``-c``)."""
    embedded: bool = False
    """On a sender: keep blocks embedded in their pointers (``-e``). An encrypted receiver
    cannot take them."""
    clones: bool = True
    """On a sender: send a clone as what it differs in from its origin, where the receiver has
    that."""
    properties: bool = False
    """On a sender: send the dataset's properties along (``-p``)."""
    backup: bool = False
    """On a sender that received its filesystems: send the properties as they were received
    (``-b``)."""

    override: Mapping[str, str] = attrs.field(factory=dict, validator=_check_override)
    """On a receiver: properties that everything received shall have (``-o``)."""
    exclude: tuple[str, ...] = attrs.field(default=(), validator=_check_exclude)
    """On a receiver: properties that are not taken from a stream (``-x``)."""
    make_parents: bool = True
    """On a receiver: make the parents that are not replicated themselves, as filesystems
    that are never mounted. Otherwise a filesystem without its parent is refused."""
    placeholder_encryption: PlaceholderEncryption = PlaceholderEncryption.INHERIT
    """On a receiver: how a parent is made that is not replicated itself."""
