"""What tests of the PostgreSQL adapter share: databases, and servers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import pytest

from tests.servers.postgres import PostgresServer, open_database, postgres_server, shared_server


@pytest.fixture
async def url() -> AsyncGenerator[str, None]:
    """A database with the newest schema, on a server that other tests use too."""
    async with open_database() as made:
        yield made


@pytest.fixture
def shared() -> PostgresServer:
    """The server behind `url`; not to be stopped."""
    return shared_server()


@pytest.fixture
def own_server() -> Generator[PostgresServer, None, None]:
    """A server that may be stopped and killed."""
    with postgres_server() as server:
        yield server
