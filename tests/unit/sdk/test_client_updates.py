"""The stream of a run's updates: complete, without gap or repetition, and closed when left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from aiki_sdk import Client, ErrorInfo, InvalidRequest, NotFound, RunHandle, RunStatus, Unavailable
from aiki_sdk.protocol import Update
from tests.unit.sdk.fake_port import FakePort, FakeStream
from tests.unit.sdk.fake_server import client_over


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture(params=["here", "http"])
def client(port: FakePort, request: pytest.FixtureRequest) -> Client:
    return client_over(port, request.param)


async def seqs(handle: RunHandle[Any], after: int | None = None) -> list[int]:
    return [update.seq async for update in handle.updates(after)]


async def test_updates_begin_with_the_first_entry_and_end_with_the_run(
    port: FakePort, client: Client
) -> None:
    handle = await client.start("greet", name="Ada")
    seen: list[tuple[int, str, RunStatus]] = []

    async def watch() -> None:
        async for update in handle.updates():
            facts = (update.seq, update.kind, update.status)
            seen.append(facts)  # one at a time, as they come

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        assert len(seen) == 2
        port.record(handle.id, "run-claimed", RunStatus.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
        port.complete(handle.id)

    assert seen == [
        (1, "run-created", RunStatus.QUEUED),
        (2, "run-queued", RunStatus.QUEUED),
        (3, "run-claimed", RunStatus.RUNNING),
        (4, "run-completed", RunStatus.COMPLETED),
    ]
    assert port.open_streams == 0


async def test_updates_go_on_after_a_seq(port: FakePort, client: Client) -> None:
    handle = await client.start("greet", name="Ada")
    port.complete(handle.id)

    assert await seqs(handle, after=2) == [3]
    assert await seqs(handle, after=3) == [], "an ended run has no more"
    assert await seqs(handle, after=0) == [1, 2, 3]


@pytest.mark.parametrize("after", [-1, "3", True, 1.5])
async def test_what_is_not_a_seq_is_refused_at_the_call(client: Client, after: Any) -> None:
    handle = await client.start("greet", name="Ada")

    with pytest.raises(InvalidRequest, match="after="):
        handle.updates(after)


async def test_a_failure_that_was_retried_is_not_the_end(port: FakePort, client: Client) -> None:
    """A terminal status in the past does not end the stream; the run's end does."""
    handle = await client.start("greet", name="Ada")
    port.fail(handle.id, ErrorInfo("ValueError", "x"))
    await handle.retry()
    port.complete(handle.id)

    statuses = [update.status async for update in handle.updates()]

    assert statuses[2:] == [RunStatus.FAILED, RunStatus.QUEUED, RunStatus.COMPLETED]


@given(length=st.integers(min_value=1, max_value=4), entries=st.integers(0, 12))
async def test_a_reader_that_is_cut_off_again_and_again_misses_nothing(
    length: int, entries: int
) -> None:
    port = FakePort(stream_length=length)
    handle = await Client(port).start("greet", name="Ada")
    for number in range(entries):
        port.record(handle.id, "task-succeeded", output=number)
    port.complete(handle.id)

    assert await seqs(handle) == list(range(1, entries + 4))
    assert port.open_streams == 0


async def test_a_read_that_was_cancelled_is_resumed_by_the_next(
    port: FakePort, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await client.start("greet", name="Ada")
    updates = handle.updates()
    seen = [(await anext(updates)).seq, (await anext(updates)).seq]

    with trio.move_on_after(5) as scope:
        await anext(updates)
    assert scope.cancelled_caught
    assert port.open_streams == 0, "a cancelled read closes the stream"
    port.complete(handle.id)
    seen.extend([update.seq async for update in updates])

    assert seen == [1, 2, 3]
    assert updates.last_seq == 3


async def test_a_lost_connection_is_told_and_the_next_read_resumes(
    port: FakePort, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await client.start("greet", name="Ada")
    updates = handle.updates()
    assert (await anext(updates)).seq == 1

    async def lost(stream: FakeStream) -> Update:
        message = "connection reset"
        raise Unavailable(message)

    with monkeypatch.context() as patch:
        patch.setattr(FakeStream, "__anext__", lost)
        with pytest.raises(Unavailable, match="connection reset"):
            await anext(updates)
    port.complete(handle.id)

    assert [update.seq async for update in updates] == [2, 3]
    assert port.open_streams == 0


async def test_leaving_early_closes_the_stream(port: FakePort, client: Client) -> None:
    handle = await client.start("greet", name="Ada")

    async with handle.updates() as updates:
        async for update in updates:
            assert update.seq == 1
            assert port.open_streams == 1
            break

    assert port.open_streams == 0
    assert [update async for update in updates] == [], "closed updates give nothing more"


async def test_closing_twice_and_closing_unread_does_nothing(
    port: FakePort, client: Client
) -> None:
    handle = await client.start("greet", name="Ada")
    updates = handle.updates()

    await updates.aclose()
    await updates.aclose()

    assert port.streams_opened == 0


async def test_an_error_in_the_loop_closes_the_stream(port: FakePort, client: Client) -> None:
    handle = await client.start("greet", name="Ada")

    async def watch() -> None:
        async with handle.updates() as updates:
            async for update in updates:
                assert update.seq / 0

    with pytest.raises(ZeroDivisionError):
        await watch()

    assert port.open_streams == 0


async def test_a_server_that_closes_every_stream_is_an_error_and_not_a_loop(
    port: FakePort, client: Client
) -> None:
    port.stream_length = 0
    handle = await client.start("greet", name="Ada")
    updates = handle.updates()

    with pytest.raises(Unavailable, match=r"stream of run run_1 was closed .* read again"):
        await anext(updates)
    port.stream_length = None

    assert (await anext(updates)).seq == 1
    await updates.aclose()


async def test_an_opening_that_is_cancelled_leaves_nothing_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class SlowToOpen(FakePort):
        delay_s = 10.0

        def updates(
            self, run_id: str, *, after: int, wait_s: float | None = None
        ) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
            port = self

            class Slow(FakeStream):
                async def __aenter__(self) -> AsyncIterator[Update]:
                    await trio.sleep(port.delay_s)
                    return await super().__aenter__()

            return Slow(self, run_id, after, wait_s)

    port = SlowToOpen()
    handle = await Client(port).start("greet", name="Ada")
    updates = handle.updates()

    with trio.move_on_after(1):
        await anext(updates)
    assert port.open_streams == 0
    port.delay_s = 0.0
    assert (await anext(updates)).seq == 1
    await updates.aclose()
    assert port.open_streams == 0


async def test_updates_of_a_run_that_is_not_there_are_not_found(
    port: FakePort, client: Client
) -> None:
    handle = await client.start("greet", name="Ada")
    del port.runs[handle.id]

    with pytest.raises(NotFound):
        await anext(handle.updates())
