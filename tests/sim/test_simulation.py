"""The simulator itself: it repeats, it reports, and it takes users' own workflows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_sdk import Event, Retry, Run, RunHandle, task, workflow
from aiki_trio.testing import (
    Fault,
    SimOptions,
    Simulation,
    SimulationFailed,
    explore,
    simulate,
)
from aiki_trio.testing.sim.__main__ import keep, main
from aiki_trio.testing.sim._options import LATER
from aiki_trio.testing.sim._simulation import replay_line

SEEDS = Path(__file__).with_name("seeds")


@task(name="sim-test-charge", retry=Retry.fixed(5, 0.1))
async def charge(order: str) -> str:
    """Take a while."""
    await trio.sleep(0.2)
    return f"charged {order}"


paid = Event("paid", int)


@workflow(name="sim-test-order", version="1.0.0", events=[paid])
async def order_flow(run: Run, order: str) -> list[Any]:
    receipt = await charge(order)
    amount = await run.wait(paid)
    await run.sleep("cool-off", seconds=30)
    return [receipt, amount]


async def orders(sim: Simulation) -> None:
    """Start orders, pay them, and see them end."""

    async def one(number: int) -> None:
        name = f"order-{number}"
        handle: RunHandle[list[Any]] = await sim.client.start(order_flow, name, reference_id=name)
        await trio.sleep(sim.random(name).random() * 10)
        await handle.send(paid, number, reference_id="payment")
        assert await handle.result() == [f"charged {name}", number]

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, number)


HARSH = SimOptions(
    workers=2,
    safety_s=20.0,
    fault_gap_s=1.0,
    claims_lost_max=100,
    faults=(Fault.WORKER_CRASH, Fault.SERVER_CRASH, Fault.CRASH_AT_CALL, Fault.PARTITION),
)


def test_workflows_of_a_user_end_right_whatever_crashes() -> None:
    for seed in range(3):
        report = simulate(seed, orders, workflows=[order_flow], options=HARSH)
        assert report.runs == 4
        assert report.attempts >= 4


def test_a_failing_workload_is_told_with_its_seed_and_its_trace() -> None:
    async def wrong(sim: Simulation) -> None:
        handle = await sim.client.start(order_flow, "x", reference_id="x")
        await handle.send(paid, 1, reference_id="p")
        assert await handle.result() == ["something else"], "the order is not as it should be"

    with pytest.raises(SimulationFailed, match="not as it should be") as failed:
        simulate(11, wrong, workflows=[order_flow], options=SimOptions(safety_s=1.0))
    assert failed.value.seed == 11
    text = str(failed.value)
    assert "the last" in text
    assert "run-completed" in text
    call = "wrong, workflows=[order_flow], options=SimOptions(safety_s=1.0))"
    assert text.splitlines()[-1].startswith("replay: simulate(11, ")
    assert text.endswith(call)


def test_a_failing_seed_of_the_random_workload_is_told_with_its_command() -> None:
    line = replay_line(7, None, (), None)
    assert line == "python -m aiki_trio.testing.sim --seeds 1 --seed 7"
    assert replay_line(7, None, (), SimOptions(runs=3)) == "simulate(7, options=SimOptions(runs=3))"


@pytest.mark.parametrize("seed", range(20))
def test_options_are_shown_as_the_code_that_makes_them(seed: int) -> None:
    options = SimOptions.drawn(seed)
    made = eval(options.as_code(), {"SimOptions": SimOptions, "Fault": Fault})
    assert made == options


def test_a_seed_kept_before_there_were_queues_means_what_it_meant() -> None:
    for seed in range(30):
        old, new = SimOptions.drawn(seed, drawing=1), SimOptions.drawn(seed)
        assert not old.queue
        assert not set(old.faults) & set(LATER)
        both = tuple(fault for fault in new.faults if fault not in LATER)
        assert evolve(new, queue=False, faults=both) == old


def test_a_workload_of_ones_own_meets_no_queue_and_no_lost_commits_unless_it_asks() -> None:
    drawn = [SimOptions.drawn(seed, own=True) for seed in range(60)]
    assert not any(options.queue for options in drawn)
    assert not any(Fault.LOST_COMMITS in options.faults for options in drawn)


def test_a_queue_without_its_extra_is_no_failure_of_the_workload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aiki_actors.queue.redis", None)
    with pytest.raises(ModuleNotFoundError):
        simulate(1, orders, workflows=[order_flow], options=SimOptions(queue=True))


def test_workflows_of_a_user_end_right_with_a_redis_that_misbehaves() -> None:
    faults = (Fault.QUEUE_LOSS, Fault.QUEUE_DISORDER, Fault.QUEUE_DOWN, Fault.WORKER_CRASH)
    options = evolve(HARSH, faults=faults, queue=True)
    assert simulate(5, orders, workflows=[order_flow], options=options).runs == 4


def test_a_run_that_nobody_lets_end_is_a_broken_promise() -> None:
    async def forgetful(sim: Simulation) -> None:
        await sim.client.start(order_flow, "x", reference_id="x")

    with pytest.raises(SimulationFailed, match="event paid") as failed:
        simulate(1, forgetful, workflows=[order_flow], options=SimOptions(liveness_s=60.0))
    assert failed.value.promises == ("P1",)


def test_a_reported_breach_ends_the_simulation() -> None:
    async def breach(sim: Simulation) -> None:
        sim.broken("P0", "the sky has fallen")
        await trio.sleep_forever()

    with pytest.raises(SimulationFailed, match="the sky has fallen"):
        simulate(1, breach, workflows=[order_flow])


def test_a_seed_repeats_itself_to_the_last_line() -> None:
    first, second = simulate(4), simulate(4)
    assert first.digest == second.digest
    assert first == second


def test_a_seed_repeats_itself_in_another_process_with_another_hash_seed() -> None:
    code = "from aiki_trio.testing import simulate; print(simulate(16).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {simulate(16).digest + "\n"}


def test_what_asks_the_machine_is_found_by_running_a_seed_twice() -> None:
    counter = iter(range(100))

    async def impure(sim: Simulation) -> None:
        sim.note(f"this is call {next(counter)} in this process")
        await trio.lowlevel.checkpoint()

    with pytest.raises(SimulationFailed, match="differ"):
        explore(
            [1], impure, workflows=[order_flow], options=SimOptions(safety_s=1.0), twice_every=1
        )


def test_many_seeds_of_random_programs_keep_every_promise() -> None:
    found = explore(range(5_000, 5_012), twice_every=6)
    assert found.simulations == 12
    assert not found.failures
    assert "12 simulations" in str(found)


def test_exploring_goes_on_after_a_failure_if_somebody_hears_of_it() -> None:
    async def odd(sim: Simulation) -> None:
        await trio.lowlevel.checkpoint()
        if sim.seed == 2:
            sim.broken("P0", "two is odd")

    heard: list[SimulationFailed] = []
    found = explore(
        range(4),
        odd,
        workflows=[order_flow],
        options=SimOptions(safety_s=1.0),
        on_failure=heard.append,
    )
    assert [failure.seed for failure in found.failures] == [2]
    assert heard == found.failures
    assert found.simulations == 4


def test_the_command_runs_seeds_and_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--seed", "16", "--twice-every", "0"]) == 0
    assert "2 simulations" in capsys.readouterr().out


def test_a_failing_seed_is_written_down(tmp_path: Path) -> None:
    failure = SimulationFailed(3, SimOptions(), [("P5", "an event was lost")], ["…"], "replay it")
    keep(tmp_path / "seeds", failure)
    kept = json.loads((tmp_path / "seeds" / "seed-3.json").read_text())
    assert kept["seed"] == 3
    assert kept["promises"] == ["P5"]


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_seed_that_found_a_bug_finds_none_any_more(path: Path) -> None:
    """Each file in `seeds/` names a bug that this seed found, and the fix that stopped it."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    seed = kept["seed"]
    simulate(seed, options=SimOptions.drawn(seed, drawing=kept.get("drawing", 1)))
