"""The workers' slots and warm runs, against a naive model."""

from __future__ import annotations

import pytest
from attrs import define
from hypothesis import given, strategies as st

from aiki_actors.queue import QueueKey, Served, Slots

DEFAULT = frozenset({"default"})


def key(workflow: str = "a", version: str = "1", pool: str = "default") -> QueueKey:
    return QueueKey("default", workflow, version, pool)


def serves(*names: str) -> frozenset[tuple[str, str]]:
    return frozenset((name, "1") for name in names)


def test_the_freest_worker_is_chosen_then_the_first_that_came() -> None:
    slots = Slots()
    slots.register("w1", serves("a"), DEFAULT, 2)
    slots.register("w2", serves("a", "b"), DEFAULT, 3)
    slots.register("w3", serves("a"), DEFAULT, 2)
    assert [slots.reserve(key()) for _ in range(8)] == [
        *["w2", "w1", "w2", "w3", "w1", "w2", "w3"],
        None,
    ]


def test_the_worker_that_keeps_the_run_warm_is_preferred_while_it_has_a_slot() -> None:
    slots = Slots()
    slots.register("big", serves("a"), DEFAULT, 10)
    slots.register("small", serves("a"), DEFAULT, 1)
    assert slots.reserve(key(), warm="small") == "small"
    assert slots.reserve(key(), warm="small") == "big"


def test_a_warm_holder_that_no_longer_serves_the_run_is_passed_over() -> None:
    slots = Slots()
    slots.register("warm", serves("b"), DEFAULT, 10)
    assert slots.reserve(key(), warm="warm") is None


def test_namespaces_do_not_share_workers() -> None:
    slots = Slots()
    slots.register("w", serves("a"), DEFAULT, 1, namespace="other")
    assert slots.reserve(key()) is None
    assert slots.reserve(QueueKey("other", "a", "1", "default")) == "w"


def test_a_slot_is_given_back_once() -> None:
    slots = Slots()
    slots.register("w", serves("a"), DEFAULT, 1)
    assert slots.reserve(key()) == "w"
    assert slots.release("w")
    assert not slots.release("w")
    assert not slots.release("stranger")
    assert slots.free("w") == 1


def test_a_worker_that_takes_no_more_keeps_what_it_holds() -> None:
    slots = Slots()
    slots.register("w", serves("a"), DEFAULT, 2)
    slots.reserve(key())
    slots.register("w", serves("a"), DEFAULT, 0)
    assert slots.free("w") == 0
    assert slots.reserve(key()) is None
    slots.register("w", serves("a"), DEFAULT, 2)
    assert slots.free("w") == 1


def test_a_worker_that_comes_back_says_what_it_holds() -> None:
    slots = Slots()
    slots.register("w", serves("a"), DEFAULT, 3, held=2)
    assert slots.free("w") == 1


def test_what_a_worker_serves_can_change() -> None:
    slots = Slots()
    slots.register("w", serves("a"), DEFAULT, 2)
    slots.keep_warm("run", "w")
    slots.register("w", serves("b"), frozenset({"gpu"}), 2)
    assert slots.served() == {key("b", pool="gpu")}
    assert slots.reserve(key()) is None
    assert slots.reserve(key("b", pool="gpu")) == "w"
    assert slots.warm_holder("run") == "w"


def test_an_unregistered_worker_is_gone_with_its_warm_runs() -> None:
    slots = Slots()
    slots.register("w", serves("a"), DEFAULT, 2)
    slots.keep_warm("run", "w")
    assert slots.unregister("w")
    assert not slots.unregister("w")
    assert slots.served() == set()
    assert slots.warm_holder("run") is None
    assert not slots.keep_warm("run", "w")


def test_a_run_is_warm_in_one_place_the_latest() -> None:
    slots = Slots(warm_max=2)
    for worker_id in ("w1", "w2"):
        slots.register(worker_id, serves("a"), DEFAULT, 2)
    slots.keep_warm("run", "w1")
    slots.keep_warm("run", "w2")
    slots.unregister("w1")
    assert slots.warm_holder("run") == "w2"
    slots.keep_warm("second", "w2")
    slots.keep_warm("third", "w2")
    assert [slots.warm_holder(run_id) for run_id in ("run", "second", "third")] == [
        None,
        "w2",
        "w2",
    ]


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="slots=-1"):
        Slots().register("w", serves("a"), DEFAULT, -1)


@define
class Model:
    served: Served
    slots: int
    held: int


ids = st.sampled_from(["w1", "w2", "w3", "w4"])
names = st.sampled_from(["a", "b"])
pools = st.sampled_from(["default", "gpu"])
registration = st.tuples(
    st.just("register"),
    ids,
    st.frozensets(st.tuples(names, st.just("1"))),
    st.frozensets(pools),
    st.integers(0, 4),
)
step = st.one_of(
    registration,
    st.tuples(st.just("reserve"), names, pools, st.none() | ids),
    st.tuples(st.just("release"), ids),
    st.tuples(st.just("unregister"), ids),
)


@given(st.lists(step, max_size=120))
def test_slots_agree_with_counting_by_hand(steps: list[tuple[object, ...]]) -> None:
    slots = Slots()
    model: dict[str, Model] = {}
    for one in steps:
        match one:
            case ("register", str(worker_id), frozenset() as pairs, frozenset() as of, int(number)):
                held = model[worker_id].held if worker_id in model else 0
                served = slots.register(worker_id, pairs, of, number)
                model[worker_id] = Model(served, number, held)
            case ("reserve", str(name), str(pool), warm):
                assert warm is None or isinstance(warm, str)
                able = [
                    worker_id
                    for worker_id, worker in model.items()
                    if worker.slots > worker.held and worker.served.serves(key(name, "1", pool))
                ]
                chosen = slots.reserve(key(name, "1", pool), warm=warm)
                if warm in able:
                    assert chosen == warm
                elif not able:
                    assert chosen is None
                else:
                    assert chosen in able
                    assert slots.free(chosen) + 1 == max(
                        model[other].slots - model[other].held for other in able
                    )
                if chosen is not None:
                    model[chosen].held += 1
            case ("release", str(worker_id)):
                held = model[worker_id].held if worker_id in model else 0
                assert slots.release(worker_id) == (held > 0)
                if held:
                    model[worker_id].held -= 1
            case ("unregister", str(worker_id)):
                assert slots.unregister(worker_id) == (model.pop(worker_id, None) is not None)
            case _:
                raise AssertionError(one)
        for worker_id, worker in model.items():
            assert slots.free(worker_id) == max(0, worker.slots - worker.held)
        assert slots.served() == {
            one for worker in model.values() for one in worker.served.queue_keys()
        }
        assert sorted(slots.workers()) == sorted(model)
