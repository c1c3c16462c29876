"""Published values, questions and events between runs, in a whole runtime on virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from attrs import frozen

from aiki_sdk import (
    AskRejected,
    Event,
    NotFound,
    PayloadError,
    Question,
    ResultTimeout,
    Retry,
    RunEnded,
    UnknownEvent,
    UnknownQuestion,
    task,
    workflow,
)
from aiki_sdk._run import Run
from tests.integration.runtimes import bodies, file_runtime, kinds, settings_with, virtual_runtime

go = Event("go", int)
done = Event("done")


def positive(amount: int) -> None:
    if amount <= 0:
        message = f"the amount is {amount}; ask for more than nothing"
        raise ValueError(message)


@frozen
class Verdict:
    allowed: bool
    by: str


approve = Question("approve", int, Verdict, validator=positive)
hurry = Question("hurry")


@task
async def check(amount: int) -> bool:
    await trio.sleep(1)
    return amount < 100


# --- Values ---------------------------------------------------------------------------------------


@workflow(name="counter", version="1.0.0", events=[go])
async def counter(run: Run, steps: int) -> int:
    for step in range(steps):
        await run.publish("progress", step)
        await run.sleep("pause", seconds=10)
    await run.publish("note", {"steps": steps})
    return steps


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_a_published_value_is_read_and_written_once(
    warm_max: int, autojump_clock: object
) -> None:
    """Replayed at every step (nothing is kept warm), the code publishes nothing twice."""
    async with virtual_runtime(counter, settings=settings_with(warm_max=warm_max)) as runtime:
        handle = await runtime.client.start(counter, 3)
        await handle.wait("sleeping", timeout=5)
        assert await handle.value("progress", int) == 0
        await trio.sleep(11)
        assert await handle.value("progress") == 1
        await handle.result()
        assert (await handle.info()).values == {"progress": 2, "note": {"steps": 3}}
        values = [body["value"] for body in await bodies(handle, "value-published")]
        assert values == [0, 1, 2, {"steps": 3}]


async def test_a_value_that_was_not_published_is_not_found_or_the_default(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(counter) as runtime:
        handle = await runtime.client.start(counter, 1)
        await handle.wait("sleeping", timeout=5)
        with pytest.raises(NotFound, match="published: progress"):
            await handle.value("nothing")
        assert await handle.value("nothing", int, default=None) is None
        with pytest.raises(PayloadError, match="progress"):
            await handle.value("progress", str)


async def test_watching_gives_the_present_value_and_every_next_one(autojump_clock: object) -> None:
    async with virtual_runtime(counter) as runtime:
        handle = await runtime.client.start(counter, 4)
        await trio.sleep(15)
        seen = [value async for value in handle.watch("progress", int)]
        assert seen == [1, 2, 3]
        assert [value async for value in handle.watch("note")] == [{"steps": 4}]
        assert [value async for value in handle.watch("nothing")] == []


async def test_a_watch_can_be_left_early(autojump_clock: object) -> None:
    async with virtual_runtime(counter) as runtime:
        handle = await runtime.client.start(counter, 4)
        async with handle.watch("progress", int) as values:
            async for value in values:
                if value == 2:
                    break
        assert 20 <= trio.current_time() < 21


# --- Questions ------------------------------------------------------------------------------------


@workflow(name="office", version="1.0.0", questions=[approve, hurry], events=[done])
async def office(run: Run, count: int) -> list[int]:
    seen: list[int] = []
    async for ask in run.asks(approve):
        seen.append(ask.data)
        if ask.data == 13:
            await ask.reject("13 is unlucky")
        else:
            await ask.answer(Verdict(await check(ask.data), "office"))
        if len(seen) == count:
            return seen
    raise AssertionError("asks do not end")


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_a_question_is_answered_by_the_code(warm_max: int, autojump_clock: object) -> None:
    """Asked before and while the run waits, with and without a replay in between."""
    async with virtual_runtime(office, settings=settings_with(warm_max=warm_max)) as runtime:
        handle = await runtime.client.start(office, 3)
        assert await handle.ask(approve, 5) == Verdict(True, "office")
        await trio.sleep(100)
        assert await handle.ask(approve, 500) == Verdict(False, "office")
        with pytest.raises(AskRejected, match="13 is unlucky") as caught:
            await handle.ask(approve, 13)
        assert caught.value.reason == "13 is unlucky"
        assert await handle.result() == [5, 500, 13]
        assert (await kinds(handle)).count("question-answered") == 3


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_the_validator_rejects_before_the_code_sees_the_question(
    warm_max: int, autojump_clock: object
) -> None:
    async with virtual_runtime(office, settings=settings_with(warm_max=warm_max)) as runtime:
        handle = await runtime.client.start(office, 2)
        with pytest.raises(AskRejected, match="the amount is -5; ask for more"):
            await handle.ask(approve, -5)
        assert (await handle.ask(approve, 1)).allowed
        with pytest.raises(AskRejected, match="the amount is 0"):
            await handle.ask(approve, 0)
        assert (await handle.ask(approve, 2)).allowed
        assert await handle.result() == [1, 2]
        assert (await kinds(handle)).count("question-answered") == 4


async def test_many_ask_at_once_and_each_gets_its_own_answer(autojump_clock: object) -> None:
    async with virtual_runtime(office) as runtime:
        handle = await runtime.client.start(office, 10)
        answers: dict[int, bool] = {}

        async def one(amount: int) -> None:
            answers[amount] = (await handle.ask(approve, amount)).allowed

        async with trio.open_nursery() as nursery:
            for amount in range(60, 160, 10):
                nursery.start_soon(one, amount)
        assert answers == {amount: amount < 100 for amount in range(60, 160, 10)}


async def test_asked_again_under_one_reference_id_there_is_one_question(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(office) as runtime:
        handle = await runtime.client.start(office, 2)
        first = await handle.ask(approve, 5, reference_id="a-1")
        again = await handle.ask(approve, 7, reference_id="a-1")
        assert first == again
        await handle.ask(approve, 7)
        assert await handle.result() == [5, 7]
        assert await handle.ask(approve, 9, reference_id="a-1") == first


async def test_an_asker_does_not_wait_for_a_run_that_has_ended(autojump_clock: object) -> None:
    async with virtual_runtime(office, counter) as runtime:
        handle = await runtime.client.start(office, 1)
        ended: list[type[Exception]] = []

        async def wait_for_nothing() -> None:
            try:
                await handle.ask(hurry)
            except RunEnded as error:
                ended.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_nothing)
            await trio.sleep(5)
            await handle.ask(approve, 5)
        assert ended == [RunEnded]
        with pytest.raises(RunEnded):
            await handle.ask(approve, 5)


async def test_an_asker_can_stop_waiting_and_the_question_stays(autojump_clock: object) -> None:
    async with virtual_runtime(office) as runtime:
        handle = await runtime.client.start(office, 1)
        await handle.pause()
        with pytest.raises(ResultTimeout, match="did not answer question 'approve' within 3 s"):
            await handle.ask(approve, 5, timeout=3)
        await handle.resume()
        assert await handle.result() == [5]


async def test_an_undeclared_question_or_wrong_data_is_refused(autojump_clock: object) -> None:
    async with virtual_runtime(counter, office) as runtime:
        plain = await runtime.client.start(counter, 1)
        with pytest.raises(UnknownQuestion, match=r"declares no such question; it declares: none"):
            await plain.ask(approve, 5)
        handle = await runtime.client.start(office, 1)
        with pytest.raises(UnknownQuestion, match="it declares: approve, hurry"):
            await handle.ask(Question("other"))
        with pytest.raises(UnknownEvent, match="it declares: done"):
            await handle.send(Event("approve", int), 5)
        with pytest.raises(PayloadError, match="approve"):
            await handle.ask(Question("approve", str, Verdict), "five")


@workflow(name="desk", version="1.0.0", questions=[approve], retry=Retry.fixed(2, 5))
async def desk(run: Run, mode: str) -> int:
    async def handler(amount: int) -> Verdict:
        if amount == 13:
            raise AskRejected("not 13")
        return Verdict(await check(amount), f"desk {run.attempt}")

    if mode == "async":
        return (await run.answer(approve, handler)).data
    if mode == "sync":
        return (await run.answer(approve, lambda amount: Verdict(True, str(amount)))).data
    taken = await run.answer(approve)
    await taken.answer(Verdict(True, f"desk {run.attempt}"))
    if run.attempt == 1:
        message = "again"
        raise RuntimeError(message)
    return taken.data


async def test_a_handler_answers_with_what_it_returns(autojump_clock: object) -> None:
    async with virtual_runtime(desk) as runtime:
        handle = await runtime.client.start(desk, "async")
        assert await handle.ask(approve, 5) == Verdict(True, "desk 1")
        assert await handle.result() == 5
        handle = await runtime.client.start(desk, "async")
        with pytest.raises(AskRejected, match="not 13"):
            await handle.ask(approve, 13)
        handle = await runtime.client.start(desk, "sync")
        assert await handle.ask(approve, 5) == Verdict(True, "5")


async def test_an_answer_is_not_given_again_by_a_retry_of_the_workflow(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(desk) as runtime:
        handle = await runtime.client.start(desk, "none")
        assert await handle.ask(approve, 5) == Verdict(True, "desk 1")
        assert await handle.result() == 5
        assert (await kinds(handle)).count("question-answered") == 1


async def test_a_question_outlives_the_process_and_its_asker_finds_the_answer(
    tmp_path: Path,
) -> None:
    """On a file, in real time: asked, stopped, opened again, asked under the same name."""
    path = tmp_path / "aiki.db"
    async with file_runtime(path, office) as runtime:
        handle = await runtime.client.start(office, 1, reference_id="the-office")
        await handle.pause()
        with pytest.raises(ResultTimeout):
            await handle.ask(approve, 13, timeout=0.01, reference_id="q-1")
    async with file_runtime(path, office) as runtime:
        handle = await runtime.client.get(workflow=office, reference_id="the-office")
        await handle.resume()
        with pytest.raises(AskRejected, match="unlucky"):
            await handle.ask(approve, 13, timeout=20, reference_id="q-1")
        assert await handle.result() == [13]


# --- Events between runs --------------------------------------------------------------------------


@workflow(name="receiver", version="1.0.0", events=[go])
async def receiver(run: Run, count: int) -> list[int]:
    return [await run.wait(go) for _ in range(count)]


@workflow(name="sender", version="1.0.0")
async def sender(run: Run, target: str, count: int) -> str:
    for number in range(count):
        await run.send(target, go, number)
        await run.sleep("pause", seconds=1)
    return "sent"


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_an_event_sent_by_a_run_arrives_once_and_in_order(
    warm_max: int, autojump_clock: object
) -> None:
    async with virtual_runtime(
        receiver, sender, settings=settings_with(warm_max=warm_max)
    ) as runtime:
        target = await runtime.client.start(receiver, 3)
        source = await runtime.client.start(sender, target.id, 3)
        assert await target.result() == [0, 1, 2]
        assert await source.result() == "sent"
        assert (await kinds(source)).count("event-sent") == 3
        assert (await kinds(target)).count("event-accepted") == 3


async def test_a_run_that_is_gone_or_elsewhere_does_not_get_the_event(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender goes on; the log says what was not delivered, and to whom."""
    async with virtual_runtime(receiver, sender) as runtime:
        elsewhere = await runtime.client_for("other").start(receiver, 1)
        for target in ("run_unknown", elsewhere.id):
            source = await runtime.client.start(sender, target, 1)
            assert await source.result() == "sent"
        assert "event-accepted" not in await kinds(elsewhere)
    assert caplog.text.count("was not delivered") == 2
