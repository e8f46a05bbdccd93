import pytest

from fsrep_core.testing import STORAGE_LAWS, check_storage


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_the_memory_storage_keeps(law, make_memory):
    verdict = await check_storage(make_memory(nests=True), laws=[law])

    assert verdict.kept == (law,)
