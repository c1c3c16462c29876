"""The link: whatever the network does, each message arrives once and in order on both sides."""

from __future__ import annotations

from contextlib import suppress

import pytest
from attrs import define, field
from hypothesis import given, strategies as st

from aiki_actors.session import FRAME_BYTES_MAX, KeptTooMuch, Link, ProtocolError, SessionLimits
from aiki_sdk import JsonValue, LimitExceeded, dumps, loads

MESSAGES = st.one_of(
    st.tuples(st.just("small"), st.integers(0, 5)),
    st.tuples(st.just("big"), st.integers(2**70, 2**71)),
    st.tuples(st.just("long"), st.just('é"\\' * 40_000)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 1), MESSAGES),
        st.tuples(st.just("carry"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("beat"), st.integers(0, 1), st.integers(1, 9)),
        st.tuples(st.just("cut"), st.integers(0, 1), st.integers(0, 3)),
    ),
    max_size=40,
)


@define(eq=False)
class Side:
    """One side of a session, with what it said and what it heard."""

    link: Link
    said: list[JsonValue] = field(factory=lambda: list[JsonValue](), init=False)
    heard: list[JsonValue] = field(factory=lambda: list[JsonValue](), init=False)
    on_the_way: list[bytes] = field(factory=lambda: list[bytes](), init=False)

    def say(self, message: JsonValue) -> None:
        self.said.append(message)
        self.link.send(dumps(message))

    def put_on_the_way(self) -> None:
        while (frame := self.link.next_frame()) is not None:
            self.on_the_way.append(frame)


def _carry(giver: Side, taker: Side, count: int) -> None:
    giver.put_on_the_way()
    for frame in giver.on_the_way[:count]:
        taker.heard.extend(taker.link.take(frame).messages)
    del giver.on_the_way[:count]


def _cut(sides: tuple[Side, Side]) -> None:
    """Lose what is on the way, and connect again."""
    for side in sides:
        side.on_the_way.clear()
    received = [side.link.received for side in sides]
    sides[0].link.connected(received[1])
    sides[1].link.connected(received[0])


@given(STEPS)
def test_each_message_arrives_once_and_in_order_over_any_connections(
    steps: list[tuple[str, int, object]],
) -> None:
    limits = SessionLimits(ack_messages=3, ack_bytes=1_000)
    sides = (Side(Link(limits)), Side(Link(limits)))
    for what, who, more in steps:
        giver, taker = sides[who], sides[1 - who]
        if what == "say":
            assert isinstance(more, tuple)
            giver.say(list(more))
        elif what == "carry":
            assert isinstance(more, int)
            _carry(giver, taker, more)
        elif what == "beat":
            assert isinstance(more, int)
            giver.link.beat(more)
        else:
            _cut(sides)
        for giver, taker in (sides, sides[::-1]):
            assert taker.heard == giver.said[: len(taker.heard)]
    _cut(sides)
    for _ in range(3):
        _carry(sides[0], sides[1], 1_000)
        _carry(sides[1], sides[0], 1_000)
    for giver, taker in (sides, sides[::-1]):
        assert taker.heard == giver.said
    _cut(sides)
    assert [side.link.kept for side in sides] == [0, 0], "what was received is not kept"
    assert [side.link.kept_bytes for side in sides] == [0, 0]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_frames_of_an_old_connection_that_come_late_are_passed_over(rounds: list[int]) -> None:
    giver, taker = Side(Link()), Side(Link())
    late: list[bytes] = []
    for count in rounds:
        for number in range(count):
            giver.say(["m", number])
        giver.put_on_the_way()
        late += giver.on_the_way
        _carry(giver, taker, 1_000)
        giver.link.connected(taker.link.received)
        for frame in late:
            taker.heard.extend(taker.link.take(frame).messages)
    assert taker.heard == giver.said


def test_a_heartbeat_is_answered_once() -> None:
    worker, server = Link(), Link()
    worker.beat(7)
    frame = worker.next_frame()
    assert frame is not None
    assert server.take(frame).beat == 7
    answer = server.next_frame()
    assert answer is not None
    assert worker.take(answer).echo == 7
    assert server.next_frame() is None
    assert worker.next_frame() is None


def test_what_is_kept_is_bounded() -> None:
    link = Link(SessionLimits(kept_max=3))
    for _ in range(3):
        link.send(b"[1]")
    with pytest.raises(KeptTooMuch):
        link.send(b"[1]")
    link = Link(SessionLimits(kept_bytes_max=10))
    link.send(b"[" + b"1" * 20 + b"]")
    with pytest.raises(KeptTooMuch):
        link.send(b"[1]")
    with pytest.raises(LimitExceeded):
        Link().send(b"x" * (16 * 1024 * 1024 + 1))


def test_frames_stay_below_what_a_receiver_takes() -> None:
    link = Link()
    for _ in range(20):
        link.send(dumps(["x" * 60_000]))
    link.send(dumps(['"' * 600_000]))
    link.send(dumps(["\U0001f600" * 100_000]))
    while (frame := link.next_frame()) is not None:
        assert len(frame) < FRAME_BYTES_MAX


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'{"ack":-1}',
        b'{"ack":1}',
        b'{"ack":true}',
        b'{"ack":0,"messages":{}}',
        b'{"ack":0,"messages":[["a"]]}',
        b'{"ack":0,"first":2,"messages":[["a"]]}',
        b'{"ack":0,"first":0,"messages":[["a"]]}',
        b'{"ack":0,"first":1,"messages":[1]}',
        b'{"ack":0,"first":1,"messages":[[]]}',
        b'{"ack":0,"first":1,"messages":[["piece",1,true]]}',
        b'{"ack":0,"first":1,"messages":[["piece","x",true]]}',
        b'{"ack":0,"first":1,"messages":[["piece","[",false],["other"]]}',
        b'{"ack":0,"beat":"1"}',
        b'{"ack":0,"beat":99999999999999999999}',
        b'{"ack":0,"x":' + b"[" * 5_000,
        b"\xff\xfe",
    ],
)
def test_malformed_frames_are_refused_with_a_reason(frame: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        Link().take(frame)
    assert caught.value.close_code == 4400
    assert caught.value.reason


@given(st.binary(max_size=200))
def test_no_bytes_crash_a_link(frame: bytes) -> None:
    with suppress(ProtocolError):
        Link().take(frame)


@given(st.integers(0, 10), st.integers(0, 10))
def test_a_side_that_received_what_was_never_sent_is_refused(sent: int, received: int) -> None:
    link = Link()
    for _ in range(sent):
        link.send(b"[1]")
    link.next_frame()
    if received <= sent:
        link.connected(received)
        assert link.kept == sent - received
        frame = link.next_frame()
        if received < sent:
            assert frame is not None
            document = loads(frame)
            assert isinstance(document, dict)
            assert document["first"] == received + 1
    else:
        with pytest.raises(ProtocolError):
            link.connected(received)
