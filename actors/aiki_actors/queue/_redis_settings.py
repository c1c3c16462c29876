"""Where Redis is, and every limit and interval of its use.

Invariant: the URL, which may hold a password, is shown by nothing but `RedisUrl.reveal`.
"""

from __future__ import annotations

import importlib.util
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import evolve, field, frozen

from aiki_sdk import InvalidRequest

_SCHEMES: Final = ("redis", "rediss", "unix")
_MASK: Final = "***"


class RedisUrl:
    """The address of a Redis server: `redis://`, `rediss://` (TLS) or `unix://`.

    `redis://[user[:password]@]host[:port][/db]`, options of redis-py behind a `?` (`ssl_ca_certs=`,
    `ssl_cert_reqs=`, `db=`). Its text and repr show no user, password or option.
    """

    __slots__ = ("_secrets", "_shown", "_url")

    def __init__(self, url: str) -> None:
        """Check an address.

        Raises:
            ValueError: it is not the address of a Redis server; the message does not show it.

        """
        scheme = url.partition("://")[0] if "://" in url else ""
        if scheme not in _SCHEMES:
            shown = f"{scheme}://" if scheme else "an address without a scheme"
            message = (
                f"the Redis URL is {shown}…; it must begin with redis://, rediss:// or unix://"
            )
            raise ValueError(message)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            # The parser's own words may show a part of the password.
            message = "the Redis URL has no valid host and port; write redis://host:6379/0"
            raise ValueError(message) from None
        place = parts.path if scheme == "unix" else host + (f":{port}" if port else "")
        if not place:
            raise ValueError(f"the Redis URL {scheme}://… names no host or socket")
        database = "" if scheme == "unix" else parts.path
        self._url = url
        self._shown = f"{scheme}://{_MASK + '@' if parts.password else ''}{place}{database}"
        # A `?password=` option is one too.
        given = [parts.password or "", *(_option(parts.query, "password"))]
        self._secrets = tuple({each for one in given for each in (one, unquote(one)) if each})

    def reveal(self) -> str:
        """Return the address with all that is in it, for the client library only."""
        return self._url

    def scrub(self, text: str) -> str:
        """Return a text, such as an error of the server, without the password."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return text

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"RedisUrl({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedisUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)


def _option(query: str, name: str) -> list[str]:
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [value for key, _, value in pairs if key == name]


def _url(value: RedisUrl | str) -> RedisUrl:
    return value if isinstance(value, RedisUrl) else RedisUrl(value)


@frozen
class RedisSettings:
    """How Redis is used; durations in seconds.

    Attributes:
        url: where it is; text is turned into a `RedisUrl`.
        stream_max: messages in one stream; past it the oldest are dropped, exactly, and published
            again from the database.
        stream_keep_s: how long a stream stays that no run waits in and no worker serves, such as
            that of a version that is used no more.
        tracked_max: ready runs that a server keeps publishing until they are claimed; the database
            knows the rest.
        batch: commands in one pipeline.
        redelivery_s: after how long a ready run that nobody claimed is looked after …
        redelivery_max_s: … doubling up to this.
        late_s: after how long a ready run that no worker found in Redis is handed over the session
            of one that has room: its Redis may be another one.
        tick_s: how often a server makes sure that Redis has lost nothing and takes writes.
        block_s: how long one read waits for messages; a stop does not wait for it.
        takeover_idle_s: after how long without a sign of its worker a message is taken over.
        takeover_every_s: how often a worker looks for such messages.
        refresh_s: how often a worker shows that it holds a message.
        retry_claim_s: after how long a claim is asked for again that had no answer.
        deliveries_max: a message delivered more often than this is poison: its run stalls.
        acks_max: messages that wait to be acknowledged while Redis is away.
        tidy_every_s: how often a worker looks for dead consumers.
        dead_after_s: how long a consumer with nothing pending is silent before it is removed.
        connect_timeout_s: for a connection, its TLS handshake included.
        command_timeout_s: for the answer to a command; more than `block_s`.
        backoff_s: first pause before connecting again; doubles, with jitter, …
        backoff_max_s: … up to this.
        stop_grace_s: how long a stopping worker tries to say goodbye to Redis.
        publish_updates: whether a server publishes each update of each run, for backend services;
            that costs it about a tenth of a millisecond an update.
        gather_s: updates that come within so long are published together.

    """

    url: RedisUrl = field(converter=_url)
    stream_max: int = 100_000
    stream_keep_s: float = 7 * 86_400.0
    tracked_max: int = 100_000
    batch: int = 500
    redelivery_s: float = 5.0
    redelivery_max_s: float = 300.0
    late_s: float = 15.0
    tick_s: float = 5.0
    block_s: float = 1.0
    takeover_idle_s: float = 30.0
    takeover_every_s: float = 10.0
    refresh_s: float = 10.0
    retry_claim_s: float = 1.0
    deliveries_max: int = 10
    acks_max: int = 10_000
    tidy_every_s: float = 60.0
    dead_after_s: float = 600.0
    connect_timeout_s: float = 2.0
    command_timeout_s: float = 5.0
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0
    stop_grace_s: float = 0.5
    publish_updates: bool = True
    gather_s: float = 0.005

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot work, naming it."""
        for name in ("stream_max", "tracked_max", "batch", "deliveries_max", "acks_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"RedisSettings.{name} is {getattr(self, name)!r}; at least 1")
        if not 0 < self.block_s < self.command_timeout_s:
            message = (
                f"RedisSettings.block_s is {self.block_s!r}; it must be above 0 and below "
                f"command_timeout_s ({self.command_timeout_s!r})"
            )
            raise ValueError(message)
        if self.stream_keep_s < 2 * self.tidy_every_s:
            message = (
                f"RedisSettings.stream_keep_s is {self.stream_keep_s!r}; a worker says that it "
                f"serves a stream every tidy_every_s ({self.tidy_every_s!r}), so that it must be "
                "at least twice that"
            )
            raise ValueError(message)
        if not 0 < self.refresh_s <= self.takeover_idle_s / 2:
            message = (
                f"RedisSettings.refresh_s is {self.refresh_s!r}; a held message must be refreshed "
                f"twice within takeover_idle_s ({self.takeover_idle_s!r}) or it is taken over"
            )
            raise ValueError(message)


def redis_settings(url: str | None, settings: RedisSettings | None) -> RedisSettings | None:
    """Put an address and everything else that is set together; None: Redis is not used.

    Args:
        url: the address; None or empty: that of `settings`.
        settings: everything else; None: the defaults.

    Raises:
        InvalidRequest: the address is not that of a Redis server, which is not shown; or redis-py
            is not installed.

    """
    found = settings
    if url:  # an empty variable unsets what another file sets
        try:
            place = RedisUrl(url)
        except ValueError as error:
            raise InvalidRequest(f"redis_url is not valid: {error}") from None
        found = RedisSettings(place) if settings is None else evolve(settings, url=place)
    if found is not None and importlib.util.find_spec("redis") is None:
        message = "redis_url needs redis-py; install the extra: pip install 'aiki-trio[redis]'"
        raise InvalidRequest(message)
    return found
