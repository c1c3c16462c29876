"""Names, messages, addresses and the redelivery schedule: what needs no server."""

from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import given, strategies as st

from aiki_actors.queue import QueueKey
from aiki_actors.queue.redis import (
    Redelivery,
    RedisSettings,
    RedisUrl,
    decode,
    encode,
    read_stream,
    stream_of,
)
from aiki_sdk.protocol import Priority
from aiki_sdk.pubsub import updates_channel
from tests.redis.fleet import a_run

TEXTS = st.text(max_size=8, alphabet=st.characters(codec="utf-8"))
KEYS = st.builds(QueueKey, TEXTS, TEXTS, TEXTS, TEXTS | st.just("default"))


def test_streams_are_called_as_documented() -> None:
    key = QueueKey("default", "orders", "1.0", "default")
    assert stream_of(key, Priority.NORMAL) == "aiki:default:orders:1.0"
    assert stream_of(key._replace(pool="gpu"), Priority.HIGH) == "aiki:default:orders:1.0:gpu!high"
    assert updates_channel("default") == "aiki:default:updates"


@given(KEYS, st.sampled_from(Priority))
def test_a_stream_names_one_queue_only(key: QueueKey, priority: Priority) -> None:
    assert read_stream(stream_of(key, priority)) == (key, priority)


@pytest.mark.parametrize(
    "name", ["aiki", "aiki:a:b", "aiki:a:b:c:d:e", "aiki:a:b:c!normal", "aiki:a:b:c:default", "x"]
)
def test_what_is_no_stream_of_ours_is_not_read_as_one(name: str) -> None:
    assert read_stream(name) is None


def test_a_message_is_read_as_it_was_written() -> None:
    words = [word.encode() for word in encode(a_run(7))]
    message = decode("s", "1-0", dict(zip(words[::2], words[1::2], strict=True)))
    assert message is not None
    assert (message.stream, message.id, message.run_id, message.ready_at) == (
        "s",
        "1-0",
        "run_7",
        0,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"v": b"2", b"run": b"run_1", b"at": b"1"},
        {b"v": b"1", b"run": b"", b"at": b"1"},
        {b"v": b"1", b"run": b"run_1"},
        {b"v": b"1", b"run": b"run_1", b"at": b"soon"},
        {b"v": b"1", b"run": b"\xff", b"at": b"1"},
        {b"v": b"1", b"run": b"x" * 300, b"at": b"1"},
        {b"v": b"1", b"run": b"run\n1", b"at": b"1"},
    ],
)
def test_what_is_no_message_is_not_read_as_one(fields: dict[bytes, bytes]) -> None:
    assert decode("s", "1-0", fields) is None


@given(st.dictionaries(st.binary(max_size=5), st.binary(max_size=5)))
def test_no_fields_whatever_make_reading_fail(fields: dict[bytes, bytes]) -> None:
    decode("s", "1-0", {b"v": b"1", **fields})


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@host:6379/3",
        "rediss://user:hunter2@host:6379",
        "unix://:hunter2@/run/redis.sock?db=1",
        "redis://host/0?password=hunter2",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    settings = RedisSettings(url)
    shown = f"{settings!r} {settings.url} {settings.url!r}"
    assert "hunter2" not in shown
    assert settings.url.reveal() == url
    assert settings.url.scrub("unknown command AUTH hunter2") == "unknown command AUTH ***"


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://:hunter2@host", "redis://:hunter2@host:70000000"]
)
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="the Redis URL") as caught:
        RedisUrl(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stream_max", 0),
        ("block_s", 9.0),
        ("refresh_s", 20.0),
        ("batch", 0),
        ("stream_keep_s", 60.0),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"RedisSettings.{name}"):
        RedisSettings("redis://localhost", **{name: value})  # type: ignore[arg-type]


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("aiki_actors.queue.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ModuleNotFoundError, match=r"aiki-trio\[redis\]"):
        importlib.import_module("aiki_actors.queue.redis")


def test_redelivery_doubles_up_to_its_maximum() -> None:
    runs = Redelivery(5.0, 300.0, 10)
    runs.add(a_run(1), 0.0)
    now_s, pauses = 0.0, list[float]()
    for _ in range(9):
        (tracked,) = runs.due(now_s, 10)
        runs.published(tracked, ("s", "1-0"), now_s)
        due_s = runs.next_due_s()
        assert due_s is not None
        pauses.append(due_s - now_s)
        now_s = due_s
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_redelivery_keeps_what_is_due_until_it_is_published() -> None:
    runs = Redelivery(5.0, 300.0, 10)
    runs.add(a_run(1), 0.0)
    assert [one.run.run_id for one in runs.due(0.0, 10)] == ["run_1"]
    assert [one.run.run_id for one in runs.due(99.0, 10)] == ["run_1"]


def test_redelivery_is_bounded_and_says_what_it_refused() -> None:
    runs = Redelivery(5.0, 300.0, 2)
    assert [runs.add(a_run(number), 0.0) for number in (1, 2, 2, 3)] == [True, True, False, False]
    assert (len(runs), runs.refused) == (2, 1)


def test_a_recheck_makes_every_run_due_at_once() -> None:
    runs = Redelivery(5.0, 300.0, 10)
    for number in range(3):
        runs.add(a_run(number), 0.0)
    for tracked in runs.due(0.0, 10):
        runs.published(tracked, ("s", "1-0"), 0.0)
    assert runs.due(1.0, 10) == []
    runs.recheck(1.0)
    assert len(runs.due(1.0, 10)) == 3


@given(st.lists(st.tuples(st.sampled_from("apdr"), st.integers(0, 5)), max_size=60))
def test_redelivery_tracks_exactly_what_was_added_and_not_removed(
    steps: list[tuple[str, int]],
) -> None:
    """Against a plain set, with a heap that is never more than twice too large."""
    runs = Redelivery(1.0, 8.0, 100)
    expected = set[str]()
    now_s = 0.0
    for step, number in steps:
        now_s += 0.5
        if step == "a":
            runs.add(a_run(number), now_s)
            expected.add(f"run_{number}")
        elif step == "r":
            runs.remove(f"run_{number}")
            expected.discard(f"run_{number}")
        elif step == "p":
            for tracked in runs.due(now_s, number):
                runs.published(tracked, ("s", "1-0"), now_s)
        else:
            runs.recheck(now_s)
        assert len(runs) == len(expected)
    found = {tracked.run.run_id for tracked in runs.due(now_s + 1000.0, 1000)}
    assert found == expected
