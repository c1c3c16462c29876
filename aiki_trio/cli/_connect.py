"""The ways to runs: looking at them, and changing them.

With `url` set, the server there is asked for everything. Without it, looking opens the file
read-only beside whoever owns it. Changing needs the owner: a runtime that serves the control socket
is asked; if nobody owns the file, the command opens the runtime itself, without a worker, does what
it came for and leaves.

Invariant: a command that is its own runtime changes nothing but what it was asked to: it executes
no run, stalls none and deletes none, for the application's own settings are not known here.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from aiki_actors.server import KeeperSettings
from aiki_actors.storage import SqliteSettings, open_sqlite_reader
from aiki_sdk import (
    AnyWorkflow,
    Client,
    InvalidRequest,
    NotFound,
    RunHandle,
    StorageLocked,
)
from aiki_trio._runtime import open_runtime
from aiki_trio._settings import RuntimeSettings

from ._control_port import ControlPort, is_served
from ._control_server import control_path
from ._modules import load_workflows
from ._reader_port import ReaderPort
from ._settings import CliSettings

NEVER: Final = timedelta(days=36_500)


@frozen
class Connection:
    """A way to change runs.

    Attributes:
        client: asks.
        served: whether a runtime that goes on running is behind it.
    """

    client: Client
    served: bool


@asynccontextmanager
async def asking(settings: CliSettings, url: str) -> AsyncGenerator[Client]:
    """Open a client of a server."""
    async with Client(url, api_key=settings.api_key, namespace=settings.namespace) as client:
        yield client


@asynccontextmanager
async def reading(settings: CliSettings) -> AsyncGenerator[Client]:
    """Open a way to look at runs.

    Raises:
        NotFound: there is no such file.
        StorageError: it cannot be read.
        Unavailable: the server does not answer.
    """
    if settings.url is not None:
        async with asking(settings, settings.url) as client:
            yield client
        return
    async with open_sqlite_reader(settings.database_path) as reader:
        yield Client(ReaderPort(reader, settings.namespace))


@asynccontextmanager
async def watching(settings: CliSettings) -> AsyncGenerator[Client]:
    """Open a way to see changes: pushed by a runtime with a control socket, else by looking."""
    if settings.url is not None:
        async with asking(settings, settings.url) as client:
            yield client
        return
    path = control_path(settings.database_path)
    if await is_served(path):
        yield Client(ControlPort(path, settings.namespace))
        return
    async with reading(settings) as client:
        yield client


@asynccontextmanager
async def changing(
    settings: CliSettings, *, create: bool = False, work: bool = False
) -> AsyncGenerator[Connection]:
    """Open a way to change runs.

    Args:
        settings: the command's.
        create: whether a database that does not exist is made.
        work: whether a runtime of the command's own executes runs.

    Raises:
        NotFound: there is no such database, and none is to be made.
        StorageLocked: a runtime owns the database and serves no control socket.
        InvalidRequest: the module cannot be imported.
    """
    if settings.url is not None:
        async with asking(settings, settings.url) as client:
            yield Connection(client, served=True)
        return
    path = settings.database_path
    control = control_path(path)
    if await is_served(control):
        yield Connection(Client(ControlPort(control, settings.namespace)), served=True)
        return
    if not create and not path.exists():
        message = f"database {path} does not exist; check --database-url"
        raise NotFound(message)
    workflows = own_workflows(settings)
    opened = False
    try:
        async with open_runtime(
            settings.database_url,
            workflows=workflows if work else (),
            settings=quiet_settings(settings),
            namespace=settings.namespace,
        ) as runtime:
            opened = True
            if not work:
                for workflow in workflows:
                    runtime.register(workflow)
            yield Connection(runtime.client, served=False)
    except StorageLocked as error:
        if opened:
            raise
        message = (
            f"database {path} is in use by a runtime that takes no commands from outside (only "
            "`aiki dev` serves a control socket); give the command in that program, or stop it "
            "first. `aiki runs list|show|history|watch` and `aiki explain` work beside it"
        )
        raise StorageLocked(message, details=error.details) from error


def quiet_settings(settings: CliSettings) -> RuntimeSettings:
    """Return the settings of a runtime that must not decide anything by itself."""
    keeper = evolve(KeeperSettings(), undelivered_max=NEVER, retention=None, own_retention=False)
    sqlite = SqliteSettings(synchronous=settings.synchronous)
    return RuntimeSettings(keeper=keeper, sqlite=sqlite, blocked_after=None)


def own_workflows(settings: CliSettings) -> tuple[AnyWorkflow, ...]:
    """Import the workflows of the module, if one is set."""
    return () if settings.module is None else load_workflows(settings.module, Path.cwd())


def needed_module(settings: CliSettings) -> str:
    """Return the module of a command that cannot do without.

    Raises:
        InvalidRequest: none is set.
    """
    if settings.module is None:
        message = "module=None is not valid: name the workflows' module, as in `my_app.workflows`"
        raise InvalidRequest(message)
    return settings.module


async def find_run(client: Client, text: str) -> RunHandle[object]:
    """Return the run that `RUN` on a command line names: an id, or `WORKFLOW:REFERENCE_ID`.

    Raises:
        NotFound: there is no such run.
    """
    workflow, colon, reference_id = text.partition(":")
    if colon and not text.startswith("run_"):
        return await client.get(workflow=workflow, reference_id=reference_id)
    return await client.get(text)


def asserts_are_on() -> bool:
    """Tell whether Python runs without -O: the asserts of this project state its invariants."""
    return sys.flags.optimize == 0


def check_asserts() -> None:
    """Refuse to serve without asserts.

    Raises:
        InvalidRequest: Python runs with -O.
    """
    if not asserts_are_on():
        message = "python -O is not possible: it removes the asserts that guard every run; leave it"
        raise InvalidRequest(message)
