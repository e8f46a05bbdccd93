"""The transport keeps every law of the contract."""

from pathlib import Path

import pytest

from fsrep_core.testing import TRANSPORT_LAWS, check_transport, reach_probe
from fsrep_unix_socket import UnixConfig, UnixListener, UnixTransport


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_keeps_the_law(law: str, tmp_path: Path) -> None:
    config = UnixConfig(path=tmp_path / "socket")

    verdict = await check_transport(
        lambda: reach_probe(UnixTransport(config), UnixListener(config)), laws=[law]
    )

    assert verdict.kept == (law,)
