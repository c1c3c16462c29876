"""What things are called in Redis: the streams and their group.

    aiki:<namespace>:<workflow>:<version>[:<pool>][!<priority>]    a stream of ready runs
    aiki!alive:<server>                                            proof that nothing was lost

The pool `default` and the priority `normal` are left out. Whatever is not a letter, a digit or one
of `_ . - ~ / +` is written as `%XX`, so the separators are never part of a name. The channel of
updates is named in `aiki_sdk.pubsub`.

Invariant: two different queues never share a stream: `read_stream` is the inverse of `stream_of`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from aiki_actors.queue._served import QueueKey
from aiki_sdk.protocol import Priority

GROUP: Final = "aiki-workers"
"""The consumer group of every stream; a consumer in it is called as its worker."""

_PREFIX: Final = "aiki"
_POOL: Final = "default"
_SAFE: Final = "/+"


def stream_of(key: QueueKey, priority: Priority) -> str:
    """Return the stream of the ready runs with this key and priority."""
    parts = [key.namespace, key.workflow, key.version]
    if key.pool != _POOL:
        parts.append(key.pool)
    name = ":".join([_PREFIX, *(quote(part, safe=_SAFE) for part in parts)])
    return name if priority is Priority.NORMAL else f"{name}!{priority.value}"


def read_stream(name: str) -> tuple[QueueKey, Priority] | None:
    """Return whose stream this is; None if it is not the name of one."""
    body, mark, urgency = name.partition("!")
    prefix, *parts = body.split(":")
    if prefix != _PREFIX or len(parts) not in {3, 4}:
        return None
    if mark and urgency not in {Priority.HIGH.value, Priority.LOW.value}:
        return None
    namespace, workflow, version, *rest = (unquote(part) for part in parts)
    key = QueueKey(namespace, workflow, version, rest[0] if rest else _POOL)
    found = key, Priority(urgency) if mark else Priority.NORMAL
    return found if stream_of(*found) == name else None


def keep(stream: str, keep_s: float) -> tuple[str, str, int]:
    """Return the command by which a stream goes after so many seconds, unless it comes again."""
    return ("PEXPIRE", stream, max(1, round(keep_s * 1000)))


def alive_key(server_id: str) -> str:
    """Return the key by which a server notices that Redis has lost its data."""
    return f"{_PREFIX}!alive:{quote(server_id, safe=_SAFE)}"
