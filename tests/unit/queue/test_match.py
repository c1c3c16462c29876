"""The matcher: who gets which run."""

from __future__ import annotations

from attrs import Factory, define
from hypothesis import given, strategies as st

from aiki_actors.engine import Micros
from aiki_actors.queue import Assignment, Matcher, ReadyQueue, Served, Slots, key_of
from aiki_actors.storage import ReadyRun
from aiki_sdk.protocol import Priority

NOW = Micros(0)
DEFAULT = frozenset({"default"})


def ready(
    run_id: str, at: int = 0, priority: Priority = Priority.NORMAL, workflow: str = "a"
) -> ReadyRun:
    return ReadyRun(run_id, "default", workflow, "1", "default", priority, Micros(at))


def serves(*names: str) -> frozenset[tuple[str, str]]:
    return frozenset((name, "1") for name in names)


def pairs(assignments: list[Assignment]) -> list[tuple[str, str]]:
    return [(one.run.run_id, one.worker_id) for one in assignments]


def test_a_run_without_a_worker_waits_until_one_joins() -> None:
    matcher = Matcher()
    assert matcher.run_ready(ready("r"), NOW) == []
    assert pairs(matcher.worker_joined("other", serves("b"), DEFAULT, 1, NOW)) == []
    assert pairs(matcher.worker_joined("w", serves("a"), DEFAULT, 1, NOW)) == [("r", "w")]
    assert matcher.slots.free("w") == 0


def test_a_freed_slot_goes_to_the_run_that_is_next() -> None:
    matcher = Matcher()
    matcher.worker_joined("w", serves("a"), DEFAULT, 1, NOW)
    assert pairs(matcher.run_ready(ready("first"), NOW)) == [("first", "w")]
    assert matcher.run_ready(ready("normal"), NOW) == []
    assert matcher.run_ready(ready("high", 1, Priority.HIGH), NOW) == []
    assert pairs(matcher.slot_freed("w", NOW)) == [("high", "w")]
    assert pairs(matcher.slot_freed("w", NOW)) == [("normal", "w")]
    assert matcher.slot_freed("w", NOW) == []
    assert matcher.slots.free("w") == 1


def test_a_worker_that_pulls_is_handed_only_what_it_keeps_warm() -> None:
    matcher = Matcher()
    matcher.worker_joined("w", serves("a"), DEFAULT, 3, NOW, pulls=True)
    assert matcher.run_ready(ready("cold"), NOW) == []
    matcher.slots.keep_warm("warm", "w")
    assert pairs(matcher.run_ready(ready("warm"), NOW)) == [("warm", "w")]
    assert matcher.slots.reserve_on("w"), "and takes what it asks for"
    assert matcher.slots.free("w") == 1
    assert pairs(matcher.worker_pulls("w", NOW, pulls=False)) == [("cold", "w")]
    assert not matcher.slots.reserve_on("w"), "until it is full"
    assert not matcher.slots.reserve_on("nobody")


def test_what_a_pulling_worker_with_room_has_not_found_for_long_is_handed_to_it() -> None:
    matcher = Matcher()
    matcher.worker_joined("full", serves("a"), DEFAULT, 0, NOW, pulls=True)
    matcher.worker_joined("w", serves("a"), DEFAULT, 1, NOW, pulls=True)
    matcher.runs_ready([ready("old", 1), ready("older", 0), ready("new", 9)], NOW)
    matcher.runs_ready([ready("foreign", 0, workflow="b")], NOW)
    assert matcher.late(Micros(0)) == []
    assert pairs(matcher.late(Micros(5))) == [("old", "w")]
    assert matcher.late(Micros(5)) == [], "one that has no room was not late"
    assert sorted(matcher.queue.run_ids()) == ["foreign", "new", "older"]


def test_of_many_at_once_the_higher_ranked_come_first() -> None:
    matcher = Matcher()
    matcher.worker_joined("w", serves("a"), DEFAULT, 2, NOW)
    batch = [ready("low", 0, Priority.LOW), ready("late", 5), ready("high", 9, Priority.HIGH)]
    assert pairs(matcher.runs_ready(batch, NOW)) == [("high", "w"), ("late", "w")]


def test_a_warm_run_resumes_where_it_is_warm() -> None:
    matcher = Matcher()
    matcher.worker_joined("big", serves("a"), DEFAULT, 9, NOW)
    matcher.worker_joined("small", serves("a"), DEFAULT, 1, NOW)
    matcher.slots.keep_warm("r", "small")
    (assignment,) = matcher.run_ready(ready("r"), NOW)
    assert (assignment.worker_id, assignment.warm) == ("small", True)
    assert assignment.cooled is None
    assert matcher.slots.warm_holder("r") is None


def test_a_run_that_is_executed_elsewhere_is_warm_nowhere() -> None:
    matcher = Matcher()
    matcher.worker_joined("warm", serves("a"), DEFAULT, 0, NOW)
    matcher.worker_joined("w", serves("a"), DEFAULT, 1, NOW)
    matcher.slots.keep_warm("r", "warm")
    (assignment,) = matcher.run_ready(ready("r"), NOW)
    assert (assignment.worker_id, assignment.warm) == ("w", False)
    assert assignment.cooled == "warm", "it is to be told"
    assert matcher.slots.warm_holder("r") is None


def test_a_run_that_is_gone_is_not_handed_out() -> None:
    matcher = Matcher()
    matcher.run_ready(ready("r"), NOW)
    assert matcher.run_gone("r")
    assert matcher.worker_joined("w", serves("a"), DEFAULT, 1, NOW) == []


def test_a_slot_of_a_worker_that_left_goes_to_nobody() -> None:
    matcher = Matcher()
    matcher.worker_joined("w", serves("a"), DEFAULT, 1, NOW)
    matcher.run_ready(ready("r1"), NOW)
    matcher.run_ready(ready("r2"), NOW)
    assert matcher.worker_left("w")
    assert matcher.slot_freed("w", NOW) == []
    assert "r2" in matcher.queue


def test_a_run_that_is_queued_already_is_not_handed_out_twice() -> None:
    matcher = Matcher()
    matcher.run_ready(ready("r"), NOW)
    matcher.slots.register("w", serves("a"), DEFAULT, 5)
    assert matcher.run_ready(ready("r"), NOW) == []


ids = st.sampled_from(["w1", "w2", "w3"])
names = st.sampled_from(["a", "b", "c"])
a_run = st.builds(
    ready,
    st.integers(0, 30).map(str),
    st.integers(0, 50),
    st.sampled_from(list(Priority)),
    names,
)
step = st.one_of(
    st.tuples(st.just("ready"), a_run),
    st.tuples(st.just("batch"), st.lists(a_run, max_size=8)),
    st.tuples(st.just("gone"), st.integers(0, 30).map(str)),
    st.tuples(
        st.just("join"), ids, st.frozensets(st.tuples(names, st.just("1"))), st.integers(0, 3)
    ),
    st.tuples(st.just("leave"), ids),
    st.tuples(st.just("freed"), ids),
    st.tuples(st.just("warm"), st.integers(0, 30).map(str), ids),
)


@define(eq=False)
class Model:
    """What must be true of a matcher, kept by hand."""

    waiting: dict[str, ReadyRun] = Factory(lambda: dict[str, ReadyRun]())
    workers: dict[str, tuple[Served, int]] = Factory(lambda: dict[str, tuple[Served, int]]())
    held: dict[str, list[str]] = Factory(lambda: dict[str, list[str]]())

    def admit(self, runs: list[ReadyRun]) -> list[ReadyRun]:
        """Leave out what a worker holds; the rest waits."""
        fresh = [run for run in runs if not any(run.run_id in one for one in self.held.values())]
        for run in fresh:
            self.waiting.setdefault(run.run_id, run)
        return fresh

    def apply(self, matcher: Matcher, one: tuple[object, ...]) -> list[Assignment]:
        """Take one step on both sides."""
        match one:
            case ("ready", ReadyRun() as run):
                return matcher.run_ready(run, NOW) if self.admit([run]) else []
            case ("batch", list() as batch):
                return matcher.runs_ready(self.admit(batch), NOW)
            case ("gone", str(run_id)):
                assert matcher.run_gone(run_id) == (self.waiting.pop(run_id, None) is not None)
                return []
            case ("join", str(worker_id), frozenset() as of, int(number)):
                self.workers[worker_id] = (Served.of(of), number)
                self.held.setdefault(worker_id, [])
                return matcher.worker_joined(worker_id, of, DEFAULT, number, NOW)
            case ("leave", str(worker_id)):
                known = self.workers.pop(worker_id, None) is not None
                self.held.pop(worker_id, None)
                assert matcher.worker_left(worker_id) == known
                return []
            case ("freed", str(worker_id)):
                if self.held.get(worker_id):
                    self.held[worker_id].pop()
                return matcher.slot_freed(worker_id, NOW)
            case ("warm", str(run_id), str(worker_id)):
                matcher.slots.keep_warm(run_id, worker_id)
                return []
            case _:
                raise AssertionError(one)

    def check(self, assignments: list[Assignment]) -> None:
        """Each was waiting, goes to who serves it and has a slot; then nothing idles."""
        for assignment in assignments:
            run, worker_id = assignment.run, assignment.worker_id
            assert self.waiting.pop(run.run_id) == run
            served, number = self.workers[worker_id]
            assert served.serves(key_of(run))
            self.held[worker_id].append(run.run_id)
            assert len(self.held[worker_id]) <= number
        for worker_id, (served, number) in self.workers.items():
            if len(self.held[worker_id]) < number:
                assert not any(served.serves(key_of(run)) for run in self.waiting.values())


@given(st.lists(step, max_size=120))
def test_nothing_is_lost_nothing_is_given_twice_and_no_slot_idles(
    steps: list[tuple[object, ...]],
) -> None:
    matcher, model = Matcher(ReadyQueue(), Slots()), Model()
    for one in steps:
        model.check(model.apply(matcher, one))
        assert sorted(matcher.queue.run_ids()) == sorted(model.waiting)
