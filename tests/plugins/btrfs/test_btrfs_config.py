"""Options are checked before anything runs, and say how to write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsrep_btrfs import plugin
from fsrep_btrfs.config import BtrfsConfig
from fsrep_core import Registry
from fsrep_core.runtime.options import OptionsError, structure_options


def test_the_plugin_offers_the_storage():
    registry = Registry()

    plugin.register(registry)

    offer = registry.find("storage", "btrfs")
    assert offer.config_class is BtrfsConfig
    assert type(offer.create(BtrfsConfig(root=Path("/mnt")))).__name__ == "BtrfsStorage"


def test_all_options_can_be_written_in_toml():
    config = structure_options(
        BtrfsConfig,
        {
            "root": "/mnt/pool",
            "snapshots": ".",
            "subvolumes": {"home": "@home", "all": "."},
            "also": {"home": ["a/home.*", "b/*"]},
            "compressed_data": True,
            "command": ["sudo", "-n", "btrfs"],
        },
        "",
    )

    assert config.subvolumes == {"home": "@home", "all": "."}
    assert config.also == {"home": ("a/home.*", "b/*")}
    assert config.command == ("sudo", "-n", "btrfs")


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("root", "relative", "absolute"),
        ("snapshots", "/absolute", "write a relative path"),
        ("snapshots", "../up", "write a relative path"),
        ("snapshots", "", "write a relative path"),
        ("subvolumes", {"home": "/home"}, "subvolumes.home"),
        ("also", {"home": ["x", "../y"]}, "also.home"),
        ("command", [], "btrfs"),
        ("command", ["sudo", ""], "btrfs"),
    ],
)
def test_options_that_cannot_be_meant(option, value, advice):
    with pytest.raises(OptionsError) as caught:
        structure_options(BtrfsConfig, {"root": "/mnt", option: value}, "")

    (mistake,) = caught.value.mistakes
    assert option in mistake.key
    assert advice in str(mistake)
