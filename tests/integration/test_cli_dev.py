"""`aiki dev`, as a process: reloading under runs in flight, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define

from aiki_sdk import Client
from aiki_trio.cli._control_port import ControlPort
from aiki_trio.cli._control_server import control_path
from tests.integration.runtimes import file_runtime

pytestmark = pytest.mark.slow  # real processes start, and files are looked at twice a second

PATIENCE_S = 50

MODULE = """
from aiki_sdk import Event, Run, task, workflow

go = Event("go", int)


@task
async def double(number: int) -> int:
    return number * 2


@workflow(name="counter", version="1.0.0", events=[go])
async def counter(run: Run, start: int) -> str:
    doubled = await double(start)
    more = await run.wait(go)
    return f"old code: {doubled + more}"
"""


@define(eq=False)
class Dev:
    """An `aiki dev` that runs."""

    process: trio.Process
    folder: Path
    said: str = ""

    async def says(self, words: str) -> None:
        """Wait until it has said this since the last time."""
        assert self.process.stderr is not None
        while words not in self.said:
            chunk = await self.process.stderr.receive_some()
            assert chunk, f"it ended without saying {words!r}; it said {self.said!r}"
            self.said += chunk.decode()
        self.said = self.said.partition(words)[2]

    @property
    def client(self) -> Client:
        """A client that speaks to it as commands do."""
        return Client(ControlPort(control_path(self.folder / "aiki.db"), "default"))

    def write(self, text: str) -> None:
        """Save the module."""
        (self.folder / "counter_app.py").write_text(text, encoding="utf-8")


@asynccontextmanager
async def dev(folder: Path) -> AsyncGenerator[Dev]:
    """Run `aiki dev counter_app.py` in a folder; kill it at the end if it still runs."""
    (folder / "counter_app.py").write_text(MODULE, encoding="utf-8")
    environment = {name: v for name, v in os.environ.items() if not name.startswith("AIKI_")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "aiki_trio.cli", "dev", "counter_app.py", "--json"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        with trio.fail_after(PATIENCE_S):
            running = Dev(process, folder)
            await running.says("ready: counter@1.0.0")
            yield running
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def test_a_run_that_began_on_old_code_ends_on_new_code(tmp_path: Path) -> None:
    """The file is saved while the run waits; code that does not import is survived on the way."""
    async with dev(tmp_path) as running:
        handle = await running.client.start("counter", {"start": 4}, reference_id="c-1")
        await handle.wait("awaiting_event")

        running.write("this is no Python")
        await running.says("counter_app.py changed")
        await running.says("SyntaxError")
        await running.says("waiting for a change of the code")

        running.write(MODULE.replace("old code", "new code"))
        await running.says("ready: counter@1.0.0")
        await handle.send("go", 1)
        assert await handle.result() == "new code: 9"

        running.process.terminate()
        assert await running.process.wait() == 0
        assert not control_path(tmp_path / "aiki.db").exists()


async def test_a_second_dev_on_the_same_database_is_refused(tmp_path: Path) -> None:
    async with dev(tmp_path):
        done = await trio.run_process(
            [sys.executable, "-m", "aiki_trio.cli", "dev", "counter_app.py", "--json"],
            cwd=tmp_path,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 4
        problem = json.loads(done.stderr.decode().splitlines()[-1])
        assert problem["error"]["code"] == "storage-locked"


async def test_the_runtime_leaves_when_the_process_that_watches_it_is_killed(
    tmp_path: Path,
) -> None:
    """Nothing is left that holds the database: another runtime can open it at once or soon."""
    async with dev(tmp_path) as running:
        handle = await running.client.start("counter", {"start": 4})
        await handle.wait("awaiting_event")
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()
        assert running.process.stderr is not None
        # The runtime shares this pipe: its end is the runtime's.
        while await running.process.stderr.receive_some():
            continue
        async with file_runtime(tmp_path / "aiki.db") as runtime:
            assert await (await runtime.client.get(handle.id)).status() == "awaiting_event"


async def test_python_without_asserts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "counter_app.py").write_text(MODULE, encoding="utf-8")
    done = await trio.run_process(
        [sys.executable, "-O", "-m", "aiki_trio.cli", "dev", "counter_app.py"],
        cwd=tmp_path,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"python -O" in done.stderr
