"""The checkers notice what they are there for: each promise is broken once, in an honest world."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_actors.storage import MemoryStorage
from aiki_sdk.protocol import RunStatus
from aiki_trio import open_runtime
from tests.chaos.checkers import RunRecord, World, ended_as, read_world, violations
from tests.chaos.client import LoadClient, Memory
from tests.chaos.processes import ChildHangs, spawn
from tests.chaos.program import SETTINGS, judge
from tests.chaos.records import Record, RecordLog, read
from tests.chaos.workload import KINDS, WORKFLOWS, sinks

PLAYED = ("mixed", "listener", "family", "doomed", "host")


async def played(folder: Path) -> World:
    """Play a case of some kinds in a runtime that nobody disturbs."""
    told, done = folder / "acknowledged.jsonl", folder / "effects.jsonl"
    with RecordLog(told) as acknowledged, RecordLog(done) as effects:
        sinks.append(effects)
        async with open_runtime("memory://", workflows=WORKFLOWS, settings=SETTINGS) as runtime:
            client = LoadClient(runtime.client, Memory(), acknowledged)
            for name in PLAYED:
                await client.play(KINDS[name], 0)
                await client.see_end(KINDS[name], 0, 20.0)
            storage = runtime.storage
            assert isinstance(storage, MemoryStorage)
            while runtime.runs.active:  # noqa: ASYNC110  # nobody tells of the last one's end
                await trio.sleep(0.01)
            starts = [record for record in read(told) if record["what"] != "begin"]
            world = await read_world(storage, starts, read(done))
        sinks.remove(effects)
    return world


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Give what is known of runs that all went well."""
    return trio.run(partial(played, tmp_path_factory.mktemp("honest")))


def wrong(world: World) -> set[str]:
    """Return the properties that are broken."""
    return {line.split()[0] for line in violations(world, judge)}


def acknowledged(world: World, what: str, kind: str) -> Record:
    """Return the first acknowledgement of this sort."""
    return next(r for r in world.acknowledged if r["what"] == what and r["kind"] == kind)


def with_run(world: World, run_id: str, spoil: Callable[[RunRecord], RunRecord]) -> World:
    """Change what is known of one run."""
    return evolve(world, runs={**world.runs, run_id: spoil(world.runs[run_id])})


def refolded(run: RunRecord, entries: Sequence[e.Entry]) -> RunRecord:
    """Give a run other entries, numbered so that no gap gives them away."""
    numbered = tuple(evolve(entry, seq=seq) for seq, entry in enumerate(entries, start=1))
    return evolve(run, entries=numbered)


def test_an_honest_world_has_nothing_wrong(honest: World) -> None:
    assert violations(honest, judge) == []
    assert len(honest.runs) > len(PLAYED)
    assert honest.effects


def test_a_lost_run_is_noticed(honest: World) -> None:
    lost = str(acknowledged(honest, "start", "listener")["run"])
    runs = {run_id: run for run_id, run in honest.runs.items() if run_id != lost}
    assert {"P1", "P5"} <= wrong(evolve(honest, runs=runs))


def test_a_wrong_end_is_noticed(honest: World) -> None:
    run_id = str(acknowledged(honest, "start", "family")["run"])
    assert ended_as(honest, run_id, RunStatus.COMPLETED, ([1],)) is not None
    assert ended_as(honest, run_id, RunStatus.FAILED, ()) is not None
    assert ended_as(honest, "run_unknown", RunStatus.FAILED, ()) is not None


def test_one_reference_id_for_two_runs_is_noticed(honest: World) -> None:
    first = acknowledged(honest, "start", "listener")
    other = next(run_id for run_id in honest.runs if run_id != first["run"])
    again = (*honest.acknowledged, {**first, "run": other})
    assert "P8" in wrong(evolve(honest, acknowledged=again))


def test_a_gap_and_an_illegal_entry_are_noticed(honest: World) -> None:
    run_id = str(acknowledged(honest, "start", "listener")["run"])

    def gap(run: RunRecord) -> RunRecord:
        return evolve(run, entries=(*run.entries[:3], *run.entries[4:]))

    def twice(run: RunRecord) -> RunRecord:
        claimed = next(entry for entry in run.entries if isinstance(entry.body, e.RunClaimed))
        place = run.entries.index(claimed)
        return refolded(run, (*run.entries[:place], claimed, *run.entries[place:]))

    assert "P4" in wrong(with_run(honest, run_id, gap))
    assert {"P3", "P4"} <= wrong(with_run(honest, run_id, twice))


def test_a_row_that_says_something_else_is_noticed(honest: World) -> None:
    run_id = str(acknowledged(honest, "start", "listener")["run"])
    spoiled = with_run(
        honest, run_id, lambda r: evolve(r, row=evolve(r.row, epoch=r.row.epoch + 1))
    )
    assert wrong(spoiled) == {"P4"}


def test_an_owed_notice_is_noticed(honest: World) -> None:
    assert wrong(evolve(honest, notices=1)) == {"P7"}


def test_an_event_that_is_missing_doubled_or_out_of_order_is_noticed(honest: World) -> None:
    run_id = str(acknowledged(honest, "start", "listener")["run"])

    def is_event(entry: e.Entry) -> bool:
        return isinstance(entry.body, e.EventAccepted)

    def missing(run: RunRecord) -> RunRecord:
        return refolded(run, [entry for entry in run.entries if not is_event(entry)])

    def doubled(run: RunRecord) -> RunRecord:
        first = next(entry for entry in run.entries if is_event(entry))
        place = run.entries.index(first)
        return refolded(run, (*run.entries[: place + 1], first, *run.entries[place + 1 :]))

    assert "P5" in wrong(with_run(honest, run_id, missing))
    assert "P5" in wrong(with_run(honest, run_id, doubled))
    sends = [r for r in honest.acknowledged if r["what"] == "send" and r["run"] == run_id]
    turned = [r for r in honest.acknowledged if r not in sends] + sends[::-1]
    assert wrong(evolve(honest, acknowledged=turned)) == {"P5"}


def test_a_recorded_task_that_runs_again_is_noticed(honest: World) -> None:
    first = honest.effects[0]
    assert first["phase"] == "begin"
    late = {**first, "at": 2**53, "pid": 1}
    assert wrong(evolve(honest, effects=(*honest.effects, late))) == {"P2"}
    assert wrong(evolve(honest, effects=(*honest.effects, late), zombies=True)) == set()


def test_an_attempt_that_runs_twice_in_one_process_is_noticed(honest: World) -> None:
    twice = (honest.effects[0], *honest.effects)
    assert wrong(evolve(honest, effects=twice)) == {"P2"}
    assert wrong(evolve(honest, effects=twice, doubts=True)) == set()


def test_a_success_that_never_happened_is_noticed(honest: World) -> None:
    first = honest.effects[0]
    effects = [r for r in honest.effects if r["key"] != first["key"] or r["phase"] != "ok"]
    assert wrong(evolve(honest, effects=effects)) == {"P2"}


def test_a_descendant_that_a_cancellation_did_not_reach_is_noticed(honest: World) -> None:
    root = str(acknowledged(honest, "cancel", "doomed")["run"])
    child = next(i for i, run in honest.runs.items() if run.row.parent_id == root)

    def lives(run: RunRecord) -> RunRecord:
        return evolve(run, row=evolve(run.row, status=RunStatus.SLEEPING))

    assert "P7" in wrong(with_run(honest, child, lives))


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RecordLog(path) as log:
        log.append(what="whole")
    with path.open("a") as file:
        file.write('{"what": "ha')
    assert [record["what"] for record in read(path)] == ["whole"]


def test_a_child_is_gone_when_its_block_is_left(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with spawn(command, "sleeper", env={}, output=output) as child:
        child.until(lambda: output.read_text() == "up\n", 20.0, "come up")
        with pytest.raises(ChildHangs, match="did not end"):
            child.wait(0.01)
    assert child.code == -signal.SIGKILL
