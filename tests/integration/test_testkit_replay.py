"""`replay`: today's code against a journal of yesterday, without executing anything."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from aiki_sdk import (
    AnyWorkflow,
    Divergence,
    InvalidRequest,
    JsonValue,
    RecordedTypeMismatch,
    Run,
    task,
    workflow,
)
from aiki_trio.testing import Aiki, Journal, export_journal, load_journal, replay, run

from .testkit_workflows import billing, charge, diary, fan_out, order, paid, remind, render, trial


async def _record(days: int, *, scrub: Any = None) -> Journal:
    async with Aiki() as aiki:
        handle = await aiki.start(order, 5)
        await aiki.sleep(timedelta(days=days))
        if days > 90:
            await handle.send(paid, "txn")
            await handle.result()
        return await export_journal(handle, scrub=scrub)


def recorded(days: int) -> Journal:
    return run(_record, days)


def test_the_code_that_was_recorded_replays_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    recorded(100).save(path)
    diary.charged.clear()
    report = replay(order, path)
    assert report.outcome == report.recorded
    assert report.outcome is not None
    assert report.outcome.output == "invoice of charge-5, txn, charge-6"
    assert report.remaining == report.stopped_at == ()
    assert diary.charged == []


def test_a_run_that_goes_on_replays_to_where_it_waits() -> None:
    report = replay(order, recorded(30))
    assert report.outcome is report.recorded is None
    assert report.consumed == 1
    (stop,) = report.stopped_at
    assert stop.startswith("sleep 'cool-off' at ")
    assert "testkit_workflows.py:" in stop


async def test_it_works_inside_trio_too() -> None:
    journal = await trio.to_thread.run_sync(recorded, 30)
    assert replay(order, journal).consumed == 1


def edited(code: Any) -> AnyWorkflow:
    return workflow(name="order", version="1.0.0", events=[paid])(code)


def test_a_changed_input_diverges_and_the_report_says_so() -> None:
    async def code(run: Run, amount: int) -> str:
        return await charge(amount + 1)

    with pytest.raises(Divergence) as caught:
        replay(edited(code), recorded(100))
    message = str(caught.value)
    assert "The input of task 'charge' changed" in message
    assert 'its result: "charge-5"' in message
    assert 'its input: {"amount":6}' in message
    assert f"test_testkit_replay.py:{code.__code__.co_firstlineno + 1}" in message
    assert "Safe edits:" in message


def test_an_inserted_call_diverges() -> None:
    async def code(run: Run, amount: int) -> str:
        await remind("ada")
        return await charge(amount)

    with pytest.raises(Divergence, match="task 'remind' was inserted before task 'charge'"):
        replay(edited(code), recorded(100))


def test_a_renamed_task_diverges() -> None:
    @task
    async def charge_card(amount: int) -> str:
        return ""

    async def code(run: Run, amount: int) -> str:
        return await charge_card(amount)

    with pytest.raises(Divergence, match="task 'charge' was renamed to 'charge-card'"):
        replay(edited(code), recorded(30))


def test_removing_calls_and_adding_sleeps_is_safe() -> None:
    """What comes after a sleep that is not recorded is checked too."""

    async def code(run: Run, amount: int) -> str:
        await run.sleep("breathe", days=1)
        charge_id = await charge(amount)
        await run.sleep("cool-off", days=90)
        return await render(charge_id)

    report = replay(edited(code), recorded(100))
    assert report.passed == ("sleep 'breathe'",)
    assert report.outcome is not None
    assert report.outcome.output == "invoice of charge-5"
    assert [call.split(" (")[0] for call in report.remaining] == ["child 'billing@1.0.0'"]


def test_a_call_after_all_recorded_ones_only_ends_the_replay() -> None:
    async def code(run: Run, amount: int) -> str:
        charge_id = await charge(amount)
        await run.sleep("cool-off", days=90)
        invoice = await render(charge_id)
        await run.wait(paid)
        second = await run.call(billing, amount + 1)
        return await remind(invoice + second)

    report = replay(edited(code), recorded(100))
    assert report.remaining == ()
    assert "task 'remind'" in report.stopped_at[0]


def test_code_that_raises_where_the_recorded_run_went_on_diverges() -> None:
    async def code(run: Run, amount: int) -> str:
        await charge(amount)
        raise KeyError("oops")

    with pytest.raises(Divergence, match=r"raised .*oops.* after 1 recorded calls"):
        replay(edited(code), recorded(100))


def test_a_result_that_does_not_fit_its_type_any_more_is_named() -> None:
    @task(name="charge")
    async def charge_number(amount: int) -> int:
        return amount

    async def code(run: Run, amount: int) -> int:
        return await charge_number(amount)

    with pytest.raises(RecordedTypeMismatch, match="charge"):
        replay(edited(code), recorded(100))


def test_code_that_waits_for_nothing_durable_is_told() -> None:
    async def code(run: Run, amount: int) -> None:
        await charge(amount)
        await trio.sleep_forever()

    with pytest.raises(Divergence, match="not durable and never comes"):
        replay(edited(code), recorded(100))


def test_a_journal_of_another_workflow_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="one of workflow 'order', not of 'trial'"):
        replay(trial, recorded(30))


def test_a_scrubbed_journal_holds_no_secret_and_replays_by_name(tmp_path: Path) -> None:
    places: list[str] = []

    def scrub(place: str, value: JsonValue) -> JsonValue:
        places.append(place)
        if isinstance(value, dict):
            return dict.fromkeys(value, 0)
        return "***" if isinstance(value, str) else value

    path = tmp_path / "scrubbed.json"
    run(lambda: _record(100, scrub=scrub)).save(path)
    assert "charge-5" not in path.read_text()
    assert load_journal(path).scrubbed
    report = replay(order, path)
    assert report.remaining == report.stopped_at == ()
    assert {"input", "task:charge output", "event:paid data", "output"} <= set(places)


async def _record_branches() -> Journal:
    async with Aiki() as aiki:
        handle = await aiki.start(fan_out, 3)
        await handle.result()
        return await export_journal(handle)


def test_branches_replay() -> None:
    report = replay(fan_out, run(_record_branches))
    assert report.consumed == 3
    assert report.outcome == report.recorded


def test_branches_that_ask_for_more_than_was_recorded_diverge() -> None:
    @workflow(name="fan-out", version="1.0.0")
    async def code(run: Run, count: int) -> tuple[str, ...]:
        return await run.gather(*[charge(n + 1) for n in range(count)])

    with pytest.raises(Divergence, match="The input of task 'charge' changed"):
        replay(code, run(_record_branches))
