"""The worker's side: pulls as many messages as there is room for, and looks after what it holds.

    delivered ── claim(message) ──► held      refreshed while the run is here, then acknowledged
                                ├─► refused   acknowledged: it is no hint any more
                                └─► unknown   left pending, and asked again; after 30 s by anybody

Two connections, two tasks: one reads, and blocks; the other keeps house, see `_house.py`. `ended`,
`abandoned` and `changed` are plain calls that never wait.

Invariants:
    No run is claimed without asking: the claim is the server's, which asks the database.
    A message is acknowledged only after its run ended, parked or was refused, or is no message.
    Nothing is taken beyond what is free, but for one message per stream when several come at the
        same moment; those are kept and claimed when there is room.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import partial
from typing import Final, Protocol

import trio
from attrs import define, field

from aiki_actors.faults import fault_point
from aiki_actors.queue._redis_settings import RedisSettings
from aiki_actors.queue._served import Served
from aiki_sdk import Clock, Rng

from ._connection import Connect, Connection
from ._house import House
from ._messages import Message
from ._pending import Place
from ._reading import Batch, Rotation, ensure_groups, read, wrong_streams
from ._trouble import Backoff, HealthState, QueueHealth, RedisFailed, Trouble

LOGGER: Final = logging.getLogger("aiki.queue.redis")

_READ: Final = "read"
_KEEP: Final = "keep"

ROOM_LOOK_S: Final = 1.0
"""How often room is looked for by itself, should nobody have said that there is some."""


class ClaimAnswer(StrEnum):
    """What the server says to a claim."""

    HELD = "held"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class ClaimPort(Protocol):
    """What a consumer asks of its worker, and through it of the server. None of these raises."""

    def free(self) -> int:
        """How many more runs can be taken now; 0 while the session is away."""
        ...

    async def claim(self, message: Message) -> ClaimAnswer:
        """Ask for the claim of a message's run. `HELD`: the run is, or will at once be, here."""
        ...

    async def poisoned(self, message: Message) -> bool:
        """Stall a run whose message was delivered too often; False: that is not known to be done.

        True also if the run is not ready any more: then the message is deleted.
        """
        ...

    def health_changed(self, health: QueueHealth) -> None:
        """Redis became usable or unusable: pull from it, or fall back to the session's queue."""
        ...

    def lost(self, number: int) -> None:
        """So many messages are lost: the server is to make sure of all that it published."""
        ...


@define(eq=False)
class _Hint:
    """A message that is not settled yet: asked about from `retry_s` on, given up at `give_up_s`."""

    message: Message
    retry_s: float
    give_up_s: float


@define(eq=False)
class Consumer:
    """Pulls ready runs for one worker.

    Attributes:
        worker_id: the name of the consumer; unique among workers, dead ones included.
        served: the workflows, versions and pools that it pulls for.
        port: who claims.
        clock: its monotonic side says what is due.
        rng: jitter of reconnecting.
        connect: makes the connections; a simulation has its own.
        counts: what happened so far, by name, for the tree and the metrics.

    """

    settings: RedisSettings
    worker_id: str
    served: Served
    port: ClaimPort
    clock: Clock
    rng: Rng
    connect: Connect = field(default=Connection)
    counts: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    _rotation: Rotation = field(factory=Rotation, init=False)
    _health: HealthState = field(init=False)
    _house: House = field(init=False)
    _nursery: trio.Nursery = field(init=False)
    _asking: dict[str, _Hint] = field(factory=lambda: dict[str, _Hint](), init=False)
    _ended_early: dict[str, bool] = field(factory=lambda: dict[str, bool](), init=False)
    _later: dict[Place, _Hint] = field(factory=lambda: dict[Place, _Hint](), init=False)
    _wrong: dict[str, None] = field(factory=lambda: dict[str, None](), init=False)
    _wrong_look_s: float = field(default=0.0, init=False)
    _grouped: bool = field(default=False, init=False)
    _room: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the parts; nothing is connected before `run`."""
        self._health = HealthState(self.clock, self._announce, (_READ, _KEEP))
        self._house = House(
            self.settings,
            self.worker_id,
            self.rng,
            self.clock.monotonic,
            self._streams,
            self._free,
            self._take,
            self.port.lost,
            self._house_failed,
            self.counts,
            self.connect,
        )
        self.serve(self.served)

    # -- what the worker says ---------------------------------------------------------------

    @property
    def health(self) -> QueueHealth:
        """Whether this worker can pull now."""
        return self._health.now

    @property
    def holding(self) -> int:
        """How many runs are here whose messages are kept alive."""
        return len(self._house.held)

    def serve(self, served: Served) -> None:
        """Pull for these workflows and pools from now on."""
        self.served = served
        self._rotation.serve(served, self.clock.monotonic())
        self._grouped = False
        self._room.set()

    def changed(self) -> None:
        """There may be room for more runs."""
        self._room.set()

    def ended(self, run_id: str) -> None:
        """The run ended here, parked, or was given back: its message has done its work."""
        self._release(run_id, acknowledge=True)

    def abandoned(self, run_id: str) -> None:
        """The claim of the run was lost: its message is somebody else's."""
        self._release(run_id, acknowledge=False)

    def _release(self, run_id: str, *, acknowledge: bool) -> None:
        message = self._house.held.pop(run_id, None)
        if message is not None:
            if acknowledge:
                self._house.acknowledge((message.stream, message.id))
        elif run_id in self._asking:
            # The run was quicker than the answer to its claim.
            self._ended_early[run_id] = acknowledge
        self._room.set()

    def describe(self) -> str:
        """Say in one line how it goes."""
        health = self.health
        state = "ok" if health.ok else f"degraded ({health.trouble})"
        return f"{state}, {self.holding} held, {len(self._asking)} asked for"

    async def run(self) -> None:
        """Pull until cancelled; a read that is under way ends at once.

        At the end, for `stop_grace_s` at most, what is done is acknowledged, and this consumer
        removed where nothing is pending for it.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._read)
                self._nursery.start_soon(self._house.run)
        finally:
            if self.health.ok:
                with trio.move_on_after(self.settings.stop_grace_s, shield=True):
                    await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        try:
            await self._house.say_goodbye()
        except RedisFailed as failure:
            LOGGER.info("worker %s could not leave in order: %s", self.worker_id, failure)

    # -- reading ----------------------------------------------------------------------------

    def _free(self) -> int:
        return self.port.free() - len(self._asking) - len(self._later)

    def _streams(self) -> list[str]:
        return [stream for stream in self._rotation.all() if stream not in self._wrong]

    async def _read(self) -> None:
        connection = self.connect(self.settings, f"reader {self.worker_id}")
        backoff = Backoff(self.settings.backoff_s, self.settings.backoff_max_s, self.rng)
        while True:
            await self._until_room()
            try:
                await self._read_once(connection)
            except RedisFailed as failure:
                if not backoff.forgives(failure):
                    self._fail(_READ, await self._mended(connection, failure))
                    await trio.sleep(backoff.next_s())
            else:
                backoff.reset()
                if not self._wrong:
                    self._health.works(_READ)

    async def _until_room(self) -> None:
        """Wait for room, and meanwhile ask again for what has no answer."""
        while True:
            self._room = trio.Event()
            self._ask_again()
            if self._free() > 0:
                return
            with trio.move_on_after(ROOM_LOOK_S):
                await self._room.wait()

    async def _read_once(self, connection: Connection) -> None:
        now_s = self.clock.monotonic()
        if self._wrong and now_s >= self._wrong_look_s:
            await self._look_for_wrong(connection)
        if not self._grouped:
            streams = self._streams()
            self._grouped = True
            try:
                keep_s = self.settings.stream_keep_s
                await connection.work(lambda wire: ensure_groups(wire, streams, keep_s=keep_s))
            except RedisFailed:
                self._grouped = False
                raise
        if not self._streams():
            await trio.sleep(ROOM_LOOK_S)
            return
        batch = await connection.work(
            partial(
                read,
                consumer=self.worker_id,
                classes=self._rotation.order(now_s, self._wrong),
                free=self._free(),
                block_s=self.settings.block_s,
            )
        )
        self._rotation.note(batch, self.clock.monotonic())
        self._house.count("delivered", len(batch.messages))
        self._take(batch)

    async def _mended(self, connection: Connection, failure: RedisFailed) -> RedisFailed | None:
        """Mend what a reader can mend: a lost group, a key that is no stream."""
        if failure.trouble is Trouble.NO_GROUP and self._grouped:
            # The key is gone, and with it the group: Redis has lost data.
            self._grouped = False
            self._house.count("groups lost")
            LOGGER.warning("a consumer group is gone and is created anew: %s", failure)
            self.port.lost(0)
            return None
        if failure.trouble is Trouble.WRONG_TYPE:
            try:
                await self._look_for_wrong(connection)
            except RedisFailed as further:
                return further
        return failure

    async def _look_for_wrong(self, connection: Connection) -> None:
        """Leave out the keys that are no streams, and say which they are."""
        streams = self._rotation.all()
        wrong = await connection.work(lambda wire: wrong_streams(wire, streams))
        self._wrong_look_s = self.clock.monotonic() + self.settings.tick_s
        if list(self._wrong) == wrong:
            return
        self._wrong = dict.fromkeys(wrong)
        self._grouped = False
        if wrong:
            message = f"another program's keys, not streams: {', '.join(wrong)}; rename them"
            self._fail(_READ, RedisFailed(Trouble.WRONG_TYPE, message))

    # -- claiming ---------------------------------------------------------------------------

    def _take(self, batch: Batch) -> None:
        """Claim what was delivered, or keep it until there is room."""
        for place in batch.strange:
            self._house.count("strange")
            self._house.acknowledge(place)
        now_s = self.clock.monotonic()
        for message in batch.messages:
            place = (message.stream, message.id)
            here = self._here(message.run_id)
            if here is None:
                self._later[place] = _Hint(message, now_s, now_s + self.settings.takeover_idle_s)
            elif place != (here.stream, here.id):
                self._house.count("doubled")
                self._house.acknowledge(place)
        self._ask_again()

    def _here(self, run_id: str) -> Message | None:
        """Return the message through which a run is held or asked for."""
        hint = self._asking.get(run_id)
        return self._house.held.get(run_id) if hint is None else hint.message

    def _ask_again(self) -> None:
        """Ask for what is due and has room; give up what others may have taken over by now."""
        now_s = self.clock.monotonic()
        room = self.port.free() - len(self._asking)
        for place, hint in list(self._later.items()):
            if hint.message.run_id in self._asking:
                continue
            if now_s >= hint.give_up_s:
                del self._later[place]
            elif room > 0 and hint.retry_s <= now_s:
                room -= 1
                del self._later[place]
                self._asking[hint.message.run_id] = hint
                self._nursery.start_soon(self._ask, hint)

    async def _ask(self, hint: _Hint) -> None:
        """Claim a message's run, or stall it if the message is poison."""
        message, run_id = hint.message, hint.message.run_id
        fault_point("message.delivered")
        try:
            if message.deliveries > self.settings.deliveries_max:
                answer = await self._ask_to_stall(message)
            else:
                answer = await self.port.claim(message)
        finally:
            del self._asking[run_id]
        self._house.count(answer.value)
        early = self._ended_early.pop(run_id, None)
        place = (message.stream, message.id)
        match answer:
            case ClaimAnswer.HELD if early is None:
                fault_point("message.held")
                self._house.held[run_id] = message
            case ClaimAnswer.HELD:
                if early:
                    self._house.acknowledge(place)
            case ClaimAnswer.REFUSED:
                self._house.acknowledge(place)
            case ClaimAnswer.UNKNOWN:
                hint.retry_s = self.clock.monotonic() + self.settings.retry_claim_s
                self._later[place] = hint
        self._room.set()

    async def _ask_to_stall(self, message: Message) -> ClaimAnswer:
        run_id, deliveries = message.run_id, message.deliveries
        LOGGER.warning("run %s: its message is poison after %d deliveries", run_id, deliveries)
        done = await self.port.poisoned(message)
        if done:
            self._house.count("poisoned")
        return ClaimAnswer.REFUSED if done else ClaimAnswer.UNKNOWN

    # -- health -----------------------------------------------------------------------------

    def _house_failed(self, failure: RedisFailed | None) -> None:
        self._fail(_KEEP, failure)

    def _fail(self, part: str, failure: RedisFailed | None) -> None:
        if failure is None:
            if part == _KEEP:
                self._health.works(_KEEP)
            return
        self._house.count("failures")
        self._health.fails(part, failure)

    def _announce(self, health: QueueHealth) -> None:
        if health.ok:
            LOGGER.info("worker %s pulls runs from Redis", self.worker_id)
        else:
            LOGGER.warning("worker %s cannot pull from Redis: %s", self.worker_id, health.message)
        self.port.health_changed(health)
