"""The report of a divergence: what it names, what it guesses, what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from aiki_actors import engine as e
from aiki_actors.worker import Replica
from aiki_actors.worker._divergence import BLIND, Sight, divergence, guesses, named
from aiki_actors.worker._source_lines import mentions
from aiki_sdk import JsonValue, OnParentEnd, Run, task, task_address, workflow

A, B = "a" * 64, "b" * 64


@task
async def charge_card(amount: int) -> str:
    return f"charge-{amount}"


@task
async def send_receipt(charge: str) -> str:
    return charge


@task
async def refund(charge: str) -> str:
    return charge


@workflow(name="child", version="1.0.0")
async def child(run: Run) -> None: ...


async def charging(amount: int) -> str:
    return await charge_card.options(timeout=5)(amount)


@workflow(name="order", version="1.0.0")
async def order(run: Run, amount: int) -> str:
    charge = await charging(amount)
    await run.call(child)
    return await send_receipt(charge)


def replica(*calls: tuple[str, str]) -> Replica:
    """Make the replica of a run in which these calls succeeded."""
    found = Replica()
    bodies = [
        e.TaskSucceeded(e.Call(f"task:{name}:{digest}"), 1, f"secret of {name}")
        for name, digest in calls
    ]
    found.apply([e.Entry(seq, e.Micros(seq), body) for seq, body in enumerate(bodies, start=1)])
    return found


def report(recorded: tuple[str, str], asked: tuple[str, str], sight: Sight = BLIND) -> str:
    call = e.Call(task_address(*asked))
    return str(divergence("run_1", replica(recorded), [(call, "order.py:7")], sight))


def test_it_names_both_calls_with_seq_address_and_line() -> None:
    text = report(("charge-card", A), ("charge-card", B))
    assert "run run_1" in text
    assert "seq 1  task 'charge-card' (input aaaaaaaa…): succeeded at attempt 1" in text
    assert "task 'charge-card' (input bbbbbbbb…) at order.py:7" in text


def test_it_says_which_edits_are_safe() -> None:
    text = report(("charge-card", A), ("charge-card", B))
    assert "Safe edits: reordering" in text
    assert "new version=" in text


@pytest.mark.parametrize(
    ("recorded", "asked", "guess"),
    [
        (("charge-card", A), ("charge-card", B), "The input of task 'charge-card' changed"),
        (("charge", A), ("charge-card", A), "task 'charge' was renamed to 'charge-card'"),
        (("charge-card", A), ("refund", B), "task 'refund' was inserted before task 'charge-card'"),
    ],
)
def test_it_guesses_the_edit(recorded: tuple[str, str], asked: tuple[str, str], guess: str) -> None:
    assert guess in report(recorded, asked, Sight(order.function))


def test_it_sees_that_a_childs_version_changed() -> None:
    found = Replica()
    spec: Any = None
    body = e.ChildStarted(
        e.Call(f"child:pay:1.0.0:{A}"), "run_2", "pay", "1.0.0", OnParentEnd.ABANDON, spec
    )
    found.apply([e.Entry(1, e.Micros(1), body)])
    (guess,) = guesses(found.left_over(), [e.Call(f"child:pay:2.0.0:{A}")])
    assert guess == "child 'pay' is started in version 2.0.0; recorded was version 1.0.0."


def test_it_shows_values_only_when_asked_to() -> None:
    """A report is logged in production, where payloads must not be."""
    asked = ("charge-card", B)
    assert "secret" not in report(("charge-card", A), asked, Sight(order.function))
    inputs: dict[str, JsonValue] = {task_address(*asked): {"amount": 7}}
    shown = report(("charge-card", A), asked, Sight(order.function, inputs, values=True))
    assert 'its result: "secret of charge-card"' in shown
    assert 'its input: {"amount":7}' in shown


def test_it_lists_ten_calls_and_counts_the_rest() -> None:
    many = replica(*[(f"task-{n}", A) for n in range(13)])
    text = str(divergence("run_1", many, [(e.Call("task:x:y"), None)]))
    assert "Recorded, but not asked for (13 of 13)" in text
    assert "task 'task-9'" in text
    assert "task 'task-10'" not in text
    assert "… and 3 more" in text


def test_a_call_is_named_with_its_branch_and_number() -> None:
    assert named(e.Call(f"task:t:{A}", "0.2", 1)) == (
        "task 't' (input aaaaaaaa…) in branch 0.2, call 2 of this kind"
    )
    assert named(e.Call("child:pay:1.0.0:order-7")) == "child 'pay@1.0.0' (order-7)"


def test_present_lines_are_found_through_the_functions_that_a_workflow_calls() -> None:
    line = charging.__code__.co_firstlineno + 1
    assert mentions(order.function, "task", "charge-card") == [f"test_divergence_report.py:{line}"]
    first = order.function.__code__.co_firstlineno
    assert mentions(order.function, "child", "child") == [f"test_divergence_report.py:{first + 3}"]


def test_what_is_not_called_any_more_has_no_lines_and_the_report_says_so() -> None:
    assert mentions(order.function, "task", "refund") == []
    text = report(("refund", A), ("charge-card", A), Sight(order.function))
    assert "called today at: nowhere any more  (the journal keeps no source lines)" in text


def test_code_without_source_has_no_lines() -> None:
    namespace: dict[str, Any] = {"charge_card": charge_card}
    exec("async def hidden(run):\n    await charge_card(1)\n", namespace)
    assert mentions(namespace["hidden"], "task", "charge-card") == []
