"""How a PostgreSQL database is used: bounds, patience and safety, each with its reason.

Apart from the adapter, so that settings can be written where its driver is not installed.
"""

from __future__ import annotations

import re
from typing import Final

import attrs
from attrs import field, frozen, validators

MIB: Final = 1024 * 1024
WRITERS_MAX: Final = 64

_positive: Final = validators.gt(0)
_positive_s: Final = validators.gt(0.0)
_not_negative_s: Final = validators.ge(0.0)


def _check_schema(_self: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if re.fullmatch(r"[a-z_][a-z0-9_]{0,47}", value) is None:
        message = (
            f"schema={value!r} is not valid: use small letters, digits and underscores, a letter "
            "first, at most 48 of them"
        )
        raise ValueError(message)


@frozen
class PostgresSettings:
    """Settings of one PostgreSQL database.

    Attributes:
        schema: the schema that holds the tables; made by `aiki migrate`.
        migrate: whether opening brings the schema up to date; otherwise an old one is refused, and
            `aiki migrate` is for it.
        allow_unsafe: accept a server with `fsync`, `full_page_writes` or `synchronous_commit` off,
            where a crash or a power cut may take what was acknowledged. For tests.
        writers: writing connections; runs are spread over them. One is enough for a small
            machine; more help where the database has cores and disks to spare.
        split_min: changes of one `append` from which it is spread over several connections.
        readers_max: reading connections, and so queries, at a time.
        connect_timeout_s: how long a connection may take to be made, in seconds.
        statement_timeout_s: how long a statement may take, in seconds; the server ends it.
        reply_margin_s: how long after that an answer is waited for, in seconds, before the
            connection is given up for lost.
        retry_s: how long a call tries again, in seconds, while the database cannot be reached,
            restarts, or refuses a transaction for the sake of another.
        outcome_wait_s: how long a call goes on finding out, in seconds, what became of a write
            whose answer was lost, and how long a cancelled caller of `append` stays for it.
        own_wait_s: how long opening waits, in seconds, for another server that owns the database
            to leave; a server that was killed is gone within moments.
        batch_changes_max: changes in one transaction.
        batch_bytes_max: bodies in one transaction, in bytes; a single append may be larger.
    """

    schema: str = field(default="aiki", validator=_check_schema)
    migrate: bool = False
    allow_unsafe: bool = False
    writers: int = field(
        default=2, validator=validators.and_(_positive, validators.le(WRITERS_MAX))
    )
    split_min: int = field(default=64, validator=_positive)
    readers_max: int = field(default=4, validator=_positive)
    connect_timeout_s: float = field(default=5.0, validator=_positive_s)
    statement_timeout_s: float = field(default=30.0, validator=_positive_s)
    reply_margin_s: float = field(default=5.0, validator=_positive_s)
    retry_s: float = field(default=10.0, validator=_not_negative_s)
    outcome_wait_s: float = field(default=30.0, validator=_positive_s)
    own_wait_s: float = field(default=5.0, validator=_not_negative_s)
    batch_changes_max: int = field(default=1000, validator=_positive)
    batch_bytes_max: int = field(default=8 * MIB, validator=_positive)


DEFAULT_SETTINGS: Final = PostgresSettings()
