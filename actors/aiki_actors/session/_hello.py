"""The first words on a connection: the worker says who it is, the server whether it may go on.

    worker   {"type": "hello", "protocol": [1], "format": 1, "worker": "wrk_…@host", "token": "…",
              "namespace": "default", "session": null | "…", "received": 0, "release": "0.1.0"}
    server   {"type": "welcome", "protocol": 1, "format": 1, "session": "…", "resumed": false,
              "received": 0, "beat_s": 10, "grace_s": 15, "lease_s": 30, "release": "0.1.0"}
    or       {"type": "refused", "code": 4406, "reason": "…"}, and the connection is closed.

The `token` is a secret that the worker made when it started; only who knows it can take the
worker's session over. A session that the server still has is resumed from what each side has
`received`; else another one begins, in which the worker first names the claims that it holds.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from aiki_actors.engine import FORMAT
from aiki_sdk import AikiError, JsonValue, dumps
from aiki_sdk._names import check_name

from ._errors import ProtocolError
from ._limits import PROTOCOL_VERSIONS, CloseCode, SessionLimits
from ._link import read_object

WORKER_ID: Final = re.compile(r"wrk_[0-9A-Z]{26}@[A-Za-z0-9._-]{1,100}")
"""A worker in another process than the server: a ULID, and where it runs."""

_TOKEN: Final = re.compile(r"[0-9a-f]{32,128}")
_TEXT_MAX: Final = 200
_SECONDS_MAX: Final = 86_400.0


@frozen(kw_only=True)
class Hello:
    """What a worker says first.

    Attributes:
        worker_id: the worker, for as long as its process lives.
        token: its secret.
        namespace: whose runs it executes.
        session: the session that it wants to go on with; None: it has none.
        received: the server's messages of that session that it has received.
        protocols: the versions of the protocol that it speaks.
        format: the newest form of journal entries that it reads.
        release: of this package, for people.

    """

    worker_id: str
    token: str
    namespace: str
    session: str | None = None
    received: int = 0
    protocols: tuple[int, ...] = PROTOCOL_VERSIONS
    format: int = FORMAT
    release: str = ""


@frozen(kw_only=True)
class Welcome:
    """What the server answers; `resumed` says whether the session goes on or begins."""

    session: str
    resumed: bool
    received: int
    limits: SessionLimits
    protocol: int = PROTOCOL_VERSIONS[-1]
    format: int = FORMAT
    release: str = ""


def encode_hello(hello: Hello) -> bytes:
    """Write a worker's first word."""
    return dumps(
        {
            "type": "hello",
            "protocol": list(hello.protocols),
            "format": hello.format,
            "worker": hello.worker_id,
            "token": hello.token,
            "namespace": hello.namespace,
            "session": hello.session,
            "received": hello.received,
            "release": hello.release,
        }
    )


def read_hello(frame: bytes) -> Hello:
    """Read a worker's first word.

    Raises:
        ProtocolError: it is not one.

    """
    document = read_object(frame)
    if document.get("type") != "hello":
        raise _malformed("the first word is no hello")
    protocols = document.get("protocol")
    if not isinstance(protocols, list):
        raise _malformed("'protocol' is no array of numbers")
    worker_id, token = _text(document, "worker"), _text(document, "token")
    if not WORKER_ID.fullmatch(worker_id):
        raise _malformed("'worker' is not of the form wrk_ULID@host")
    if not _TOKEN.fullmatch(token):
        raise _malformed("'token' is not 32 hexadecimal digits or more")
    namespace = _text(document, "namespace")
    try:
        check_name("namespace", namespace)
    except AikiError as error:
        raise _malformed(error.message) from error
    return Hello(
        worker_id=worker_id,
        token=token,
        namespace=namespace,
        session=_text(document, "session") if document.get("session") is not None else None,
        received=_number(document, "received"),
        protocols=tuple([version for version in protocols if isinstance(version, int)]),
        format=_number(document, "format"),
        release=_text(document, "release"),
    )


def negotiate(hello: Hello) -> int:
    """Return the newest version of the protocol that both speak.

    Raises:
        ProtocolError: there is none.

    """
    common = [version for version in PROTOCOL_VERSIONS if version in hello.protocols]
    if not common:
        reason = f"worker speaks {list(hello.protocols)}, server {list(PROTOCOL_VERSIONS)}"
        raise ProtocolError(CloseCode.VERSION, f"no common protocol version: {reason}")
    return max(common)


def encode_welcome(welcome: Welcome) -> bytes:
    """Write the server's answer."""
    return dumps(
        {
            "type": "welcome",
            "protocol": welcome.protocol,
            "format": welcome.format,
            "session": welcome.session,
            "resumed": welcome.resumed,
            "received": welcome.received,
            "beat_s": welcome.limits.beat_s,
            "grace_s": welcome.limits.grace_s,
            "lease_s": welcome.limits.lease_s,
            "release": welcome.release,
        }
    )


def encode_refusal(error: ProtocolError) -> bytes:
    """Write the server's refusal, for workers that do not see close codes."""
    return dumps({"type": "refused", "code": error.close_code, "reason": error.reason})


def read_welcome(frame: bytes) -> Welcome:
    """Read the server's answer.

    Raises:
        ProtocolError: it refused, with its code and reason; or it is no answer.

    """
    document = read_object(frame)
    if document.get("type") == "refused":
        raise ProtocolError(_number(document, "code"), _text(document, "reason"))
    if document.get("type") != "welcome":
        raise _malformed("the server's first word is no welcome")
    protocol = _number(document, "protocol")
    if protocol not in PROTOCOL_VERSIONS:
        reason = f"the server chose version {protocol} of the protocol, which was not offered"
        raise ProtocolError(CloseCode.VERSION, reason)
    limits = SessionLimits(
        beat_s=_seconds(document, "beat_s"),
        grace_s=_seconds(document, "grace_s"),
        lease_s=_seconds(document, "lease_s"),
    )
    return Welcome(
        session=_text(document, "session"),
        resumed=document.get("resumed") is True,
        received=_number(document, "received"),
        limits=limits,
        protocol=protocol,
        format=_number(document, "format"),
        release=_text(document, "release"),
    )


def _text(document: dict[str, JsonValue], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise _malformed(
            f"{name!r} of the first word is not a text of up to {_TEXT_MAX} characters"
        )
    return value


def _number(document: dict[str, JsonValue], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _malformed(f"{name!r} of the first word is not a number from 0 on")
    return value


def _seconds(document: dict[str, JsonValue], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _malformed(f"{name!r} of the first word is not a number")
    if not 0 < value <= _SECONDS_MAX:
        raise _malformed(f"{name!r} of the first word is not a number of seconds above 0")
    return float(value)


def _malformed(reason: str) -> ProtocolError:
    return ProtocolError(CloseCode.MALFORMED, reason)
