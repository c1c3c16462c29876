"""Cases of replay that were wrong once, each by its rule; found by random programs."""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from random import Random
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_actors.worker import idempotency_key
from aiki_sdk import workflow
from aiki_sdk._run import Run
from tests.unit.worker.fake_server import RUN_ID, Plan, live
from tests.unit.worker.programs import Step, go, observe, program, work
from tests.unit.worker.test_replay_properties import (
    check_ended,
    check_replays,
    execute,
    outcome_of,
    recorded_tasks,
)

LONG_RETRY: list[Step] = [["slow", 1, 0, 2, True]]
RETRY_BESIDE_A_WAIT: list[Step] = [
    ["nursery", [["nap", "a", 5]], [["slow", 0, 0, 2, True]], [["nap", "b", 8], ["local", 1]]]
]
CHILD_ENDS_AT_ONCE: list[Step] = [["kid", n % 3, 0, False, None, None] for n in range(6)]
EQUAL_CALLS_IN_CLEANUP: list[Step] = [
    [
        "nursery",
        [["first", [["slow", 2, 4, 0, True]], [["local", 1]], [["work", 2, 0, 0, False]]]],
        [["guard", 0, [["work", 1, 0, 3, True], ["guard", 1, [["work", 0, 1, 0, True]]]]]],
    ]
]
EVENTS_AND_SLEEPS: list[Step] = [
    ["take", "go", None],
    [
        "gather",
        [["take", "go", 3], ["nap", "a", 1]],
        [["take", "stop", 2], ["work", 1, 1, 1, True]],
    ],
    ["take", "stop", None],
]
CHILD_ENDS_BESIDE_A_WAIT: list[Step] = [
    ["deadline", 30, [["work", 0, 0, 0, True], ["local", 0], ["kid", 2, 0, True, None, None]]]
]
CHILDREN_IN_A_RACE: list[Step] = [
    ["race", [["gather", [["kid", 0, 0, False, None, None]]]], [["kid", 0, 0, False, None, None]]]
]
CHILD_OUTLIVES_FAILURE: list[Step] = [
    ["work", 1, 1, 0, True],
    ["gather", [["kid", 1, 8, False, None, None]], [["work", 0, 2, 3, False]]],
]
SENDS = ((0.0, "go", 1), (0.1, "go", 2), (0.1, "stop", 3), (0.3, "go", 4), (0.35, "stop", 5))


def attempts_journaled(journal: tuple[e.Entry, ...]) -> Counter[str]:
    """Count the attempts of each task call that the journal knows of."""
    return Counter(
        idempotency_key(RUN_ID, entry.body.call)
        for entry in journal
        if isinstance(entry.body, e.TaskSucceeded | e.TaskFailed | e.AttemptFailed)
    )


@pytest.mark.parametrize("warm_max", [0, 10])
@pytest.mark.parametrize(
    "steps",
    [LONG_RETRY, RETRY_BESIDE_A_WAIT, CHILD_ENDS_AT_ONCE, EVENTS_AND_SLEEPS],
    ids=["long-retry", "retry-beside-a-wait", "child-ends-at-once", "events-and-sleeps"],
)
def test_without_a_crash_no_attempt_is_executed_twice(steps: list[Step], warm_max: int) -> None:
    for seed in range(25):
        plan = Plan(SENDS, warm_max=warm_max, seed=seed)
        life, seen, executed = execute(steps, plan)
        check_ended(life)
        assert Counter(executed) == attempts_journaled(life.journal)
        check_replays(steps, plan, life, seen if warm_max else None)


def test_a_child_that_ends_after_its_parent_failed_changes_no_replay_of_the_parent() -> None:
    for seed in range(10):
        plan = Plan(seed=seed)
        life, seen, _executed = execute(CHILD_OUTLIVES_FAILURE, plan)
        check_ended(life)
        kinds = [type(entry.body) for entry in life.journal]
        assert kinds.index(e.RunFailed) < kinds.index(e.ChildEnded)
        assert e.RunFailed not in kinds[: len(life.before_end)]
        assert seen == ["/0 1"]
        for number, cut in enumerate(life.cuts[:-1]):
            resumed, seen_again, executed = execute(
                CHILD_OUTLIVES_FAILURE, plan, number + 1, life, cut
            )
            check_ended(resumed)
            assert outcome_of(resumed) == outcome_of(life)
            assert seen_again == seen
            assert not recorded_tasks(life.journal[:cut]) & set(executed)
            check_replays(CHILD_OUTLIVES_FAILURE, plan, resumed, seen)


def test_a_run_does_not_park_while_the_end_of_a_child_that_it_waits_for_is_on_its_way() -> None:
    for seed in range(100):
        plan = Plan(seed=seed)
        life, seen, _executed = execute(CHILD_ENDS_BESIDE_A_WAIT, plan)
        check_ended(life)
        ended = next(en for en in life.journal if isinstance(en.body, e.ChildEnded))
        parked = [en.seq for en in life.journal if isinstance(en.body, e.RunParked)]
        assert all(seq < ended.seq for seq in parked)
        assert life.journal[-1].at - ended.at < e.SECOND, "the run has not slept till its deadline"
        check_replays(CHILD_ENDS_BESIDE_A_WAIT, plan, life, seen)


def test_the_child_that_ends_first_wins_a_race_though_its_end_came_before_its_wait() -> None:
    for seed in range(300):
        plan = Plan(seed=seed, jitter=bool(seed % 2))
        life, seen, _executed = execute(CHILDREN_IN_A_RACE, plan)
        check_ended(life)
        first = next(en.body for en in life.journal if isinstance(en.body, e.ChildEnded))
        started = [en.body for en in life.journal if isinstance(en.body, e.ChildStarted)]
        winner = next(body.call.branch for body in started if body.child_id == first.child_id)
        assert life.state.outcome is not None
        assert life.state.outcome.output == [[f"r{winner[0]}", [[[0]] if winner[0] == "0" else 0]]]
        check_replays(CHILDREN_IN_A_RACE, plan, life, seen)


@workflow(name="impatient", version="1.0.0", events=[go])
async def impatient(run: Run, how: str) -> str:
    """End by itself, after a second that the journal knows nothing of."""
    with trio.move_on_after(1):
        if how == "branches":
            await run.gather(run.wait(go), run.wait(go))
        await run.wait(go)
        return "got"
    if how == "continue":
        await run.continue_as_new("once")
    return "late"


@pytest.mark.parametrize("how", ["once", "branches", "continue"])
def test_code_that_ends_by_itself_while_its_run_is_parked_ends_the_run(how: str) -> None:
    for seed in range(10):
        life = live(impatient, (how,), Plan(seed=seed))
        assert any(isinstance(en.body, e.RunParked) for en in life.journal)
        outcome = life.state.outcome
        assert outcome is not None
        assert outcome.error is None
        assert (outcome.continued_as is None) == (how != "continue")
        assert outcome.output == (None if how == "continue" else "late")
        assert not any(isinstance(en.body, e.EventAccepted) for en in life.journal)


def test_what_was_called_after_a_cancellation_is_not_given_to_an_equal_call_before_it() -> None:
    operators = ((0.0, e.PauseRun()), (0.1, e.ResumeRun()), (0.1, e.CancelRun("enough")))
    for seed in range(25):
        plan = Plan(commands=operators, seed=seed)
        life, _seen, _executed = execute(EQUAL_CALLS_IN_CLEANUP, plan)
        check_ended(life)
        for number in range(3):
            cut = len(life.before_end)
            again, _seen, executed = execute(EQUAL_CALLS_IN_CLEANUP, plan, number + 1, life, cut)
            check_ended(again)
            assert max(Counter(executed).values(), default=1) == 1


def test_a_run_is_resumed_from_every_prefix_of_its_journal() -> None:
    for steps in (RETRY_BESIDE_A_WAIT, EVENTS_AND_SLEEPS, EQUAL_CALLS_IN_CLEANUP):
        plan = Plan(SENDS, seed=3)
        life, _seen, _executed = execute(steps, plan)
        for cut in life.cuts[:-1]:
            resumed, seen, _executed = execute(steps, plan, cut, life, cut)
            check_ended(resumed)
            check_replays(steps, plan, resumed, seen)


@workflow(name="moved", version="1.0.0")
async def moved(run: Run, before: bool) -> list[Any]:
    """Two branches with one equal call, which trades places in a later release of the code."""
    results: list[Any] = []

    async def branch(number: int) -> None:
        if (number == 0) == before:
            results.append(await work(7, 1, 0))
        await run.sleep(f"s{number}", seconds=0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(branch, 0)
        nursery.start_soon(branch, 1)
    return [*results, await work(8, 0, 0)]


def test_a_recorded_call_is_found_by_another_branch_when_its_own_does_not_ask() -> None:
    observe()
    plan = Plan(seed=1)
    life = live(moved, (True,), plan)
    entry = life.journal[0]
    assert isinstance(entry.body, e.RunCreated)
    changed = e.Entry(1, entry.at, _with_input(entry.body, {"before": False}))
    done = next(n for n in life.cuts if any(_is_task(en) for en in life.journal[:n]))
    diary = observe()
    again = live(moved, (False,), plan, journal=(changed, *life.journal[1:done]), cuts=life.cuts)
    assert again.state.phase is e.Phase.COMPLETED
    assert len(diary.executed) == 1, "only the last task is new"


def _is_task(entry: e.Entry) -> bool:
    return isinstance(entry.body, e.TaskSucceeded)


def _with_input(body: e.RunCreated, data: dict[str, Any]) -> e.RunCreated:
    return evolve(body, input=data)


@workflow(name="spawner", version="1.0.0")
async def spawner(run: Run, outside: bool) -> float:
    """Start a task that is none of the workflow's, though within a step of it."""
    if outside:
        context = copy_context()
        trio.lowlevel.spawn_system_task(trio.lowlevel.checkpoint, context=context)
    first = run.random()
    async with trio.open_nursery() as inside:
        inside.start_soon(work, 1, 0, 0)
    return first


def test_tasks_that_others_start_are_no_branches_of_the_workflow() -> None:
    calls: list[list[e.Call]] = []
    for outside in (False, True):
        observe()
        life = live(spawner, (outside,), Plan(seed=1))
        bodies = [entry.body for entry in life.journal]
        calls.append([body.call for body in bodies if isinstance(body, e.TaskSucceeded)])
    assert calls[0] == calls[1]


def test_programs_are_the_same_for_the_same_seed() -> None:
    """The harness itself repeats: one seed, one life."""
    random = Random(1)
    for _ in range(3):
        plan = Plan(SENDS, seed=random.randrange(1_000), jitter=False)
        first = live(program, (EVENTS_AND_SLEEPS,), plan)
        second = live(program, (EVENTS_AND_SLEEPS,), plan)
        assert [type(en.body) for en in first.journal].count(e.RunCompleted) == 1
        assert first.state.outcome == second.state.outcome
