"""Payloads behind a codec: the database sees none of them, and everything works as without."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
import trio

import aiki_trio
from aiki_sdk import (
    Event,
    PayloadCodec,
    PayloadError,
    Retry,
    RunFailed,
    RunStatus,
    TaskFailed,
    current_task,
    task,
    workflow,
)
from aiki_sdk._run import Run
from aiki_sdk.protocol import SendRequest
from examples import encrypted_payloads as example
from examples.encrypted_payloads import KeyRing, Patient, inform_patient

SECRET = "Quetzalcoatl"
OLD, NEW = os.urandom(32), os.urandom(32)
told = Event("told", str)


@task(retry=Retry.fixed(2, 0.01))
async def whisper(word: str) -> str:
    me = current_task()
    me.heartbeat({"said": word})
    me.progress(word)
    if me.attempt == 1:
        raise ConnectionError(word)
    return f"{word}, {word}"


@task
async def gives_in(word: str) -> str:
    raise ValueError(word)


@workflow(name="echo-child", version="1.0.0")
async def echo_child(run: Run, word: str) -> str:
    return word


@workflow(name="everything", version="1.0.0", events=[told])
async def everything(run: Run, word: str) -> str:
    await whisper(word)
    heard = await run.wait(told)
    child = await run.call(echo_child, heard)
    kept = await run.local("kept", lambda: word)
    await run.publish("last", child)
    with pytest.raises(TaskFailed, match=word):
        await gives_in(word)
    return f"{heard}/{child}/{kept}"


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


async def test_no_payload_reaches_the_database_and_the_client_reads_all(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    workflows = [everything, echo_child]
    codec = KeyRing({"old": OLD})
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=workflows, codec=codec) as runtime:
            handle = await runtime.client.start(everything, SECRET)
            await handle.wait(RunStatus.AWAITING_EVENT)
            await handle.send(told, SECRET)
            assert await handle.result() == f"{SECRET}/{SECRET}/{SECRET}"
            info = await handle.info()
            assert info.input == {"word": SECRET}
            assert info.values == {"last": SECRET}
            history = str(await handle.history())
            assert "$sealed" not in history
            assert history.count(SECRET) > 8
            assert SECRET.encode() not in stored(tmp_path)
            read = [update async for update in handle.updates()]
            assert "$sealed" not in str(read)
    assert SECRET.encode() not in stored(tmp_path)


async def test_a_run_goes_on_under_a_new_key_that_brings_the_old_one_along(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    workflows = [everything, echo_child]
    with trio.fail_after(20):
        old = KeyRing({"old": OLD})
        async with aiki_trio.open_runtime(url, workflows=workflows, codec=old) as runtime:
            handle = await runtime.client.start(everything, SECRET)
            await handle.wait(RunStatus.AWAITING_EVENT)
        new = KeyRing({"new": NEW, "old": OLD})
        async with aiki_trio.open_runtime(url, workflows=workflows, codec=new) as runtime:
            again = await runtime.client.get(handle.id, workflow=everything)
            await again.send(told, SECRET)
            assert await again.result() == f"{SECRET}/{SECRET}/{SECRET}"
            assert "sleep" not in str((await again.info()).waits)


async def test_a_run_whose_key_is_gone_stalls_and_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    workflows = [everything, echo_child]
    with trio.fail_after(30):
        old = KeyRing({"old": OLD})
        async with aiki_trio.open_runtime(url, workflows=workflows, codec=old) as runtime:
            handle = await runtime.client.start(everything, SECRET)
            await handle.wait(RunStatus.AWAITING_EVENT)
        new = KeyRing({"new": NEW})
        async with aiki_trio.open_runtime(url, workflows=workflows, codec=new) as runtime:
            port = runtime.port_for("default")
            with pytest.raises(PayloadError, match="'old', which is not here"):
                await (await runtime.client.get(handle.id, workflow=everything)).info()
            async with port.updates(handle.id, after=0) as updates:
                await port.send(handle.id, SendRequest(event="told", data="plain"))
                async for update in updates:
                    if update.status is RunStatus.STALLED:
                        break
            info = await port.get(handle.id)
            assert "'old', which is not here" in (info.reason or "")


async def test_an_input_that_is_sealed_is_told_apart_by_its_hash(tmp_path: Path) -> None:
    """Equal inputs have equal hashes, sealed or not: so reference ids work, and so it shows."""
    url = f"sqlite:///{tmp_path}/runs.db"
    codec = KeyRing({"old": OLD})
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=[echo_child], codec=codec) as runtime:
            options = runtime.client.options(reference_id="once")
            first = await options.start(echo_child, SECRET)
            assert (await options.start(echo_child, SECRET)).id == first.id
            assert await first.result() == SECRET


async def test_a_codec_can_be_added_to_a_database_that_has_payloads(tmp_path: Path) -> None:
    class Deflate:
        def encode(self, data: bytes) -> bytes:
            return zlib.compress(data)

        def decode(self, data: bytes) -> bytes:
            return zlib.decompress(data)

    codec: PayloadCodec = Deflate()
    url = f"sqlite:///{tmp_path}/runs.db"
    workflows = [everything, echo_child]
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=workflows) as runtime:
            handle = await runtime.client.start(everything, SECRET)
            await handle.wait(RunStatus.AWAITING_EVENT)
        async with aiki_trio.open_runtime(url, workflows=workflows, codec=codec) as runtime:
            again = await runtime.client.get(handle.id, workflow=everything)
            await again.send(told, SECRET)
            assert SECRET in await again.result()


async def test_the_error_of_a_failed_run_is_sealed_but_for_its_type(tmp_path: Path) -> None:
    @workflow(name="confesses", version="1.0.0")
    async def confesses(run: Run) -> None:
        raise ValueError(SECRET)

    url = f"sqlite:///{tmp_path}/runs.db"
    codec = KeyRing({"old": OLD})
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=[confesses], codec=codec) as runtime:
            handle = await runtime.client.start(confesses)
            with pytest.raises(RunFailed, match=f"ValueError: {SECRET}"):
                await handle.result()
            sealed = (await runtime.port_for("default").get(handle.id)).error
            assert sealed is not None
            assert (sealed.type, sealed.message) == ("ValueError", "(sealed)")
            assert SECRET not in str(sealed)


async def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(20):
        await example.main()
    out = capsys.readouterr().out
    assert "Dear Ada" in out
    assert "the database holds the diagnosis: False" in out
    assert inform_patient.name == "inform-patient"
    assert Patient("Ada", "x").name == "Ada"


def test_a_changed_payload_is_noticed() -> None:
    ring = KeyRing({"old": OLD})
    sealed = bytearray(ring.encode(b"1"))
    sealed[-1] ^= 1
    with pytest.raises(ValueError, match="was changed"):
        ring.decode(bytes(sealed))
