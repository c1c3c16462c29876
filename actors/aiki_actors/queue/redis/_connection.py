"""One connection to Redis, driven by a thread: the only module that knows redis-py.

`Wire` is the thread's side: plain calls that block, several round trips in one hop if need be.
`Connection` is Trio's side: it runs a job on the wire in a thread, one at a time, under a limiter
of its own, so that a blocking read never takes a thread that tasks need. A cancelled job has its
socket shut down: whatever blocks in it ends at once, and what it was about to do is unknown, which
is all right, since every message is only a hint.

Replies are those of RESP2, whatever redis-py's version would make of them. An error that Redis
gives to one command of a pipeline is a value, `RedisFailed`, in its place.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeAlias, TypeVar, cast

import trio
from attrs import define, field

from aiki_actors.queue._redis_settings import RedisSettings, RedisUrl

from ._trouble import RedisFailed, Trouble

try:
    import redis
    import redis.exceptions
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as _missing:
    _MESSAGE: Final = "redis_url needs redis-py; install the extra: pip install 'aiki-trio[redis]'"
    raise ModuleNotFoundError(_MESSAGE, name=_missing.name) from _missing

T = TypeVar("T")

Command: TypeAlias = "tuple[str | bytes | int, ...]"
Reply: TypeAlias = "int | bytes | list[Reply] | None"

_BY_CLASS: Final[tuple[tuple[type[Exception], Trouble], ...]] = (
    (redis.exceptions.AuthenticationError, Trouble.AUTH),
    (redis.exceptions.AuthorizationError, Trouble.AUTH),
    (redis.exceptions.NoPermissionError, Trouble.AUTH),
    (redis.exceptions.BusyLoadingError, Trouble.LOADING),
    (redis.exceptions.TimeoutError, Trouble.TIMEOUT),
    (redis.exceptions.ConnectionError, Trouble.DOWN),
    (redis.exceptions.OutOfMemoryError, Trouble.OUT_OF_MEMORY),
    (redis.exceptions.ReadOnlyError, Trouble.READ_ONLY),
    (redis.exceptions.MasterDownError, Trouble.DOWN),
    (redis.exceptions.ClusterError, Trouble.CLUSTER),
    (redis.exceptions.AskError, Trouble.CLUSTER),
)
_BY_WORD: Final = (
    ("NOREPLICAS", Trouble.NO_REPLICAS),
    ("MISCONF", Trouble.MISCONFIGURED),
    ("WRONGTYPE", Trouble.WRONG_TYPE),
    ("NOGROUP", Trouble.NO_GROUP),
    ("NOAUTH", Trouble.AUTH),
    ("WRONGPASS", Trouble.AUTH),
    ("NOPERM", Trouble.AUTH),
    ("LOADING", Trouble.LOADING),
    ("OOM", Trouble.OUT_OF_MEMORY),
    ("READONLY", Trouble.READ_ONLY),
    ("CROSSSLOT", Trouble.CLUSTER),
    ("CLUSTERDOWN", Trouble.CLUSTER),
    ("MOVED", Trouble.CLUSTER),
    ("unknown command", Trouble.TOO_OLD),
)


class _Driver(Protocol):
    """What is used of redis-py's connections, which are only half typed."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def pack_commands(self, commands: Sequence[Command]) -> list[bytes]: ...
    def send_packed_command(self, command: list[bytes]) -> None: ...
    def read_response(self) -> object: ...


class _Pool(Protocol):
    def make_connection(self) -> object: ...


class _Pools(Protocol):
    """What is used of redis-py's reading of URLs."""

    def from_url(self, url: str, **options: object) -> _Pool: ...


def translate(error: Exception, url: RedisUrl) -> RedisFailed:
    """Turn an error of redis-py into ours."""
    text = url.scrub(str(error))
    trouble = next((found for kind, found in _BY_CLASS if isinstance(error, kind)), None)
    if trouble is None:
        trouble = next((found for word, found in _BY_WORD if text.startswith(word)), None)
    if trouble is None:
        trouble = Trouble.REFUSED
    return RedisFailed(trouble, f"{url}: {trouble.value}: {text}")


@define(eq=False)
class Wire:
    """The thread's side of a connection; connects when it is used. For one thread at a time."""

    settings: RedisSettings
    connected: int = field(default=0, init=False)
    """How often a connection was made: two numbers that differ mean that there was a gap."""

    _driver: _Driver = field(init=False)
    _open: bool = field(default=False, init=False)
    _aborted: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the driver's connection, which connects nothing yet."""
        settings = self.settings
        try:
            pool = cast("_Pools", redis.ConnectionPool).from_url(
                settings.url.reveal(),
                protocol=2,
                decode_responses=False,
                socket_timeout=settings.command_timeout_s,
                socket_connect_timeout=settings.connect_timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
            made = pool.make_connection()
        except (ValueError, TypeError, redis.exceptions.RedisError) as error:
            message = f"the Redis URL {settings.url} has an option that redis-py does not take"
            raise ValueError(f"{message}: {settings.url.scrub(str(error))}") from None
        self._driver = cast("_Driver", made)

    def exchange(self, commands: Sequence[Command]) -> list[Reply | RedisFailed]:
        """Send commands in one go and return what each got.

        Raises:
            RedisFailed: the connection failed; what became of the commands is unknown.

        """
        try:
            self._connect()
            self._driver.send_packed_command(self._driver.pack_commands(commands))
            return [self._read() for _ in commands]
        except RedisFailed:
            self.close()
            raise
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise translate(error, self.settings.url) from None
        except BaseException:
            # Replies may be left unread, so this connection speaks of the past.
            self.close()
            raise

    def call(self, *command: str | bytes | int) -> Reply:
        """Send one command and return its reply.

        Raises:
            RedisFailed: the connection failed, or Redis refused the command.

        """
        (reply,) = self.exchange([command])
        if isinstance(reply, RedisFailed):
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._open = False
        self._driver.disconnect()

    def abort(self) -> None:
        """End what another thread does here, for good: shut the socket down under its feet.

        Not closed, for its number could be another file's before that thread has noticed.
        """
        self._aborted = True
        sock = cast("socket.socket | None", getattr(self._driver, "_sock", None))
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> None:
        if self._aborted:
            raise RedisFailed(Trouble.DOWN, "the connection was given up")
        if not self._open:
            self._driver.connect()
            self._open = True
            self.connected += 1

    def _read(self) -> Reply | RedisFailed:
        try:
            return _checked(self._driver.read_response(), self.settings.url)
        except redis.exceptions.ResponseError as error:
            return translate(error, self.settings.url)


def _checked(reply: object, url: RedisUrl) -> Reply | RedisFailed:
    """Find the error inside the reply to EXEC; everything else is passed on as it is."""
    if isinstance(reply, list):
        for item in cast("list[object]", reply):
            if isinstance(item, redis.exceptions.RedisError):
                return translate(item, url)
    return cast("Reply", reply)


@define(eq=False)
class Connection:
    """Trio's side: runs jobs on a wire, in a thread, one after another.

    Attributes:
        name: what it is for; shown as the name of the thread.

    """

    settings: RedisSettings
    name: str
    _wire: Wire = field(init=False)
    _limiter: trio.CapacityLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the wire; nothing is connected yet."""
        self._wire = Wire(self.settings)
        self._limiter = trio.CapacityLimiter(1)

    @property
    def connected(self) -> int:
        """How often a connection was made so far."""
        return self._wire.connected

    async def work(self, job: Callable[[Wire], T]) -> T:
        """Run a job in a thread and return its result.

        Cancelled at once: the thread, whose socket is shut down, is left to end by itself.

        Raises:
            RedisFailed: as the job does.

        """
        wire = self._wire
        try:
            return await trio.to_thread.run_sync(
                job,
                wire,
                thread_name=f"redis {self.name}",
                abandon_on_cancel=True,
                limiter=self._limiter,
            )
        except trio.Cancelled:
            wire.abort()
            self._wire = Wire(self.settings)
            raise

    async def close(self) -> None:
        """Close the connection. Use only when no job is under way."""
        await trio.to_thread.run_sync(self._wire.close, limiter=self._limiter)
