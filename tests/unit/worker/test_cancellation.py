"""A durable call cancelled at any await of its own: nothing is lost, nothing is left open."""

from __future__ import annotations

import pytest
import trio

from aiki_actors import engine as e
from aiki_sdk import Event, workflow
from aiki_sdk._run import Run
from tests.unit.worker.fake_server import RUN_ID, Plan, live
from tests.unit.worker.programs import kid, observe, work

go = Event("go", int)
KINDS = ("work", "take", "nap", "kid", "local")


async def _cancel_later(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def _operation(run: Run, kind: str) -> int:
    match kind:
        case "work":
            return await work(1, 0, 0)
        case "take":
            return await run.wait(go)
        case "nap":
            await run.sleep("nap", seconds=0.01)
            return 1
        case "kid":
            return await run.call(kid, 1, 0, False)
        case _:
            return await run.local("local", lambda: 1)


@workflow(name="anywhere", version="1.0.0", events=[go])
async def anywhere(run: Run, kind: str, steps: int, branched: bool) -> int:
    """Cancel one operation after so many steps of the scheduler, then go on."""
    got = 0
    with trio.CancelScope() as scope:
        trio.lowlevel.spawn_system_task(_cancel_later, scope, steps)
        if branched:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.sleep, "beside", 0.02)
                got = await _operation(run, kind)
        else:
            got = await _operation(run, kind)
    if kind == "take" and not got:
        got = await run.wait(go)
    return got * 100 + await work(2, 0, 0)


@pytest.mark.parametrize("branched", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_cancelled_at_any_await_leaves_the_run_as_if_it_had_been_chosen(
    kind: str, branched: bool
) -> None:
    for steps in range(30):
        for sent_s in (0.0, 0.001):
            diary = observe()
            plan = Plan(sends=[(sent_s, "go", 1)], seed=steps)
            life = live(anywhere, (kind, steps, branched), plan)
            state = e.fold(RUN_ID, life.before_end)
            assert life.state.phase is e.Phase.COMPLETED, life.state.outcome
            assert life.state.outcome is not None
            output = life.state.outcome.output
            assert output in ((102,) if kind == "take" else (2, 102))
            assert not state.waits, "what was given up is still waited for"
            consumed = [en for en in life.journal if isinstance(en.body, e.EventConsumed)]
            returned = [en for en in life.journal if isinstance(en.body, e.EventReturned)]
            assert len(consumed) - len(returned) == (kind == "take")
            assert len(diary.executed) == len(set(diary.executed))


@workflow(name="careless", version="1.0.0")
async def careless(run: Run, branched: bool) -> str:
    """Make a local function fail."""

    def fail() -> int:
        message = "local"
        raise ValueError(message)

    try:
        if branched:
            await run.gather(run.local("l", fail), run.sleep("s", seconds=1))
        else:
            await run.local("l", fail)
    except ValueError as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("branched", [False, True])
def test_what_a_local_function_raises_is_given_to_the_code_that_called_it(branched: bool) -> None:
    life = live(careless, (branched,), Plan())
    assert life.state.outcome is not None
    assert life.state.outcome.output == "local"
