"""Clocks, ids and chance: the real ones keep their promises, the twins are deterministic."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import MockClock

from aiki_sdk import Clock, Ids, SeededIds, SeededRng, SystemClock, SystemIds, SystemRng, TrioClock
from aiki_sdk._ports import ulid

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ULID = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"


class StoppedClock:
    """A clock that shows what it is told to."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


def test_a_ulid_is_written_as_its_specification_has_it() -> None:
    assert ulid(1_469_918_176_385, 0)[:10] == "01ARYZ6S41"
    assert ulid(2**48 - 1, 2**80 - 1) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    assert ulid(0, 1) == "0" * 25 + "1"


@pytest.mark.parametrize("ids", [SystemIds(), SeededIds(7)], ids=["system", "seeded"])
def test_ids_have_their_prefix_and_never_repeat(ids: Ids) -> None:
    for make, prefix in (
        (ids.run_id, "run"),
        (ids.schedule_id, "sch"),
        (ids.worker_id, "wrk"),
        (ids.notice_id, "ntc"),
    ):
        made = [make() for _ in range(200)]
        assert all(re.fullmatch(f"{prefix}_{ULID}", one) for one in made)
        assert made == sorted(set(made))
    claims = {ids.claim_id() for _ in range(200)}
    assert len(claims) == 200
    assert all(re.fullmatch("[0-9a-f]{32}", claim) for claim in claims)


def test_ids_do_not_go_back_when_the_clock_does() -> None:
    clock = StoppedClock(EPOCH)
    ids = SystemIds(clock)
    first = ids.run_id()
    clock.at = EPOCH - timedelta(hours=1)
    assert ids.run_id() > first
    clock.at = EPOCH + timedelta(milliseconds=1)
    assert ids.run_id() > first


def test_seeded_ids_and_chance_repeat_by_seed() -> None:
    assert [SeededIds(1).run_id(), SeededIds(1).claim_id()] == [
        SeededIds(1).run_id(),
        SeededIds(1).claim_id(),
    ]
    assert SeededIds(1).run_id() != SeededIds(2).run_id()
    assert SeededRng("a").random() == SeededRng("a").random() != SeededRng("b").random()


def test_chance_is_from_zero_to_one() -> None:
    rng = SystemRng()
    assert all(0 <= rng.random() < 1 for _ in range(100))


def test_the_system_clock_is_aware_and_utc() -> None:
    clock: Clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


async def test_the_trio_clock_follows_skipped_time(autojump_clock: MockClock) -> None:
    clock = TrioClock(EPOCH)
    before = clock.now()
    assert clock.monotonic() == trio.current_time()
    await trio.sleep(14 * 86_400)
    assert clock.now() - before == timedelta(days=14)


async def test_two_trio_clocks_agree(autojump_clock: MockClock) -> None:
    await trio.sleep(5)
    assert TrioClock(EPOCH).now() == TrioClock(EPOCH).now() == EPOCH + timedelta(seconds=5)


def test_a_naive_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        TrioClock(datetime(2026, 1, 1))  # noqa: DTZ001  # naive on purpose
