"""``ssh`` keeps every law of transports.

The far end of the laws is one probe that all connections share, and so it lives in this
process; :mod:`ways` says how ssh gets there.
"""

from __future__ import annotations

import shutil
from functools import partial

import pytest

from fsrep_core.testing import TRANSPORT_LAWS, ProbeStorage, check_transport
from ways import over_ssh


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_ssh_keeps_the_law(scene, law):
    verdict = await check_transport(partial(over_ssh, scene, ProbeStorage()), laws=[law])

    assert verdict.kept == (law,)


def test_the_real_ssh_is_used(scene):
    assert shutil.which("ssh") == str(scene.root / "bin" / "ssh")
