"""`aiki` on real databases: looking beside a runtime, changing through one, and without any."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from aiki_sdk import Event, InvalidRequest, Run, StorageReadOnly, task, workflow
from aiki_trio import Runtime
from aiki_trio.cli import ExitCode, main
from aiki_trio.cli._connect import reading
from aiki_trio.cli._control_port import ControlPort, is_served
from aiki_trio.cli._control_server import control_path, start_control
from aiki_trio.cli._settings import CliSettings
from tests.integration.runtimes import file_runtime

go = Event("go", int)

MODULE = '''"""The workflow of these tests, as a module of its own."""

from aiki_sdk import Event, Run, task, workflow

go = Event("go", int)


@task
async def double(number: int) -> int:
    return number * 2


@workflow(name="counter", version="1.0.0", events=[go])
async def counter(run: Run, start: int) -> int:
    return await double(start) + await run.wait(go)


@workflow(name="quick", version="1.0.0")
async def quick(run: Run, start: int) -> int:
    return await double(start)


@workflow(name="broken", version="1.0.0")
async def broken(run: Run) -> None:
    raise ValueError("no")
'''


@task
async def double(number: int) -> int:
    return number * 2


@workflow(name="counter", version="1.0.0", events=[go])
async def counter(run: Run, start: int) -> int:
    return await double(start) + await run.wait(go)


@workflow(name="napper", version="1.0.0")
async def napper(run: Run) -> str:
    return (await run.sleep("nap", hours=1)).value


@frozen
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


Aiki = Callable[..., Done]


@pytest.fixture
def aiki(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Aiki:
    """Give a function that carries out a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cli_counter.py").write_text(MODULE, encoding="utf-8")

    def carry_out(*words: str) -> Done:
        capsys.readouterr()
        code = main(list(words))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return carry_out


async def beside(aiki: Aiki, *words: str) -> Done:
    """Carry out a command while this loop goes on: in a thread, as another process would."""
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(lambda: aiki(*words))


@asynccontextmanager
async def served(folder: Path, *, control: bool = True) -> AsyncGenerator[Runtime]:
    """Run a runtime, with or without a control socket, on the folder's database."""
    path = folder / "aiki.db"
    async with file_runtime(path, counter, napper) as runtime:
        if control:
            await start_control(runtime, path)
        yield runtime


# --- Beside a runtime -----------------------------------------------------------------------------


@pytest.mark.parametrize("control", [True, False], ids=["with-socket", "without-socket"])
async def test_looking_works_beside_a_running_runtime(
    control: bool, aiki: Aiki, tmp_path: Path
) -> None:
    async with served(tmp_path, control=control) as runtime:
        handle = await runtime.client.start(counter, 4, reference_id="c-1", labels={"team": "x"})
        await handle.wait("awaiting_event")

        page = (await beside(aiki, "runs", "list", "--json", "--label", "team=x")).json
        assert [(run["id"], run["status"]) for run in page["runs"]] == [
            (handle.id, "awaiting_event")
        ]
        assert (await beside(aiki, "runs", "list", "--count", "--status", "failed")).out == "0\n"
        info = (await beside(aiki, "runs", "show", "counter:c-1", "--json")).json
        assert info["waits"][0]["name"] == "go"
        entries = (await beside(aiki, "runs", "history", handle.id, "--json")).json
        assert {"run-created", "run-claimed", "task-succeeded"} <= {
            entry["kind"] for entry in entries
        }
        explained = await beside(aiki, "explain", handle.id)
        assert "waits for the event 'go'" in explained.out
        assert "No runtime" not in explained.out
        table = await beside(aiki, "runs", "list")
        assert handle.id in table.out
        assert "awaiting_event" in table.out


@pytest.mark.parametrize("control", [True, False], ids=["pushed", "by-looking"])
async def test_watching_ends_with_the_run(control: bool, aiki: Aiki, tmp_path: Path) -> None:
    async with served(tmp_path, control=control) as runtime:
        handle = await runtime.client.start(counter, 4)
        await handle.wait("awaiting_event")
        ended: list[Done] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                ended.append(await beside(aiki, "runs", "watch", handle.id, "--all", "--json"))

            nursery.start_soon(watch)
            await handle.send(go, 1)
        updates = [json.loads(line) for line in ended[0].out.splitlines()]
        assert ended[0].code == ExitCode.OK
        assert updates[-1]["kind"] == "run-completed"
        durable = [update["seq"] for update in updates if not update["live"]]
        assert durable == list(range(1, durable[-1] + 1))


async def test_changing_goes_through_the_control_socket(aiki: Aiki, tmp_path: Path) -> None:
    async with served(tmp_path) as runtime:
        started = (await beside(aiki, "start", "counter", "--input", '{"start": 4}', "--json")).json
        run_id = started["run_id"]
        handle = await runtime.client.get(run_id, workflow=counter)
        await handle.wait("awaiting_event")

        paused = await beside(aiki, "runs", "pause", run_id, "--reason", "audit", "--json")
        assert paused.json == [{"run_id": run_id, "status": "paused"}]
        assert (await beside(aiki, "runs", "resume", run_id)).code == ExitCode.OK
        sent = await beside(aiki, "runs", "send", run_id, "go", "--data", "5", "--json")
        assert sent.json["duplicate"] is False
        assert await handle.result() == 13

        fork = (await beside(aiki, "runs", "fork", run_id, "--at", "3", "--json")).json
        assert fork["forked_from"] == run_id
        refused = await beside(aiki, "runs", "cancel", run_id, "--json")
        assert refused.code == ExitCode.REFUSED
        assert json.loads(refused.err)["error"]["code"] == "run-ended"
        again = await beside(aiki, "runs", "cancel", fork["run_id"])
        assert again.code == ExitCode.OK

        sleeper = await runtime.client.start(napper)
        await sleeper.wait("sleeping")
        woken = await beside(aiki, "runs", "wake", sleeper.id, "--sleep", "nap")
        assert woken.code == ExitCode.OK
        assert await sleeper.result() == "woken"


async def test_starting_can_wait_for_the_end_over_the_socket(aiki: Aiki, tmp_path: Path) -> None:
    async with served(tmp_path) as runtime:
        ended: list[Done] = []
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                flags = ("--reference-id", "w-1", "--wait", "--json")
                ended.append(
                    await beside(aiki, "start", "counter", "--input", '{"start": 1}', *flags)
                )

            nursery.start_soon(start)
            subscription = runtime.hub.subscribe()
            with subscription:
                async for update in subscription:
                    if update.status == "awaiting_event":
                        await (await runtime.client.get(update.run_id)).send("go", 7)
                        break
        assert ended[0].json == 9


async def test_a_wait_that_takes_too_long_has_its_own_exit_code(aiki: Aiki, tmp_path: Path) -> None:
    async with served(tmp_path):
        flags = ("--input", '{"start": 1}', "--wait", "--wait-timeout", "0.05")
        assert (await beside(aiki, "start", "counter", *flags)).code == ExitCode.TIMED_OUT


async def test_a_runtime_without_a_socket_is_named_and_nothing_is_changed(
    aiki: Aiki, tmp_path: Path
) -> None:
    async with served(tmp_path, control=False) as runtime:
        handle = await runtime.client.start(counter, 4)
        await handle.wait("awaiting_event")
        refused = await beside(aiki, "runs", "cancel", handle.id)
        assert refused.code == ExitCode.UNAVAILABLE
        assert "in use by a runtime that takes no commands" in refused.err
        assert await handle.status() == "awaiting_event"


# --- The socket -----------------------------------------------------------------------------------


async def test_the_control_socket_is_for_its_user_alone_and_goes_with_the_runtime(
    tmp_path: Path,
) -> None:
    path = control_path(tmp_path / "aiki.db")
    async with served(tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_that_a_killed_runtime_left_is_replaced(tmp_path: Path) -> None:
    path = control_path(tmp_path / "aiki.db")
    left = trio.socket.socket(trio.socket.AF_UNIX)
    await left.bind(str(path))
    left.close()
    assert not await is_served(path)
    async with served(tmp_path):
        assert await is_served(path)


async def test_a_caller_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    """The runtime stops waiting for a run's end when the one who asked has gone."""
    async with served(tmp_path) as runtime:
        handle = await runtime.client.start(counter, 4)
        port = ControlPort(control_path(tmp_path / "aiki.db"), "default")
        with trio.move_on_after(0.1):
            await port.result(handle.id, wait_s=None)
        for _ in range(1_000):
            if "0 waiters" in runtime.hub.describe():
                break
            await trio.sleep(0.01)
        assert "0 waiters" in runtime.hub.describe()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense\n", "not a JSON document"),
        (b"[]\n", "pass namespace, method and params"),
        (b'{"namespace": "default", "method": "drop", "params": {}}\n', "method='drop'"),
        (b'{"namespace": "default", "method": "get", "params": {}}\n', "run_id"),
    ],
)
async def test_what_is_no_request_is_answered_with_what_is_wrong(
    line: bytes, words: str, tmp_path: Path
) -> None:
    async with served(tmp_path):
        stream = await trio.open_unix_socket(str(control_path(tmp_path / "aiki.db")))
        async with stream:
            await stream.send_all(line)
            answer = b""
            while not answer.endswith(b"\n"):
                answer += await stream.receive_some()
        assert words in json.loads(answer)["error"]["message"]


async def test_another_file_at_the_sockets_place_is_not_touched(tmp_path: Path) -> None:
    path = control_path(tmp_path / "aiki.db")
    path.write_text("mine")
    async with file_runtime(tmp_path / "aiki.db", counter) as runtime:
        with pytest.raises(InvalidRequest, match="another file is there"):
            await start_control(runtime, tmp_path / "aiki.db")
    assert path.read_text() == "mine"


async def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    async with file_runtime(tmp_path / "aiki.db", counter) as runtime:
        with pytest.raises(InvalidRequest, match="put the database where the path is shorter"):
            await start_control(runtime, tmp_path / ("x" * 120))


# --- Without a runtime ----------------------------------------------------------------------------


def test_without_a_runtime_commands_open_the_database_and_leave(aiki: Aiki) -> None:
    """Started without a worker the run stays queued; with `--wait` it is worked on."""
    module = ("--module", "cli_counter")
    run_id = aiki("start", "counter", "--input", '{"start": 1}', *module).out.strip()
    assert run_id.startswith("run_")
    shown = aiki("explain", run_id)
    assert "has been ready since" in shown.out
    assert "No runtime has the database open" in shown.out
    assert aiki("runs", "cancel", run_id, "--reason", "gone").code == ExitCode.OK
    assert aiki("runs", "show", run_id, "--json").json["status"] == "cancelled"
    waited = aiki("start", "quick", "--input", '{"start": 4}', "--wait", "--json", *module)
    assert waited.json == 8
    failed = aiki("start", "broken", "--wait", *module)
    assert failed.code == ExitCode.REFUSED
    assert "no" in failed.err


def test_what_is_missing_is_named_with_its_exit_code(aiki: Aiki) -> None:
    assert aiki("runs", "list").code == ExitCode.NOT_FOUND
    assert aiki("runs", "cancel", "run_1").code == ExitCode.NOT_FOUND
    without_code = aiki("start", "counter", "--input", '{"start": 1}')
    assert without_code.code == ExitCode.USAGE
    assert "--module" in without_code.err
    unknown = aiki("start", "nobody", "--module", "cli_counter")
    assert unknown.code == ExitCode.NOT_FOUND
    assert "counter@1.0.0" in unknown.err
    assert aiki("runs", "show", "run_1").code == ExitCode.NOT_FOUND
    assert aiki("start", "counter", "--input", "[1]").code == ExitCode.USAGE
    assert aiki("runs", "list", "--limit", "0").code == ExitCode.USAGE
    assert aiki("runs", "list", "--database-url", "sqlite://").code == ExitCode.USAGE


async def test_what_reads_cannot_write(aiki: Aiki, tmp_path: Path) -> None:
    async with file_runtime(tmp_path / "aiki.db", counter) as runtime:
        handle = await runtime.client.start(counter, 1)
    async with reading(CliSettings(database_url=f"sqlite:///{tmp_path / 'aiki.db'}")) as client:
        with pytest.raises(StorageReadOnly):
            await (await client.get(handle.id)).cancel()


# --- Doctor, record, replay -----------------------------------------------------------------------


def verdicts(done: Done) -> dict[str, str]:
    """Return the verdict of each check."""
    return {finding["check"]: finding["verdict"] for finding in done.json}


async def test_runs_that_nobody_serves_are_listed_with_what_they_lack(
    aiki: Aiki, tmp_path: Path
) -> None:
    async with served(tmp_path) as runtime:
        await runtime.client.options(pool="gpu").start(counter, 1)
        done = await runtime.client.start(napper)
        found = await beside(aiki, "runs", "list", "--undeliverable")
        assert "counter@1.0.0 in pool gpu" in found.out
        assert done.id not in found.out
        count = await beside(aiki, "runs", "list", "--undeliverable", "--count", "--json")
        assert count.json == {"count": 1}
    alone = await beside(aiki, "runs", "list", "--undeliverable", "--json")
    assert [run["pool"] for run in alone.json["runs"]] == ["gpu"]
    assert "nobody serves any run" in alone.err


async def test_a_file_alone_does_not_know_who_serves_what(aiki: Aiki, tmp_path: Path) -> None:
    async with served(tmp_path):
        settings = CliSettings(database_url=f"sqlite:///{tmp_path / 'aiki.db'}")
        async with reading(settings) as client:
            with pytest.raises(InvalidRequest, match="does not know which workers"):
                await client.list(undeliverable=True)


def test_the_doctor_finds_nothing_wrong_where_nothing_is(aiki: Aiki) -> None:
    fresh = aiki("doctor", "--json")
    assert fresh.code == ExitCode.OK
    assert verdicts(fresh)["database"] == "warning"
    aiki("start", "quick", "--input", '{"start": 4}', "--wait", "--module", "cli_counter")
    whole = aiki("doctor", "--json", "--module", "cli_counter")
    assert whole.code == ExitCode.OK
    assert set(verdicts(whole).values()) == {"ok"}


async def test_the_doctor_names_runs_whose_version_is_lacking(aiki: Aiki, tmp_path: Path) -> None:
    async with served(tmp_path) as runtime:
        handle = await runtime.client.start(napper)
        await handle.wait("sleeping")
        found = await beside(aiki, "doctor", "--json", "--module", "cli_counter")
    assert found.code == ExitCode.REFUSED
    (finding,) = [one for one in found.json if one["check"] == "versions"]
    assert "napper@1.0.0" in finding["message"]
    assert handle.id in finding["message"]


def test_the_doctor_sees_a_file_that_is_no_database(aiki: Aiki, tmp_path: Path) -> None:
    (tmp_path / "aiki.db").write_bytes(b"not a database at all, but some text" * 100)
    found = aiki("doctor", "--json")
    assert found.code == ExitCode.REFUSED
    assert verdicts(found)["database"] == "fault"


def test_the_doctor_sees_that_asserts_are_off(aiki: Aiki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiki_trio.cli._doctor.asserts_are_on", lambda: False)
    found = aiki("doctor", "--json")
    assert found.code == ExitCode.REFUSED
    assert verdicts(found)["asserts"] == "fault"


async def test_recorded_journals_are_a_gate_for_code(aiki: Aiki, tmp_path: Path) -> None:
    """Safe, then diverging, then lacking the version; scrubbed journals hold no payload."""
    async with served(tmp_path) as runtime:
        handle = await runtime.client.start(counter, 4711)
        await handle.wait("awaiting_event")
        recorded = await beside(aiki, "record", "--out", "journals", "--json")
        assert [one["run_id"] for one in recorded.json] == [handle.id]
        safe = await beside(aiki, "replay", "cli_counter", "--json")
    assert safe.code == ExitCode.OK
    assert [one["verdict"] for one in safe.json] == ["safe"]

    folder = ("--folder", "journals")
    assert (await beside(aiki, "replay", "cli_counter", *folder)).code == ExitCode.OK
    other = MODULE.replace("await double(start) + await", "await double(start + 1) + await")
    (tmp_path / "cli_changed.py").write_text(other, encoding="utf-8")
    changed = await beside(aiki, "replay", "cli_changed.py", *folder)
    assert changed.code == ExitCode.REFUSED
    assert "would diverge" in changed.out
    assert "double" in changed.out
    (tmp_path / "cli_newer.py").write_text(MODULE.replace("1.0.0", "2.0.0"), encoding="utf-8")
    newer = await beside(aiki, "replay", "cli_newer", *folder)
    assert newer.code == ExitCode.NEEDS_VERSION
    assert "it has counter@2.0.0" in newer.out
    assert (
        await beside(aiki, "replay", "cli_counter", "--folder", "nowhere")
    ).code == ExitCode.USAGE

    assert (await beside(aiki, "record", "--out", "scrubbed", "--scrub")).code == ExitCode.OK
    (path,) = (tmp_path / "scrubbed").iterdir()
    assert "4711" not in path.read_text()
    assert "9422" not in path.read_text()
    assert (await beside(aiki, "replay", "cli_counter", "--file", str(path))).code == ExitCode.OK


def test_scrubbing_can_be_left_to_a_function(aiki: Aiki, tmp_path: Path) -> None:
    text = "def scrub(place, value):\n    return {'start': 9} if place == 'input' else value\n"
    (tmp_path / "cli_privacy.py").write_text(text)
    aiki("start", "quick", "--input", '{"start": 4}', "--wait", "--module", "cli_counter")
    done = aiki("record", "--out", "j", "--scrub", "cli_privacy:scrub")
    assert done.code == ExitCode.OK
    (path,) = (tmp_path / "j").iterdir()
    assert json.loads(path.read_text())["entries"][0]["body"]["input"] == {"start": 9}
    assert aiki("record", "--out", "j", "--scrub", "cli_privacy:none").code == ExitCode.USAGE


def test_commands_leave_no_thread_behind(aiki: Aiki) -> None:
    aiki("start", "quick", "--input", '{"start": 4}', "--wait", "--module", "cli_counter")
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith(("sqlite", "aiki")) for name in names), names
