"""Options are checked before anything runs, and the page says what there is."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from fsrep_core import Registry, Side
from fsrep_core.runtime.options import OptionsError, structure_options
from fsrep_zfs import plugin
from fsrep_zfs.config import PlaceholderEncryption, Protection, ZfsConfig
from fsrep_zfs.delegation import PERMISSIONS, permissions

PAGE = Path(__file__).parents[3] / "docs/reference/zfs-storage.md"


def test_the_plugin_offers_the_storage():
    registry = Registry()

    plugin.register(registry)

    offer = registry.find("storage", "zfs")
    assert offer.config_class is ZfsConfig
    assert type(offer.create(ZfsConfig(root="tank"))).__name__ == "ZfsStorage"


def test_all_options_can_be_written_in_toml():
    config = structure_options(
        ZfsConfig,
        {
            "root": "tank/back up/x:y",
            "command": ["sudo", "-n", "zfs"],
            "protect_initial": "none",
            "protect_incremental": "incremental",
            "raw": True,
            "large_blocks": False,
            "compressed": False,
            "embedded": True,
            "clones": False,
            "properties": True,
            "backup": True,
            "override": {"readonly": "on", "com.sun:auto-snapshot": "false"},
            "exclude": ["sharenfs"],
            "make_parents": False,
            "placeholder_encryption": "off",
        },
        "",
    )

    assert config.protect_incremental is Protection.INCREMENTAL
    assert config.placeholder_encryption is PlaceholderEncryption.OFF
    assert config.override["com.sun:auto-snapshot"] == "false"


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("root", "", "name of a dataset"),
        ("root", "/tank", "name of a dataset"),
        ("root", "tank/", "name of a dataset"),
        ("root", "-tank", "name of a dataset"),
        ("root", "tank@snap", "name of a dataset"),
        ("root", "tank//x", "name of a dataset"),
        ("command", [], "zfs"),
        ("protect_initial", "all", "resumable"),
        ("override", {"Readonly": "on"}, "Readonly"),
        ("override", {"a=b": "on"}, "a=b"),
        ("override", {"volsize": "1G"}, "cannot be chosen"),
        ("override", {"fsrep:made": "x"}, "cannot be chosen"),
        ("exclude", ["-o"], "-o"),
    ],
)
def test_options_that_cannot_be_meant(option, value, advice):
    with pytest.raises(OptionsError) as caught:
        structure_options(ZfsConfig, {"root": "tank", option: value}, "")

    (mistake,) = caught.value.mistakes
    assert option in mistake.key
    assert advice in str(mistake)


def test_a_property_is_set_or_left_out_and_not_both():
    options = {"root": "tank", "override": {"atime": "off"}, "exclude": ["atime"]}

    with pytest.raises(OptionsError, match="one of both"):
        structure_options(ZfsConfig, options, "")


def test_the_page_says_every_option_and_its_default():
    rows = [
        line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| `")
    ]
    documented = {cells[0].strip(" `"): cells[1].strip(' `"') for cells in rows}
    for field in attrs.fields(ZfsConfig):
        default = field.default
        if default is attrs.NOTHING or not isinstance(default, bool | Protection):
            assert field.name in documented
        else:
            shown = default.value if isinstance(default, Protection) else str(default).lower()
            assert documented[field.name] == shown


@pytest.mark.parametrize("side", Side)
def test_the_page_says_every_permission(side):
    section = PAGE.read_text().partition("## Delegation")[2].partition("## ")[0]

    assert not [each for each in PERMISSIONS[side] if f"`{each}`" not in section]


def test_permissions_follow_the_options():
    config = ZfsConfig(
        root="tank",
        protect_initial=Protection.NONE,
        protect_incremental=Protection.NONE,
        override={"readonly": "on", "a:b": "c"},
        exclude=("sharenfs",),
        placeholder_encryption=PlaceholderEncryption.OFF,
    )

    needed = permissions(config, Side.RECEIVER)

    assert {"readonly", "sharenfs", "userprop", "encryption"} <= set(needed)
    assert not {"a:b", "hold", "release"} & set(needed)
