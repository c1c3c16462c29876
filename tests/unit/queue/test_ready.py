"""The ready queue: order, fairness, the bound for low runs, the bound on size."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from aiki_actors.engine import Micros
from aiki_actors.queue import ReadyQueue, Served, key_of
from aiki_actors.storage import ReadyRun
from aiki_sdk.protocol import Priority

SECOND = 1_000_000
NEVER_RAISED = timedelta(days=1_000)
RANK = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


def ready(
    run_id: str,
    at: int = 0,
    priority: Priority = Priority.NORMAL,
    workflow: str = "wf",
    version: str = "1",
    pool: str = "default",
    namespace: str = "default",
) -> ReadyRun:
    return ReadyRun(run_id, namespace, workflow, version, pool, priority, Micros(at))


def serving(*workflows: str) -> Served:
    return Served.of([(name, "1") for name in workflows])


ALL = serving("wf", "a", "b", "c", "d")


def drain(queue: ReadyQueue, served: Served = ALL, now: int = 0) -> list[str]:
    found: list[str] = []
    while (run := queue.take(served, Micros(now))) is not None:
        found.append(run.run_id)
    return found


priorities = st.sampled_from(list(Priority))
names = st.sampled_from(["a", "b", "c", "d"])
run_ids = st.integers(0, 40).map(lambda number: f"run-{number}")


@st.composite
def runs(draw: st.DrawFn) -> ReadyRun:
    return ready(
        draw(run_ids),
        draw(st.integers(0, 100)) * SECOND,
        draw(priorities),
        draw(names),
        draw(st.sampled_from(["1", "2"])),
        draw(st.sampled_from(["default", "gpu"])),
        draw(st.sampled_from(["default", "other"])),
    )


served_sets = st.builds(
    Served.of,
    st.sets(st.tuples(names, st.sampled_from(["1", "2"]))),
    pools=st.sets(st.sampled_from(["default", "gpu"])),
    namespace=st.sampled_from(["default", "other"]),
)


def test_classes_go_high_normal_low() -> None:
    queue = ReadyQueue()
    for number, priority in enumerate([Priority.LOW, Priority.NORMAL, Priority.HIGH]):
        queue.put(ready(priority.value, number, priority), Micros(0))
    assert drain(queue) == ["high", "normal", "low"]


def test_within_a_class_the_oldest_goes_first() -> None:
    queue = ReadyQueue()
    for at in (5, 3, 9, 1):
        queue.put(ready(str(at), at), Micros(0))
    assert drain(queue) == ["1", "3", "5", "9"]


def test_versions_and_pools_of_a_workflow_share_one_order() -> None:
    queue = ReadyQueue()
    queue.put(ready("third", 3, version="1"), Micros(0))
    queue.put(ready("first", 1, version="2"), Micros(0))
    queue.put(ready("second", 2, pool="gpu"), Micros(0))
    served = Served.of([("wf", "1"), ("wf", "2")], pools=["default", "gpu"])
    assert drain(queue, served) == ["first", "second", "third"]


def test_a_run_is_in_the_queue_once() -> None:
    queue = ReadyQueue()
    assert queue.put(ready("r"), Micros(0))
    assert not queue.put(ready("r", 7, Priority.HIGH), Micros(0))
    assert "r" in queue
    assert drain(queue) == ["r"]
    assert "r" not in queue
    assert queue.put(ready("r"), Micros(0))


def test_a_removed_run_is_not_handed_out() -> None:
    queue = ReadyQueue()
    queue.put(ready("gone"), Micros(0))
    queue.put(ready("stays", 1), Micros(0))
    assert queue.remove("gone")
    assert not queue.remove("gone")
    assert drain(queue) == ["stays"]


@pytest.mark.parametrize(
    "other",
    [
        ready("r", workflow="other"),
        ready("r", version="2"),
        ready("r", pool="gpu"),
        ready("r", namespace="other"),
    ],
)
def test_a_run_is_given_only_to_who_serves_it(other: ReadyRun) -> None:
    queue = ReadyQueue()
    queue.put(other, Micros(0))
    assert queue.take(serving("wf"), Micros(0)) is None
    assert len(queue) == 1


def test_workflows_take_turns_whatever_their_backlog() -> None:
    queue = ReadyQueue()
    for number in range(6):
        queue.put(ready(f"a{number}", number, workflow="a"), Micros(0))
    for number in range(2):
        queue.put(ready(f"b{number}", 100 + number, workflow="b"), Micros(0))
    queue.put(ready("c0", 200, workflow="c"), Micros(0))
    assert drain(queue) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4", "a5"]


def test_a_crowd_that_nobody_serves_does_not_change_the_turns() -> None:
    queue = ReadyQueue()
    for number in range(50):
        queue.put(ready(f"x{number}", workflow=f"x{number}"), Micros(0))
    for name in ("b", "a"):
        for number in range(2):
            queue.put(ready(f"{name}{number}", number, workflow=name), Micros(0))
    assert drain(queue, serving("a", "b")) == ["b0", "a0", "b1", "a1"]


def test_a_low_run_waits_sixty_seconds_behind_others_and_then_goes_next() -> None:
    queue = ReadyQueue()
    queue.put(ready("low", 0, Priority.LOW), Micros(0))
    for number in range(200):
        queue.put(ready(f"high-{number:03}", number * SECOND, Priority.HIGH), Micros(0))
    before = [queue.take(ALL, Micros(now * SECOND)) for now in range(60)]
    assert all(run is not None and run.priority is Priority.HIGH for run in before)
    after = queue.take(ALL, Micros(60 * SECOND))
    assert after is not None
    assert after.run_id == "low"


def test_a_backlog_of_old_low_runs_takes_half_of_the_turns() -> None:
    queue = ReadyQueue()
    for number in range(10):
        queue.put(ready(f"low-{number}", 0, Priority.LOW), Micros(0))
    for number in range(10):
        queue.put(ready(f"high-{number}", 50 * SECOND, Priority.HIGH), Micros(0))
    taken = drain(queue, now=100 * SECOND)
    assert [run_id.split("-")[0] for run_id in taken] == ["low", "high"] * 10


def test_one_kind_of_worker_does_not_use_up_the_turn_of_another() -> None:
    """A low run that only one kind serves is raised for that kind, whatever others are given."""
    queue = ReadyQueue()
    queue.put(ready("only-a", 0, Priority.LOW, workflow="a"), Micros(0))
    for number in range(10):
        queue.put(ready(f"b-low-{number}", 0, Priority.LOW, workflow="b"), Micros(0))
        queue.put(ready(f"a-high-{number}", 0, Priority.HIGH, workflow="a"), Micros(0))
    now = Micros(100 * SECOND)
    assert queue.take(serving("b"), now) is not None
    run = queue.take(serving("a"), now)
    assert run is not None
    assert run.run_id == "only-a"


def test_when_full_the_lowest_ranked_is_dropped_and_the_owner_is_told() -> None:
    queue = ReadyQueue(capacity=2)
    assert queue.put(ready("low", 0, Priority.LOW), Micros(0))
    assert queue.put(ready("late", 9), Micros(0))
    before = queue.overflowed
    assert queue.put(ready("early", 1), Micros(0))
    assert (before, queue.overflowed) == (False, True)
    assert not queue.put(ready("later", 10), Micros(0))
    assert drain(queue) == ["early", "late"]


def test_raised_runs_fill_at_most_half_of_a_full_queue() -> None:
    queue = ReadyQueue(capacity=4)
    now = Micros(100 * SECOND)
    for number in range(4):
        queue.put(ready(f"low-{number}", number, Priority.LOW), now)
    for number in range(4):
        queue.put(ready(f"high-{number}", number, Priority.HIGH), now)
    assert sorted(drain(queue, now=now)) == ["high-0", "high-1", "low-0", "low-1"]


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        ReadyQueue(capacity=0)


@given(st.lists(st.one_of(runs(), run_ids, served_sets), max_size=150), st.integers(1, 30))
def test_nothing_is_lost_nothing_comes_twice(
    steps: list[ReadyRun | str | Served], capacity: int
) -> None:
    """Put, remove and take against a plain dictionary of what must be inside."""
    queue = ReadyQueue(capacity=capacity)
    inside: dict[str, ReadyRun] = {}
    for now, step in enumerate(steps):
        time = Micros(now * SECOND)
        if isinstance(step, ReadyRun):
            before = dict(inside)
            known = step.run_id in inside
            added = queue.put(step, time)
            inside.setdefault(step.run_id, step)
            dropped = [run_id for run_id in inside if run_id not in queue]
            assert len(dropped) == (1 if len(inside) > capacity else 0)
            assert not dropped or queue.overflowed
            inside = {run_id: run for run_id, run in inside.items() if run_id in queue}
            assert added == (not known and step.run_id in inside)
            assert not known or inside == before
        elif isinstance(step, str):
            assert queue.remove(step) == (inside.pop(step, None) is not None)
        else:
            run = queue.take(step, time)
            if run is None:
                assert not any(step.serves(key_of(other)) for other in inside.values())
            else:
                assert step.serves(key_of(run))
                assert inside.pop(run.run_id) == run
        assert len(queue) == len(inside)
        assert sorted(queue.run_ids()) == sorted(inside)


@given(st.lists(st.one_of(runs(), served_sets), max_size=150))
def test_a_run_never_overtakes_its_own_workflow_or_a_higher_class(
    steps: list[ReadyRun | Served],
) -> None:
    """While nothing is raised: no higher class, and nothing older of the same workflow, waits."""
    queue = ReadyQueue(low_wait=NEVER_RAISED)
    inside: dict[str, ReadyRun] = {}
    for step in steps:
        if isinstance(step, ReadyRun):
            if queue.put(step, Micros(0)):
                inside[step.run_id] = step
            continue
        run = queue.take(step, Micros(0))
        if run is None:
            continue
        del inside[run.run_id]
        for other in inside.values():
            if step.serves(key_of(other)):
                assert RANK[other.priority] >= RANK[run.priority]
                if (other.workflow, other.priority) == (run.workflow, run.priority):
                    assert other.ready_at >= run.ready_at


@given(st.lists(st.one_of(runs(), st.just(ALL)), max_size=200))
def test_between_two_runs_of_a_workflow_each_other_is_served_at_most_once(
    steps: list[ReadyRun | Served],
) -> None:
    """The fairness bound, per class, for workers that serve everything."""
    everything = Served.of([(n, v) for n in "abcd" for v in "12"], pools=["default", "gpu"])
    queue = ReadyQueue(low_wait=NEVER_RAISED)
    waiting: dict[tuple[str, Priority], list[str]] = {}
    """Per workflow that waits: the workflows of its class served since it began to wait."""
    inside: dict[str, ReadyRun] = {}
    for step in steps:
        if isinstance(step, ReadyRun):
            if step.namespace == "default" and queue.put(step, Micros(0)):
                inside[step.run_id] = step
                waiting.setdefault((step.workflow, step.priority), [])
            continue
        run = queue.take(everything, Micros(0))
        if run is None:
            continue
        del inside[run.run_id]
        for (name, priority), served in waiting.items():
            if priority is run.priority and name != run.workflow:
                served.append(run.workflow)
                assert served.count(run.workflow) == 1, f"{name} waits for {served}"
        del waiting[run.workflow, run.priority]
        if any(
            (other.workflow, other.priority) == (run.workflow, run.priority)
            for other in inside.values()
        ):
            waiting[run.workflow, run.priority] = []


@given(st.lists(st.sampled_from(["high", "normal"]), min_size=130, max_size=200), st.data())
def test_no_low_run_waits_longer_than_the_bound_and_the_raised_before_it(
    flood: list[str], data: st.DataObject
) -> None:
    """One run comes and one goes each second; low ones are out soon after 60 seconds."""
    queue = ReadyQueue()
    lows = data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=10), label="low at")
    for second, kind in enumerate(flood):
        now = Micros(second * SECOND)
        for number in range(2):
            queue.put(ready(f"{kind}-{second}-{number}", now, Priority(kind)), now)
        if second in lows:
            queue.put(ready(f"low-{second}", now, Priority.LOW), now)
        queue.take(ALL, now)
        for start in sorted(lows):
            ahead = sum(1 for other in lows if other < start)
            if second >= start + 60 + 2 * ahead + 1:
                assert f"low-{start}" not in queue


@pytest.mark.slow  # the number is the point
def test_a_hundred_thousand_runs_pass_quickly_and_leave_nothing_behind() -> None:
    queue = ReadyQueue(capacity=100_000)
    for number in range(100_000):
        priority = list(Priority)[number % 3]
        queue.put(ready(f"r{number}", number, priority, "abcd"[number % 4]), Micros(0))
    assert len(drain(queue)) == 100_000
    assert not len(queue)
    assert not any(len(lane.parties) for lane in [*queue._lanes.values(), queue._raised])
