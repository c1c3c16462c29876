"""The updates of all runs of a namespace, each run's without a gap, over a channel that has gaps.

For every run that was seen, the feed knows the last seq that it gave. A message that is not the
next of its run shows what is missing, and that is read from the server before it is given.
After the connection was lost, every run that was going on is looked up, and so are the runs created
meanwhile: what nobody speaks of any more is not forgotten either.

Invariants:
    Each run's updates come in order of seq, each once, without a gap from the first one given (when
        the feed has a client; live facts, which no journal keeps, come as they come).
    Memory is bounded: `RUNS_MAX` runs are remembered, and no message waits here but one.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, Self, final

import trio

from aiki_sdk._errors import NotFound
from aiki_sdk._ports import Rng, SystemRng
from aiki_sdk._request_errors import InvalidRequest, Unavailable
from aiki_sdk.client import Client, Updates
from aiki_sdk.protocol import Update

from ._address import Address
from ._message import read_update, updates_channel
from ._subscriber import IDLE_S, Subscriber

RUNS_MAX: Final = 10_000
"""Runs remembered; of those not heard of for longest, a gap is not noticed any more."""

BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0

SKEW: Final = timedelta(seconds=5)
"""How much earlier than the last update that was seen a run may have been created unseen."""


class _Known:
    """A run that was seen: the last seq given, and whether it has ended."""

    __slots__ = ("ended", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.ended = False


@final
class UpdateFeed:
    """Updates of every run of a namespace; use `subscribe_updates`. One task reads at a time.

    Attributes:
        gaps: how often something was missing.
        unfilled: how many updates could not be got: there is no client, or the run is deleted.
        reconnects: how often the connection was made again.
    """

    def __init__(
        self, address: Address, channel: str, client: Client | None, rng: Rng, idle_s: float
    ) -> None:
        """Use `subscribe_updates`."""
        self.gaps: int = 0
        self.unfilled: int = 0
        self.reconnects: int = 0
        self._address = address
        self._channel = channel
        self._client = client
        self._rng = rng
        self._idle_s = idle_s
        self._subscriber: Subscriber | None = None
        self._runs: OrderedDict[str, _Known] = OrderedDict()
        self._waiting: Update | None = None
        # Runs to be read from the server, each up to a seq; None: as far as it is now.
        self._behind: OrderedDict[str, int | None] = OrderedDict()
        self._filling: tuple[str, int, Updates] | None = None
        self._looked_since: datetime | None = None
        self._last_at: datetime | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Wait for the next update. Connects again by itself, for as long as it takes.

        Cancelled, or after an error, nothing is lost: read on.

        Raises:
            Unauthorized: Redis or the server does not let us in any more.
            Unavailable: a gap cannot be filled now, for the server does not answer.
        """
        while True:
            update: Update | None = None
            if self._filling is not None or self._behind:
                update = await self._fill()
            elif self._waiting is not None:
                update, self._waiting = self._admit(self._waiting), None
            elif self._looked_since is not None:
                await self._look_for_new_runs(self._looked_since)
            else:
                await self._listen()
            if update is not None:
                return update

    async def open(self) -> None:
        """Subscribe, for the first time."""
        self._subscriber = await self._subscribe()

    async def aclose(self) -> None:
        """Close the connection; closing again does nothing."""
        subscriber, self._subscriber = self._subscriber, None
        filling, self._filling = self._filling, None
        if subscriber is not None:
            await subscriber.aclose()
        if filling is not None:
            await filling[2].aclose()

    async def _subscribe(self) -> Subscriber:
        return await Subscriber.open(self._address, self._channel, idle_s=self._idle_s)

    # -- listening --------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Take the next message, and note what is missing before it."""
        subscriber = self._subscriber
        if subscriber is None:
            await self._reconnect()
            return
        try:
            message = await subscriber.next()
        except Unavailable:
            self._subscriber = None
            await subscriber.aclose()
            return
        update = read_update(message)
        if update is None:
            return
        known = self._runs.get(update.run_id)
        missing = 0 if known is None else update.seq - known.seq - (0 if update.live else 1)
        if missing > 0:
            self.gaps += 1
            if self._client is None:
                self.unfilled += missing
            else:
                upto = update.seq if update.live else update.seq - 1
                self._behind[update.run_id] = upto
        self._waiting = update

    async def _reconnect(self) -> None:
        """Connect again, then find out what was missed."""
        pause_s = BACKOFF_S
        while True:
            try:
                self._subscriber = await self._subscribe()
                break
            except Unavailable:
                await trio.sleep(pause_s * (0.5 + self._rng.random() / 2))
                pause_s = min(BACKOFF_MAX_S, pause_s * 2)
        self.reconnects += 1
        if self._client is None:
            return
        for run_id, known in self._runs.items():
            if not known.ended:
                self._behind.setdefault(run_id, None)
        if self._last_at is not None:
            self._looked_since = self._last_at - SKEW

    def _admit(self, update: Update) -> Update | None:
        """Remember what was given; None if it was given before."""
        known = self._runs.get(update.run_id)
        if known is None:
            known = self._runs[update.run_id] = _Known(update.seq)
        elif update.seq < known.seq or (update.seq == known.seq and not update.live):
            return None
        known.seq = update.seq
        known.ended = update.status.terminal
        self._last_at = update.at if self._last_at is None else max(self._last_at, update.at)
        self._runs.move_to_end(update.run_id)
        while len(self._runs) > RUNS_MAX:
            self._runs.popitem(last=False)
        return update

    # -- filling gaps -----------------------------------------------------------------------

    async def _fill(self) -> Update | None:
        """Read the next update that is missing from the server."""
        if self._filling is None and not await self._begin_to_fill():
            return None
        assert self._filling is not None, "a gap is filled that was not begun"
        run_id, upto, updates = self._filling
        known = self._runs.get(run_id)
        if known is not None and known.seq >= upto:
            await self._filled(updates)
            return None
        try:
            update = await anext(updates)
        except StopAsyncIteration:
            await self._filled(updates)
            return None
        except NotFound:
            await self._given_up(run_id, upto)
            return None
        if update.live:
            return None
        if update.seq >= upto:
            await self._filled(updates)
        return self._admit(update)

    async def _begin_to_fill(self) -> bool:
        """Open the journal of the first run that is behind; False if there is nothing to read."""
        run_id, upto = next(iter(self._behind.items()))
        client = self._client
        assert client is not None, "without a client nothing is filled"
        known = self._runs.get(run_id)
        after = 0 if known is None else known.seq
        try:
            handle = await client.get(run_id)
            if upto is None:
                upto = (await handle.info(follow=False)).seq
        except NotFound:
            await self._given_up(run_id, after if upto is None else upto)
            return False
        del self._behind[run_id]
        if upto <= after:
            return False
        self._filling = (run_id, upto, handle.updates(after=after))
        return True

    async def _filled(self, updates: Updates) -> None:
        self._filling = None
        await updates.aclose()

    async def _given_up(self, run_id: str, upto: int) -> None:
        """Go on without what is missing, for the run is deleted."""
        known = self._runs.pop(run_id, None)
        self.unfilled += max(0, upto - (0 if known is None else known.seq))
        self._behind.pop(run_id, None)
        if self._filling is not None:
            await self._filled(self._filling[2])

    async def _look_for_new_runs(self, since: datetime) -> None:
        """Find the runs that were created while the connection was lost."""
        client = self._client
        assert client is not None, "without a client nothing is looked for"
        found = [run.id async for run in client.list(created_after=since)]
        self._looked_since = None
        # Oldest first, as they came.
        for run_id in reversed(found):
            if run_id not in self._runs:
                self._behind.setdefault(run_id, None)


@asynccontextmanager
async def subscribe_updates(
    redis_url: str,
    namespace: str = "default",
    *,
    client: Client | None = None,
    rng: Rng | None = None,
    idle_s: float = IDLE_S,
) -> AsyncGenerator[UpdateFeed]:
    """Follow every run of a namespace through Redis pub/sub, from now on.

    Args:
        redis_url: `redis://[user[:password]@]host[:port]`, `rediss://` or `unix://`.
        namespace: whose runs.
        client: where what is missing is read from; without one, gaps stay (see `UpdateFeed.gaps`).
        rng: jitter of reconnecting. Default: the machine's.
        idle_s: after how long without a message the connection is tested.

    Raises:
        InvalidRequest: the address is not one, or the client is of another namespace.
        Unauthorized: Redis does not let us in.
        Unavailable: Redis cannot be reached. Later, the feed connects again by itself.
    """
    if client is not None and client.namespace != namespace:
        message = f"the client is of namespace {client.namespace!r}, not of {namespace!r}"
        raise InvalidRequest(message)
    address = Address.of(redis_url)
    channel = updates_channel(namespace)
    feed = UpdateFeed(address, channel, client, rng or SystemRng(), idle_s)
    await feed.open()
    try:
        yield feed
    finally:
        await feed.aclose()
