"""`aiki server`: orchestrates runs for workers and clients elsewhere, and executes none itself."""

from __future__ import annotations

from typing import Final

import trio
from attrs import evolve

from aiki_actors.server import KeeperSettings
from aiki_actors.session import SessionLimits
from aiki_actors.storage import SqliteSettings
from aiki_gateway import Bound, GatewaySettings
from aiki_sdk import InvalidRequest
from aiki_trio._runtime import Runtime
from aiki_trio._server import open_server
from aiki_trio._settings import RuntimeSettings
from aiki_trio._storage_url import migrate

from ._command import Command
from ._connect import check_asserts
from ._exit import ExitCode
from ._logs import log_to_stderr
from ._settings import CliSettings
from ._signals import stop_on_signal

BEATS_MIN: Final = 3
"""A worker stops its executions at two thirds of its lease: two heartbeats can be lost before."""


async def serve(command: Command) -> ExitCode:
    """Serve until told to stop.

    Raises:
        InvalidRequest: Python runs with -O, or the address cannot be had.
        StorageError: the database cannot be used, or is in use.
    """
    check_asserts()
    settings = command.settings
    log_to_stderr(settings.log_level or "info")
    if command.arguments.migrate:
        await migrate(settings.database_url)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stop)
        async with open_server(
            settings.database_url,
            settings=server_settings(settings),
            namespace=settings.namespace,
            redis_url=settings.redis_url,
        ) as runtime:
            bound = await bind(runtime, settings)
            command.output.note(f"serving {bound.url}")
            await stop.wait()
        # Left without being cancelled: so the runtime stops in order instead of breaking off.
        nursery.cancel_scope.cancel()
    return ExitCode.OK


def server_settings(settings: CliSettings) -> RuntimeSettings:
    """Return the settings of the runtime behind a server.

    Raises:
        InvalidRequest: a worker that is well could be taken for lost.
    """
    if settings.claim_lease_s < BEATS_MIN * settings.heartbeat_s:
        message = (
            f"claim_lease_s={settings.claim_lease_s:g} is not valid with "
            f"heartbeat_s={settings.heartbeat_s:g}: a lease has room for at least {BEATS_MIN} "
            "heartbeats, for a worker that misses one is not lost yet"
        )
        raise InvalidRequest(message)
    return evolve(
        RuntimeSettings(),
        keeper=KeeperSettings(retention=settings.retention),
        sessions=SessionLimits(
            beat_s=settings.heartbeat_s,
            grace_s=settings.session_grace_s,
            lease_s=settings.claim_lease_s,
        ),
        sqlite=SqliteSettings(synchronous=settings.synchronous),
        on_divergence=settings.on_divergence or "stall",
    )


async def bind(runtime: Runtime, settings: CliSettings) -> Bound:
    """Serve a runtime where the settings say.

    Raises:
        InvalidRequest: the address cannot be had, or is open to others and there are no keys.
    """
    gateway = GatewaySettings(
        allowed_origins=settings.origins,
        api_key_hashes=settings.api_key_hashes,
        allow_open=settings.allow_open,
    )
    try:
        return await runtime.serve(host=settings.host, port=settings.port, settings=gateway)
    except OSError as error:
        message = (
            f"host={settings.host!r}, port={settings.port} is not possible: "
            f"{error.strerror or error}; stop what listens there, or choose another --port"
        )
        raise InvalidRequest(message) from error
