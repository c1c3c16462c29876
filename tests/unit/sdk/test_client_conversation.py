"""Questions, values and forks from the client's side, against a server in memory."""

from __future__ import annotations

import pytest
import trio

from aiki_sdk import (
    AskRejected,
    Client,
    InvalidRequest,
    JsonValue,
    NotFound,
    PayloadError,
    Question,
    ResultTimeout,
    RunHandle,
    Unavailable,
    workflow,
)
from aiki_sdk._run import Run
from tests.unit.sdk.fake_port import FakePort
from tests.unit.sdk.fake_server import client_over

approve = Question("approve", int, bool)


@workflow("greet", "1.0.0", questions=[approve])
async def greet(run: Run, name: str, times: int = 1) -> str:
    return name * times


async def started() -> tuple[FakePort, RunHandle[str]]:
    """Start a run on a server in memory."""
    port = FakePort()
    return port, await Client(port).start(greet, "ann")


async def answered(port: FakePort, handle: RunHandle[str], **answer: JsonValue) -> list[bool]:
    """Ask once, and answer as soon as the question is there."""
    results: list[bool] = []

    async def ask() -> None:
        results.append(await handle.ask(approve, 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        item = port.runs[handle.id].info.seq
        assert port.sent[-1][1].question
        port.record(handle.id, "question-answered", item=item + 1, answer=False)
        port.record(handle.id, "question-answered", None, item=item, **answer)
    return results


async def test_the_answer_to_this_very_question_is_returned() -> None:
    port, handle = await started()
    assert await answered(port, handle, answer=True) == [True]


async def test_a_rejection_is_raised_with_its_reason() -> None:
    port, handle = await started()
    with pytest.raises(ExceptionGroup) as caught:
        await answered(port, handle, rejection="too much")
    (error,) = caught.value.exceptions
    assert isinstance(error, AskRejected)
    assert error.reason == "too much"
    assert handle.id in str(error)


async def test_asking_stops_at_its_deadline_and_when_it_is_cancelled(
    autojump_clock: object,
) -> None:
    port, handle = await started()
    with pytest.raises(ResultTimeout, match="answer question 'approve'"):
        await handle.ask(approve, 5, timeout=2)
    assert trio.current_time() == 2
    with trio.move_on_after(1) as scope:
        await handle.ask(approve, 5)
    assert scope.cancelled_caught
    assert port.open_streams == 0


@pytest.mark.parametrize("way", ["here", "http"])
async def test_a_question_is_followed_to_the_run_that_goes_on(way: str) -> None:
    """Also under the name that the client gave it by itself, so that it could be repeated."""
    port = FakePort()
    handle = await client_over(port, way).start(greet, "ann")
    results: list[bool] = []

    async def ask() -> None:
        results.append(await handle.ask(approve, 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        sent = port.sent[-1][1].reference_id
        assert (sent is None) == (way == "here")
        item = port.runs[handle.id].info.seq
        name = sent or f"continued:{handle.id}:{item}"
        goes_on = port.continue_as_new(handle.id)
        port.record(goes_on, "event-accepted", name="?approve", data=6, reference_id="other")
        item = port.record(goes_on, "event-accepted", name="?approve", data=5, reference_id=name)
        port.record(goes_on, "question-answered", item=item, answer=True)
    assert results == [True]


async def test_a_stream_that_is_cut_off_is_read_on(autojump_clock: object) -> None:
    port, handle = await started()
    port.stream_length = 1
    assert await answered(port, handle, answer=True) == [True]
    assert port.streams_opened > 1


async def test_a_lost_connection_is_told_and_the_question_can_be_asked_again() -> None:
    port, handle = await started()
    port.down = Unavailable("no way")
    with pytest.raises(Unavailable):
        await handle.ask(approve, 5, reference_id="q-1")
    port.down = None
    first = port.runs[handle.id].info.seq + 1
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: handle.ask(approve, 5, reference_id="q-1"))
        await trio.testing.wait_all_tasks_blocked()
        port.record(handle.id, "question-answered", item=first, answer=True)
    assert len(port.sent) == 1


async def test_what_is_no_question_or_no_data_of_it_is_refused() -> None:
    _port, handle = await started()
    with pytest.raises(InvalidRequest, match="pass a Question"):
        await handle.ask("approve", 5)  # type: ignore[call-overload]
    with pytest.raises(PayloadError, match="approve"):
        await handle.ask(approve, "five")  # type: ignore[misc]


async def test_a_watch_follows_the_run_that_goes_on(autojump_clock: object) -> None:
    port, handle = await started()
    seen: list[int] = []

    async def watch() -> None:
        async for value in handle.watch("progress", int):
            seen.append(value)  # noqa: PERF401  (what came before a failure is to be seen)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        port.record(handle.id, "value-published", key="progress", value=1)
        port.record(handle.id, "value-published", key="other", value=9)
        new_id = port.continue_as_new(handle.id)
        await trio.testing.wait_all_tasks_blocked()
        port.record(new_id, "value-published", key="progress", value=2)
        port.complete(new_id)
    assert seen == [1, 2]
    assert port.open_streams == 0


async def test_a_value_needs_a_key_that_was_published() -> None:
    _port, handle = await started()
    with pytest.raises(NotFound, match="nothing yet"):
        await handle.value("progress")
    with pytest.raises(InvalidRequest, match="key name"):
        await handle.value("two words")


async def test_the_input_of_a_fork_is_encoded_as_a_start_does_it() -> None:
    port, handle = await started()
    await handle.fork(2, input=("bo",), overrides={1: b"x"})
    request = port.forks[-1][1]
    assert request.input == {"name": "bo", "times": 1}
    assert request.input_hash == greet.encode_input(("bo",))[1]
    assert request.overrides == {1: "eA=="}
    named = await handle.fork(2, input={"name": "bo"}, version="2.0.0")
    assert port.forks[-1][1].input == {"name": "bo"}
    assert "greet@1.0.0" not in repr(named)
    with pytest.raises(InvalidRequest, match="by name, as a dict"):
        await handle.fork(2, input=("bo",), version="2.0.0")
    with pytest.raises(TypeError):
        await handle.fork(2, input=("bo", 1, 2))
