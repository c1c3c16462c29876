"""The timers: exact, never early, bounded, and not shaken by the database or the clock."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random

import pytest
import trio
from attrs import Factory, define, evolve as evolve_row, field
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from aiki_actors.engine import Entry, Micros, RunCreated, fold, project
from aiki_actors.kernel import ChildSpec, SupervisorSpec, open_system
from aiki_actors.server._timers import FOREVER, Timers, TimersActor, TimerSettings
from aiki_actors.storage import Appended, Change, DueRun, MemoryStorage
from aiki_sdk import StorageError

SECOND = 1_000_000
EPOCH = 1_767_225_600 * SECOND


@define(eq=False)
class World:
    """A database of due times, a wall clock on Trio's, and a record of what was fired when."""

    settings: TimerSettings = TimerSettings(clock_check=None, coalesce=timedelta(0))
    due_at: dict[str, Micros] = Factory(lambda: dict[str, Micros]())
    fired: list[tuple[str, int]] = Factory(lambda: list[tuple[str, int]]())
    stale: list[str] = Factory(lambda: list[str]())
    batches: list[int] = Factory(lambda: list[int]())
    reads: list[Micros] = Factory(lambda: list[Micros]())
    jump: int = 0
    broken: bool = False
    before_page: Callable[[], Awaitable[None]] | None = None
    after_snapshot: Callable[[], Awaitable[None]] | None = None
    on_elapse: Callable[[list[str]], Awaitable[None]] | None = None
    largest: int = 0
    timers: Timers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.timers = Timers(self, self.now, self.elapse, self.settings)

    def now(self) -> Micros:
        return Micros(EPOCH + self.jump + round(trio.current_time() * SECOND))

    def at(self, seconds: float) -> Micros:
        return Micros(EPOCH + round(seconds * SECOND))

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        self.reads.append(before)
        self.largest = max(self.largest, len(self.timers))
        if self.before_page is not None:
            await self.before_page()
        if self.broken:
            await trio.lowlevel.checkpoint()
            raise StorageError("the disk is on fire")
        behind = DueRun("", Micros(-1)) if after is None else after
        rows = sorted((due, run_id) for run_id, due in self.due_at.items() if due < before)
        first = bisect_right(rows, (behind.due_at, behind.run_id))
        page = [DueRun(run_id, due) for due, run_id in rows[first : first + limit]]
        if self.after_snapshot is not None:
            await self.after_snapshot()
        await trio.lowlevel.checkpoint()
        return page

    async def elapse(self, run_ids: list[str]) -> None:
        await trio.lowlevel.checkpoint()
        if self.on_elapse is not None:
            await self.on_elapse(run_ids)
        self.batches.append(len(run_ids))
        for run_id in run_ids:
            # As a run actor does: what is due is decided by the run, not by who woke it.
            if self.due_at.get(run_id, FOREVER) > self.now():
                self.stale.append(run_id)
            else:
                self.fired.append((run_id, self.now() - EPOCH))
                del self.due_at[run_id]

    def set(self, run_id: str, due_at: Micros) -> None:
        """What a run actor does: durable first, then told to the timers."""
        self.due_at[run_id] = due_at
        self.timers.set(run_id, due_at)

    def clear(self, run_id: str) -> None:
        self.due_at.pop(run_id, None)
        self.timers.clear(run_id)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.timers.keep_firing)
            nursery.start_soon(self.timers.keep_loading)
            await wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()


def quick(
    *, timers_max: int = 100_000, page_size: int = 1_000, batch_max: int = 500
) -> TimerSettings:
    return TimerSettings(
        clock_check=None,
        coalesce=timedelta(0),
        timers_max=timers_max,
        page_size=page_size,
        batch_max=batch_max,
    )


# --- when ---


async def test_a_timer_fires_exactly_at_its_time(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running():
        world.set("later", world.at(2.5))
        world.set("sooner", world.at(0.000_001))
        await trio.sleep(10)
    assert world.fired == [("sooner", 1), ("later", 2_500_000)]


async def test_what_is_overdue_at_the_start_fires_at_once(autojump_clock: MockClock) -> None:
    world = World(due_at={"old": Micros(EPOCH - 1), "new": Micros(EPOCH + SECOND)})
    async with world.running():
        assert world.fired == [("old", 0)]
        await trio.sleep(2)
    assert world.fired[1:] == [("new", SECOND)]


async def test_a_timer_of_two_weeks_fires_on_time_with_few_reads(autojump_clock: MockClock) -> None:
    """Nothing near: nothing is polled, so skipped time costs nothing."""
    world = World()
    async with world.running():
        world.set("trial", world.at(14 * 86_400))
        assert len(world.timers) == 0, "a far timer is left to the database"
        await trio.sleep(15 * 86_400)
    assert world.fired == [("trial", 14 * 86_400 * SECOND)]
    assert len(world.reads) < 10


async def test_a_later_time_replaces_an_earlier_one(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running():
        world.set("r", world.at(5))
        world.set("r", world.at(20))
        world.set("far", world.at(5))
        world.set("far", world.at(5_000))
        await trio.sleep(100)
        assert world.fired == [("r", 20 * SECOND)]
        await trio.sleep(10_000)
    assert world.fired[1:] == [("far", 5_000 * SECOND)]
    assert world.stale == []


async def test_an_earlier_time_replaces_a_later_one(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running():
        world.set("r", world.at(20))
        await trio.sleep(1)
        world.set("r", world.at(5))
        await trio.sleep(100)
    assert world.fired == [("r", 5 * SECOND)]


async def test_a_cleared_timer_does_not_fire(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running():
        for run_id, due in (("near", 5), ("far", 500)):
            world.set(run_id, world.at(due))
            world.clear(run_id)
        world.timers.clear("unknown")
        await trio.sleep(1_000)
    assert world.fired == []


async def test_close_timers_gather_and_are_hardly_late(autojump_clock: MockClock) -> None:
    world = World(TimerSettings(clock_check=None))
    async with world.running():
        for number in range(1_000):
            world.set(f"r{number:03}", Micros(EPOCH + SECOND + 100 * number))
        await trio.sleep(5)
    assert [run_id for run_id, _ in world.fired] == [f"r{number:03}" for number in range(1_000)]
    assert all(at - SECOND - 100 * n < 10_000 for n, (_, at) in enumerate(world.fired))
    assert len(world.batches) < 100


# --- the clock ---


async def test_a_clock_that_jumps_back_wakes_nothing_early(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running():
        world.set("r", world.at(10))
        await trio.sleep(5)
        world.jump = -3 * SECOND
        await trio.sleep(7.999)
        assert not world.fired
        await trio.sleep(1)
    assert world.fired == [("r", 10 * SECOND)]
    assert world.stale == []


async def test_a_clock_that_jumps_ahead_is_noticed(autojump_clock: MockClock) -> None:
    """As after a suspended machine: near and far timers fire within the check interval."""
    world = World(TimerSettings(clock_check=timedelta(seconds=1)))
    async with world.running():
        world.set("near", world.at(50))
        world.set("far", world.at(3_000))
        await trio.sleep(0.5)
        world.jump = 3_600 * SECOND
        await trio.sleep(2)
    assert sorted(run_id for run_id, _ in world.fired) == ["far", "near"]


# --- the database ---


async def test_timers_are_read_page_by_page_up_to_the_horizon(autojump_clock: MockClock) -> None:
    world = World(
        quick(page_size=10),
        due_at={f"r{number:04}": Micros(EPOCH + number * SECOND) for number in range(1, 301)},
    )
    async with world.running():
        assert len(world.timers) == 59
        await trio.sleep(400)
    assert world.fired == [(f"r{n:04}", n * SECOND) for n in range(1, 301)]
    assert world.largest < 100


async def test_a_database_that_fails_does_not_stop_near_timers(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(due_at={"far": Micros(EPOCH + 90 * SECOND)})
    async with world.running():
        world.broken = True
        world.set("near", world.at(50))
        with caplog.at_level(logging.WARNING):
            await trio.sleep(85)
        assert world.fired == [("near", 50 * SECOND)]
        assert "cannot read due runs" in caplog.text
        assert len(world.reads) < 20, "retries back off"
        world.broken = False
        await trio.sleep(20)
    assert world.fired[1] == ("far", 90 * SECOND) or world.fired[1][1] < 100 * SECOND


async def test_a_timer_set_while_a_page_is_read_is_not_lost(autojump_clock: MockClock) -> None:
    """The snapshot of the page is older than the timer, and the page's end lies behind it."""
    world = World(due_at={"other": Micros(EPOCH + 40 * SECOND)})
    once = [True]

    async def set_meanwhile() -> None:
        if once and once.pop():
            world.set("new", world.at(30))
            world.set("other", world.at(35))
            world.set("far", world.at(7_000))

    world.after_snapshot = set_meanwhile
    async with world.running():
        await trio.sleep(100)
        assert world.fired == [("new", 30 * SECOND), ("other", 35 * SECOND)]
        await trio.sleep(8_000)
    assert world.fired[2] == ("far", 7_000 * SECOND)


async def test_a_timer_cleared_while_a_page_is_read_stays_cleared(
    autojump_clock: MockClock,
) -> None:
    world = World(due_at={"r": Micros(EPOCH + 40 * SECOND)})
    once = [True]

    async def clear_meanwhile() -> None:
        if once and once.pop():
            world.clear("r")

    world.after_snapshot = clear_meanwhile
    async with world.running():
        await trio.sleep(100)
    assert world.fired == []
    assert world.stale == []


async def test_a_wake_up_that_was_lost_is_repeated(autojump_clock: MockClock) -> None:
    """The run was told, but nothing became of it: the database still has it due."""
    world = World()
    lost: list[str] = []

    async def lose(run_ids: list[str]) -> None:
        if not lost:
            lost.extend(run_ids)
            run_ids.clear()

    world.on_elapse = lose
    async with world.running():
        world.set("r", world.at(5))
        await trio.sleep(100)
    assert lost == ["r"]
    assert [run_id for run_id, _ in world.fired] == ["r"]
    assert world.fired[0][1] < 60 * SECOND


async def test_runs_that_cannot_be_woken_for_the_database_are_tried_again(
    autojump_clock: MockClock,
) -> None:
    world = World()
    tries: list[float] = []

    async def fail_twice(_run_ids: list[str]) -> None:
        tries.append(trio.current_time())
        if len(tries) < 3:
            raise StorageError("locked")

    world.on_elapse = fail_twice
    async with world.running():
        world.set("r", world.at(5))
        await trio.sleep(10)
    assert len(tries) == 3
    assert [run_id for run_id, _ in world.fired] == ["r"]


# --- bounds ---


async def test_batches_are_bounded_and_wait_for_one_another(autojump_clock: MockClock) -> None:
    world = World(quick(batch_max=10))
    running = 0

    async def slow(_run_ids: list[str]) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(0.1)
        running -= 1

    world.on_elapse = slow
    async with world.running():
        for number in range(95):
            world.set(f"r{number:02}", world.at(1))
        await trio.sleep(10)
    assert world.batches == [10] * 9 + [5]


async def test_with_too_many_timers_the_horizon_shrinks_and_none_is_lost(
    autojump_clock: MockClock,
) -> None:
    """More are due at one instant than may be kept, before and behind that instant as well."""
    world = World(quick(timers_max=40, page_size=7))
    for number in range(200):
        world.due_at[f"a{number:03}"] = Micros(EPOCH + number * SECOND // 10)
        world.due_at[f"b{number:03}"] = Micros(EPOCH + 10 * SECOND)
    due = dict(world.due_at)
    async with world.running():
        await trio.sleep(60)
    assert world.largest <= 40
    assert sorted(run_id for run_id, _ in world.fired) == sorted(due)
    assert all(due[run_id] - EPOCH <= at for run_id, at in world.fired)
    assert all(at - due[run_id] + EPOCH < 10_000 for run_id, at in world.fired)


async def test_with_too_many_set_the_later_ones_go_back_to_the_database(
    autojump_clock: MockClock,
) -> None:
    world = World(quick(timers_max=100, page_size=10))
    async with world.running():
        for number in range(1_000):
            world.set(f"r{number}", Micros(EPOCH + SECOND + (number * 7919) % 50_000_000))
            assert len(world.timers) <= 100
        due = dict(world.due_at)
        await trio.sleep(100)
    assert sorted(run_id for run_id, _ in world.fired) == sorted(due)
    assert all(0 <= at + EPOCH - due[run_id] < 10_000 for run_id, at in world.fired)


@pytest.mark.slow  # the number is the point
async def test_a_hundred_thousand_timers_are_set_and_fired_in_order(
    autojump_clock: MockClock,
) -> None:
    world = World(quick(batch_max=5_000))
    async with world.running():
        for number in range(100_000):
            due_at = Micros(EPOCH + SECOND + number * 31_337 % 50_000_000)
            world.set(f"r{number}", due_at)
        assert len(world.timers) == 100_000
        await trio.sleep(60)
    assert len(world.fired) == 100_000
    assert [at for _, at in world.fired] == sorted(at for _, at in world.fired)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_max is 0"):
        TimerSettings(batch_max=0)
    with pytest.raises(ValueError, match="horizon"):
        TimerSettings(horizon=timedelta(0))
    with pytest.raises(ValueError, match="coalesce"):
        TimerSettings(coalesce=timedelta(-1))


# --- any order of things ---

step = st.one_of(
    st.tuples(
        st.just("set"),
        st.sampled_from("abcdefgh"),
        st.sampled_from([0.0, 0.1, 1, 29, 31, 59, 61, 500]),
    ),
    st.tuples(st.just("clear"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.05, 3, 29, 31, 200])),
    st.tuples(st.just("slow reads"), st.sampled_from([0.0, 0.01])),
    st.tuples(st.just("break"), st.booleans()),
)


@given(st.lists(step, max_size=40), st.sampled_from([1, 3, 100_000]), st.random_module())
def test_every_timer_fires_once_at_its_time(
    steps: Sequence[tuple[object, ...]], timers_max: int, seed: object
) -> None:
    """Whatever is set, cleared and read when: what stands at its due time fires, in time."""

    async def scenario() -> None:
        world = World(quick(timers_max=timers_max, page_size=2))
        expected: dict[str, int] = {}
        healthy = [True]

        async def note(run_ids: list[str]) -> None:
            for run_id in run_ids:
                if expected.get(run_id, FOREVER) <= world.now():
                    late = world.now() - expected.pop(run_id)
                    # A page that takes 10 ms, or retries after an outage, are what it may cost.
                    assert late <= 200_000 or not healthy[0], f"{run_id} was {late} us late"

        world.on_elapse = note

        async def slow() -> None:
            await trio.sleep(delay)

        delay = 0.0
        async with world.running():
            for one in steps:
                match one:
                    case ("set", str(run_id), float() | int() as seconds):
                        expected[run_id] = world.now() + round(seconds * SECOND)
                        world.set(run_id, Micros(expected[run_id]))
                    case ("clear", str(run_id)):
                        expected.pop(run_id, None)
                        world.clear(run_id)
                    case ("sleep", float() | int() as seconds):
                        await trio.sleep(seconds)
                    case ("slow reads", float() as delay):
                        world.before_page = world.after_snapshot = slow if delay else None
                    case ("break", bool() as broken):
                        healthy[0] = False
                        world.broken = broken
                    case _:
                        raise AssertionError(one)
            world.broken = False
            await trio.sleep(700)
        assert not expected, f"never fired: {expected}"
        assert not world.due_at

    trio.run(scenario, clock=MockClock(autojump_threshold=0))


# --- the actor ---


async def test_a_restarted_actor_reads_the_database_again(autojump_clock: MockClock) -> None:
    world = World()
    failures: list[str] = []

    async def fail_once(run_ids: list[str]) -> None:
        if not failures:
            failures.extend(run_ids)
            raise RuntimeError("a bug")

    world.on_elapse = fail_once
    spec = SupervisorSpec(children=(ChildSpec("timers", lambda: TimersActor(world.timers)),))
    async with open_system("app", spec, rng=Random(0)) as system:
        await wait_all_tasks_blocked()
        world.set("r", world.at(5))
        (node,) = system.tree().children
        assert (node.kind, node.describe) == ("timers", "1 near timers, 0 fired")
        await trio.sleep(20)
        assert system.failures == 1
    assert failures == ["r"]
    assert [run_id for run_id, _ in world.fired] == ["r"]


def test_forever_is_a_time_that_databases_know() -> None:
    assert timedelta(microseconds=FOREVER) < timedelta.max


async def test_timers_read_what_storage_keeps(autojump_clock: MockClock) -> None:
    """With the real in-memory storage in place of the fake: pages, order and bounds fit."""
    storage = MemoryStorage()
    spec = RunCreated("default", "wf", "1", input=None, input_hash="0", start_at=Micros(EPOCH))
    for number in range(1, 151):
        entry = Entry(1, Micros(EPOCH), spec)
        state = fold(f"run-{number:03}", [entry])
        row = evolve_row(project(state), due_at=Micros(EPOCH + number * SECOND))
        change = Change(state.run_id, 1, (entry,), projection=row, create=True)
        assert await storage.append([change]) == [Appended()]
    fired: list[tuple[str, float]] = []

    async def elapse(run_ids: list[str]) -> None:
        await trio.lowlevel.checkpoint()
        fired.extend((run_id, trio.current_time()) for run_id in run_ids)

    def now() -> Micros:
        return Micros(EPOCH + round(trio.current_time() * SECOND))

    timers = Timers(storage, now, elapse, quick(page_size=7))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.keep_firing)
        nursery.start_soon(timers.keep_loading)
        await trio.sleep(151)
        nursery.cancel_scope.cancel()
    first = dict(reversed(fired))
    assert first == {f"run-{number:03}": number for number in range(1, 151)}
