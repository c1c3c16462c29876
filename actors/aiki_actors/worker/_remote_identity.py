"""Who a worker is to a server in another process."""

from __future__ import annotations

import re

from attrs import field, frozen


@frozen
class WorkerIdentity:
    """Who a worker is, for as long as its process lives.

    Attributes:
        worker_id: a ULID and the host, as `aiki_actors.session.WORKER_ID` says.
        token: its secret: whoever has it can take the worker's session over.
        namespace: whose runs it executes.
        release: of this package.

    """

    worker_id: str
    token: str = field(repr=False)
    namespace: str
    release: str = ""


def host_name(name: str) -> str:
    """Return a host's name as it may stand in a worker's id."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100] or "host"
