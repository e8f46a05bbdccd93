"""Connections that are lent and given back, also to somebody who was cancelled at that moment."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fsrep_core.errors import ConnectivityError
from fsrep_core.runtime.remote.pool import Pool, Use


class Line:
    """What a pool needs of a link."""

    def __init__(self):
        self.failure = None
        self.closed = False
        self.reusable = True

    async def beat(self):
        await trio.sleep_forever()

    async def hear(self):
        await trio.sleep_forever()

    def lost(self, message):
        return ConnectivityError(message)

    async def close(self):
        self.closed = True
        await trio.lowlevel.checkpoint()


class Opener:
    """Opens lines, and fails as often as it is told to."""

    def __init__(self):
        self.lines = []
        self.failures = 0

    async def __call__(self):
        await trio.sleep(1)
        if self.failures:
            self.failures -= 1
            raise ConnectivityError("nobody answers")
        self.lines.append(Line())
        return self.lines[-1]


@pytest.mark.parametrize("use", Use)
@pytest.mark.parametrize("reusable", [True, False])
async def test_what_is_granted_to_somebody_just_cancelled_goes_to_the_next(
    use, reusable, autojump_clock
):
    opener = Opener()
    async with trio.open_nursery() as nursery:
        pool = Pool(opener, nursery, 1)
        waiting = trio.CancelScope()

        async def wait():
            with waiting:
                async with pool.lease(use):
                    raise AssertionError("it was cancelled")

        async with pool.lease(use) as line:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            line.reusable = reusable
            waiting.cancel()  # and in the same instant the connection comes back
        await trio.testing.wait_all_tasks_blocked()

        for each in Use:
            with trio.fail_after(10):
                async with pool.lease(each) as line:
                    assert line.reusable
        nursery.cancel_scope.cancel()
    assert all(each.closed for each in opener.lines)
    assert len(opener.lines) == (1 if reusable else 2)


async def test_somebody_cancelled_who_waits_leaves_no_trace(autojump_clock):
    opener = Opener()
    async with trio.open_nursery() as nursery:
        pool = Pool(opener, nursery, 1)
        async with pool.lease(Use.STREAM):
            with trio.move_on_after(1):
                async with pool.lease(Use.STREAM):
                    pytest.fail("there is but one")
        with trio.fail_after(10):
            async with pool.lease(Use.STREAM):
                pass
        nursery.cancel_scope.cancel()
    assert len(opener.lines) == 1


async def test_a_connection_that_cannot_be_opened_is_not_counted(autojump_clock):
    opener = Opener()
    opener.failures = 3
    async with trio.open_nursery() as nursery:
        pool = Pool(opener, nursery, 1)
        for _ in range(3):
            with pytest.raises(ConnectivityError):
                async with pool.lease(Use.CALL):
                    pytest.fail("nobody answers")
        with trio.fail_after(10):
            async with pool.lease(Use.CALL):
                pass
        nursery.cancel_scope.cancel()
