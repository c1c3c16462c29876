"""Shows that the wheel alone works: run by `nox -s wheel` where nothing but its base is installed.

Imports the four packages, makes sure that no extra slipped in, and takes one workflow through the
embedded runtime twice: to its end, and, after a restart over the same file, back from its journal.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import trio
from attrs import frozen

import aiki_trio
from aiki_sdk import Run, task, workflow

PACKAGES = ("aiki_sdk", "aiki_actors", "aiki_gateway", "aiki_trio")
# What the extras would bring along; the base must do without.
EXTRAS = ("asyncpg", "hypercorn", "msgspec", "pydantic", "quart", "redis", "rich", "trio_asyncio")
RUN_DEADLINE_S = 30


@frozen
class Guest:
    """An argument that is more than a plain JSON value."""

    name: str
    visits: int


@task
async def greet(guest: Guest) -> str:
    """Greet a guest."""
    return f"hello {guest.name}, on visit {guest.visits}"


@workflow(name="smoke", version="1.0.0")
async def welcome(run: Run, guest: Guest) -> str:
    """Wait a moment, durably, then greet."""
    await run.sleep("moment", timedelta(milliseconds=10))
    return await greet(guest)


def check_installation() -> None:
    """Make sure that the wheel is what is tested: its packages, and no extra, are importable."""
    for name in PACKAGES:
        module = importlib.import_module(name)
        assert module.__file__ is not None, f"{name} has no __init__.py in the wheel"
        location = Path(module.__file__).resolve()
        assert location.is_relative_to(Path(sys.prefix).resolve()), f"{name} came from {location}"
    present = [name for name in EXTRAS if importlib.util.find_spec(name) is not None]
    assert not present, f"the base install brought extras along: {present}"


async def main() -> None:
    """Run the workflow, restart, and read the same result from the journal."""
    check_installation()
    expected = "hello Ada, on visit 3"
    with tempfile.TemporaryDirectory() as folder, trio.fail_after(RUN_DEADLINE_S):
        url = f"sqlite:///{folder}/aiki.db"
        async with aiki_trio.open_runtime(url, workflows=[welcome]) as runtime:
            handle = await runtime.client.start(welcome, Guest("Ada", 3))
            assert await handle.result() == expected
        async with aiki_trio.open_runtime(url, workflows=[welcome]) as runtime:
            again = await runtime.client.get(handle.id)
            assert await again.result() == expected
    print("the wheel works")


if __name__ == "__main__":
    trio.run(main)
