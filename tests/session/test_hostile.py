"""A session's server against workers that say what they must not: refused, and nothing changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings, strategies as st

from aiki_actors import engine as e
from aiki_actors.server import Sessions
from aiki_actors.session import (
    Connection,
    Hello,
    Link,
    ProtocolError,
    SessionLimits,
    Welcome,
    codec,
    encode_hello,
    messages as m,
    read_welcome,
)
from aiki_sdk import dumps
from aiki_sdk.protocol import RunStatus, definition_of, to_wire
from tests.integration.runtimes import kinds
from tests.session.clusters import Cluster, chain, cluster, gated, gates, log

WORKER = "wrk_01ARZ3NDEKTSV4RRFFQ69G5FAV@host"
TOKEN = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()
    gates.clear()


def hello(**changes: object) -> bytes:
    given_words: dict[str, object] = {
        "worker_id": WORKER,
        "token": TOKEN,
        "namespace": "default",
        **changes,
    }
    return encode_hello(Hello(**given_words))  # type: ignore[arg-type]


@define(eq=False)
class Puppet:
    """A worker whose every word a test chooses."""

    sessions: Sessions
    link: Link = field(factory=Link)
    heard: list[m.ServerMessage] = field(factory=lambda: list[m.ServerMessage]())
    connection: Connection | None = None
    welcome: Welcome | None = None

    async def connect(self, word: bytes | None = None) -> Connection:
        connection = self.connection = self.sessions.accept(word or hello())
        first = await connection.next_frame()
        self.welcome = read_welcome(first)
        if not self.welcome.resumed:
            self.say(m.Announce((to_wire(definition_of(chain)),)))
            await trio.testing.wait_all_tasks_blocked(0.01)
        return connection

    def say(self, *messages: m.WorkerMessage) -> None:
        for message in messages:
            self.link.send(codec.written(message))
        assert self.connection is not None
        while (frame := self.link.next_frame()) is not None:
            self.connection.receive(frame)

    async def listen(self) -> list[m.ServerMessage]:
        """Return what the server has said since the last time, once nothing moves any more."""
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert self.connection is not None
        before = len(self.heard)
        while (frame := self.connection.link.next_frame()) is not None:
            documents = self.link.take(frame).messages
            self.heard.extend(codec.read_server_message(one) for one in documents)
        return self.heard[before:]

    async def claimed(self) -> m.Assigned:
        """Take a run."""
        self.say(m.Serve((("chain", "1.0.0"),), ("default",), 1))
        (assigned,) = await self.listen()
        assert isinstance(assigned, m.Assigned)
        return assigned


@asynccontextmanager
async def puppet() -> AsyncGenerator[tuple[Cluster, Puppet]]:
    async with cluster() as c:
        one = Puppet(c.runtime.sessions)
        await one.connect()
        yield c, one


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (b"", 4400),
        (b"[]", 4400),
        (b'{"type":"welcome"}', 4400),
        (b'{"type":"hello"}', 4400),
        (hello(worker_id="wrk_1"), 4400),
        (hello(worker_id="wrk_01ARZ3NDEKTSV4RRFFQ69G5FAV"), 4400),
        (hello(token="short"), 4400),
        (hello(namespace=""), 4400),
        (hello(received=-1), 4400),
        (hello(protocols=(99,)), 4406),
        (hello(protocols=()), 4406),
        (b"x" * 300_000, 4413),
    ],
)
async def test_a_first_word_that_is_none_is_refused(
    word: bytes, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with cluster() as c:
        with pytest.raises(ProtocolError) as caught:
            c.runtime.sessions.accept(word)
        assert caught.value.close_code == code
        assert caught.value.reason
        assert c.runtime.sessions.workers("default") == []


async def test_nobody_takes_a_session_over_without_its_token(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with puppet() as (c, one):
        assert one.welcome is not None
        word = hello(token="f" * 32, session=one.welcome.session)
        with pytest.raises(ProtocolError) as caught:
            c.runtime.sessions.accept(word)
        assert caught.value.close_code == 4409
        assert one.connection is not None
        assert one.connection.closed is None, "the worker itself is not disturbed"


async def test_a_key_of_one_namespace_opens_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        with pytest.raises(ProtocolError) as caught:
            c.runtime.sessions.accept(hello(), "other")
        assert caught.value.close_code == 4401


async def test_a_second_connection_replaces_the_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with puppet() as (_, one):
        assert one.welcome is not None
        first = one.connection
        await one.connect(hello(session=one.welcome.session))
        assert one.welcome.resumed
        assert first is not None
        assert first.closed is not None
        assert first.closed.close_code == 4409


@pytest.mark.parametrize(
    "message",
    [
        ["nothing"],
        [7],
        ["submit"],
        ["submit", 1, "run_1", 1, "c", [["complete-run", {}, 3]]],
        ["submit", 1, "run_1", 1, "c", [["launch-rocket", {}]]],
        ["submit", 1, "run_1", 1, "c", [["record-success", {"call": 3}]]],
        ["submit", -1, "run_1", 1, "c", []],
        ["reclaim", 1, "../run"],
        ["beating", [["run_1"]]],
        ["serve", [["a"]], [], 1],
        ["serve", [], [], 10**9],
        ["announce", [{"name": "no version"}]],
        ["announce", [{"name": "a b", "version": "1"}]],
        ["holds", "run_1", 1, "c", "x", 1],
        ["holds", "a/b", 1, "c", 1, 1],
        ["slots", "many"],
        ["goodbye", 1],
    ],
)
async def test_a_malformed_message_ends_the_session_with_a_reason(
    message: list[object], autojump_clock: trio.testing.MockClock
) -> None:
    async with puppet() as (c, one):
        assert one.connection is not None
        one.link.send(dumps(message))  # type: ignore[arg-type]
        frame = one.link.next_frame()
        assert frame is not None
        with pytest.raises(ProtocolError) as caught:
            one.connection.receive(frame)
        assert caught.value.close_code in (4400, 4429)
        await trio.testing.wait_all_tasks_blocked()
        assert c.runtime.sessions.workers("default") == []
        await c.start_worker()
        assert await (await c.start(chain, 2)).result(timeout=5) == "01", "the server goes on"


@settings(max_examples=30)
@given(st.lists(st.one_of(st.text(max_size=9), st.integers(), st.lists(st.text())), max_size=6))
def test_no_message_crashes_the_reader(parts: list[object]) -> None:
    for kind in ("submit", "serve", "holds", "beating", "announce", "progress", "done", "assign"):
        for read in (codec.read_worker_message, codec.read_server_message):
            with suppress(ProtocolError):
                read([kind, *parts])  # type: ignore[list-item]


async def test_a_stale_claim_is_refused_and_changes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with puppet() as (c, one):
        handle = await c.start(chain, 1)
        run = await one.claimed()
        for claim in (e.ClaimRef(2, run.claim.claim_id), e.ClaimRef(1, "0" * 32)):
            one.say(m.Submitted(1, handle.id, claim, (e.CompleteRun("x", claim=claim),)))
            (refused,) = await one.listen()
            assert isinstance(refused, m.Refused)
            assert refused.code == "stale-claim"
        assert await handle.status() is RunStatus.RUNNING
        good = run.claim
        one.say(m.Submitted(2, handle.id, good, (e.CompleteRun("x", claim=good),)))
        (done,) = await one.listen()
        assert isinstance(done, m.Done)
        one.say(m.Submitted(3, handle.id, good, (e.CompleteRun("y", claim=good),)))
        (late,) = await one.listen()
        assert isinstance(late, m.Refused)
        assert await handle.result() == "x"


async def test_a_frame_that_is_heard_twice_takes_effect_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with puppet() as (c, one):
        handle = await c.start(chain, 1)
        run = await one.claimed()
        publish = e.PublishValue(e.Call("publish:k"), "k", 1, claim=run.claim)
        one.link.send(codec.submitted(1, handle.id, run.claim, (publish,)))
        frame = one.link.next_frame()
        assert frame is not None
        assert one.connection is not None
        one.connection.receive(frame)
        one.connection.receive(frame)
        assert len(await one.listen()) == 1
        assert (await kinds(handle)).count("value-published") == 1


async def test_a_worker_cannot_touch_the_runs_of_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        theirs = await c.start(gated, "x")
        await trio.sleep(0.1)
        before = await kinds(theirs)
        one = Puppet(c.runtime.sessions)
        await one.connect()
        one.say(
            m.Broken(theirs.id, 1, "mine"),
            m.Dropped(theirs.id),
            m.Progress(theirs.id, "x", {}),
            m.Beating(((theirs.id, 1),)),
            m.Holds(theirs.id, e.ClaimRef(1, "0" * 32), 2, 2),
            m.Reclaim(1, theirs.id),
        )
        heard = await one.listen()
        assert m.Answered(theirs.id, 1, m.Held.LOST, ()) in heard
        assert await kinds(theirs) == before
        gates["x"].set()
        assert await theirs.result(timeout=5) == "beforexafter"


async def test_a_worker_that_never_reads_is_given_up_and_its_runs_go_to_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with puppet() as (c, one):
        handle = await c.start(chain, 2)
        await one.claimed()
        session = c.runtime.sessions._sessions[WORKER]
        session.link.limits = SessionLimits(kept_max=session.link.kept + 5)
        for number in range(10):
            session.push(handle.id, (e.Entry(number + 3, e.Micros(0), e.RunResumed()),))
        await c.start_worker()
        assert await handle.result(timeout=5) == "01"
        assert one.connection is not None
        assert one.connection.closed is not None
        assert one.connection.closed.close_code == 4429


async def test_submissions_that_wait_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with puppet() as (c, one):
        handle = await c.start(chain, 2)
        run = await one.claimed()
        c.runtime.sessions.limits = SessionLimits(pending_max=5)
        publish = e.PublishValue(e.Call("publish:k"), "k", 1, claim=run.claim)
        words = [m.Submitted(n, handle.id, run.claim, (publish,)) for n in range(9)]
        with pytest.raises(ProtocolError) as caught:
            one.say(*words)
        assert caught.value.close_code == 4429


async def test_a_claim_is_over_with_what_ended_it(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster() as c:
        one = Puppet(c.runtime.sessions)
        await one.connect()
        handle = await c.start(chain, 1)
        run = await one.claimed()
        one.say(m.Submitted(1, handle.id, run.claim, (e.CompleteRun("x", claim=run.claim),)))
        await one.listen()
        c.kill_server()
        await c.start_server()
        again = Puppet(c.runtime.sessions)
        await again.connect()
        seq = run.entries[-1].seq
        again.say(m.Holds(handle.id, run.claim, seq, seq))
        (answer,) = await again.listen()
        assert isinstance(answer, m.Answered)
        assert answer.held is m.Held.OVER
        assert [entry.body.kind for entry in answer.entries] == ["run-completed"]
        again.say(m.Holds(handle.id, run.claim, seq, 99))
        (answer,) = await again.listen()
        assert isinstance(answer, m.Answered)
        assert answer.held is m.Held.LOST, "the journal does not have what the worker has heard"
