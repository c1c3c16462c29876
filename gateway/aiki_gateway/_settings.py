"""Every limit and interval of the gateway, with its default.

Invariant: settings that exist are consistent; what is refused says which one and why. Nothing in
the gateway that grows with what clients do is without a limit here.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, TypeVar, cast

from attrs import Attribute, field, frozen

from aiki_sdk import InvalidRequest

HOST: Final = "127.0.0.1"
PORT: Final = 9850

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


N = TypeVar("N", int, float)


def _above_zero(_settings: object, attribute: Attribute[N], value: N) -> None:
    if not value > 0:
        message = f"{attribute.name}={value!r} is not valid: pass a number above 0"
        raise InvalidRequest(message)


def _hashes(_settings: object, attribute: Attribute[tuple[str, ...]], value: object) -> None:
    hashes = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    if not all(isinstance(each, str) and _SHA256.fullmatch(each) for each in hashes):
        # The value is not shown: somebody may have put a key where its hash belongs.
        message = (
            f"{attribute.name} is not valid: pass the SHA-256 of each key, as 64 hexadecimal digits"
        )
        raise InvalidRequest(message)


def key_hash(key: str) -> str:
    """Return what is kept of an API key; keys are long and random, so that a fast hash is right."""
    return hashlib.sha256(key.encode()).hexdigest()


@frozen(kw_only=True)
class GatewaySettings:
    """What the gateway allows; times are seconds, sizes are bytes.

    Attributes:
        body_bytes_max: a request's body. Payloads are at most 2 MiB, and one travels in it.
        header_bytes_max: a request's line and headers together.
        header_timeout_s: from the first connection to the end of the first request's headers.
        keep_alive_s: a connection may be idle so long; longer than clients keep theirs, so that
            they close first and never send into a closed connection.
        body_timeout_s: from the end of a request's headers to the end of its body.
        response_timeout_s: what a request may take that is neither a stream nor a long poll.
        send_timeout_s: how long a client may take nothing of what is sent before it is cut off.
        tcp_user_timeout_s: how long sent data may stay unacknowledged, where the system has it.
        result_wait_s_max: the longest wait for a result in one request.
        subscriber_updates_max: updates that a live subscriber may be behind.
        stream_bytes_max: what one live response sends before it ends and is to be resumed.
        stream_writes_per_s: how often all live streams of namespaces and all subscriptions of
            websockets together are written to, at about; the more of them there are, the longer
            updates gather for each (200 at 2,000 writes: 0.1 s). An update after a pause goes out
            at once.
        keep_alive_comment_s: the pause between comment lines in a stream that has nothing to say.
        subscriptions_max: subscriptions in one websocket.
        requests_per_s: requests of one address, on average.
        requests_burst: requests of one address at once.
        addresses_max: addresses whose requests are counted; beyond them the idlest is forgotten.
        connections_max: open connections; for one more, one that is idle is closed, or it waits.
        streams_max: live streams and websockets at once; one more is refused.
        websocket_message_bytes_max: one message of a client.
        ping_s: the pause between pings to a websocket.
        backlog: connections that the system holds before they are accepted.
        stop_grace_s: how long requests may finish when the gateway stops.
        allowed_origins: origins (`https://app.example.org`) that browsers may call from; none: only
            pages of this server itself.
        api_key_hashes: the `key_hash` of each API key; none: no keys.
        allow_open: serve addresses other than the loopback without keys.
    """

    body_bytes_max: int = field(default=4 * _MIB, validator=_above_zero)
    header_bytes_max: int = field(default=16 * _KIB, validator=_above_zero)
    header_timeout_s: float = field(default=5.0, validator=_above_zero)
    keep_alive_s: float = field(default=30.0, validator=_above_zero)
    body_timeout_s: float = field(default=10.0, validator=_above_zero)
    response_timeout_s: float = field(default=30.0, validator=_above_zero)
    send_timeout_s: float = field(default=10.0, validator=_above_zero)
    tcp_user_timeout_s: float = field(default=10.0, validator=_above_zero)
    result_wait_s_max: float = field(default=60.0, validator=_above_zero)
    subscriber_updates_max: int = field(default=1_000, validator=_above_zero)
    stream_bytes_max: int = field(default=256 * _MIB, validator=_above_zero)
    stream_writes_per_s: float = field(default=2_000.0, validator=_above_zero)
    keep_alive_comment_s: float = field(default=15.0, validator=_above_zero)
    subscriptions_max: int = field(default=32, validator=_above_zero)
    requests_per_s: float = field(default=2_000.0, validator=_above_zero)
    requests_burst: int = field(default=4_000, validator=_above_zero)
    addresses_max: int = field(default=10_000, validator=_above_zero)
    connections_max: int = field(default=2_000, validator=_above_zero)
    streams_max: int = field(default=1_000, validator=_above_zero)
    websocket_message_bytes_max: int = field(default=256 * _KIB, validator=_above_zero)
    ping_s: float = field(default=20.0, validator=_above_zero)
    backlog: int = field(default=512, validator=_above_zero)
    stop_grace_s: float = field(default=5.0, validator=_above_zero)
    allowed_origins: tuple[str, ...] = ()
    api_key_hashes: tuple[str, ...] = field(default=(), validator=_hashes, repr=False)
    allow_open: bool = False
