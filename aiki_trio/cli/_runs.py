"""`aiki runs …` and `aiki start`: what a client can do, from a terminal.

Looking works on the file itself; changing, and asking which runs nobody serves,
goes to the runtime that owns it (`_connect`).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, cast

import trio

from aiki_sdk import (
    Client,
    InvalidRequest,
    JsonValue,
    RunFailed,
    RunHandle,
    RunInfo,
    RunOutcome,
    RunStatus,
    RunSummary,
    Unavailable,
    Update,
)
from aiki_sdk.protocol import to_wire

from ._command import Command
from ._connect import changing, find_run, reading, watching
from ._exit import ExitCode
from ._output import Output, shown_json, shown_time
from ._values import filters_of, json_argument, pairs_argument, span_argument

RELOAD_S: Final = 30.0
"""Seconds that a command which waits bears with a runtime that is gone, since it may reload."""

RETRY_S: Final = 0.2

# --- Looking --------------------------------------------------------------------------------------


async def list_runs(command: Command) -> ExitCode:
    """`aiki runs list`: a page of runs, the newest first, or how many there are."""
    arguments, output = command.arguments, command.output
    filters = filters_of(arguments)
    async with _who_knows(command) as client:
        if arguments.count:
            count = await client.count(**filters)
            output.document({"count": count}) if output.json else output.line(str(count))
            return ExitCode.OK
        page = await client.list(limit=arguments.limit, cursor=arguments.cursor, **filters)
    if output.json:
        output.document(to_wire(page))
        return ExitCode.OK
    last = "nobody serves" if arguments.undeliverable else "due (UTC)"
    rows = [
        (
            run.id,
            f"{run.workflow} {run.version}",
            run.status.value,
            run.reference_id or "",
            shown_time(run.created_at),
            unserved(run) if arguments.undeliverable else shown_time(run.due_at),
        )
        for run in page.runs
    ]
    output.table(("run", "workflow", "status", "reference", "created (UTC)", last), rows)
    if page.cursor is not None:
        output.note(f"more: --cursor {page.cursor}")
    return ExitCode.OK


def unserved(run: RunSummary) -> str:
    """Say what a worker would need to be given a run."""
    return f"{run.workflow}@{run.version} in pool {run.pool}"


@asynccontextmanager
async def _who_knows(command: Command) -> AsyncGenerator[Client]:
    """Open a way to list runs: the file will do, except to tell which workers there are."""
    if not command.arguments.undeliverable:
        async with reading(command.settings) as client:
            yield client
        return
    async with changing(command.settings) as connection:
        if not connection.served:
            command.output.note("no runtime works on the database, so nobody serves any run")
        yield connection.client


async def show_run(command: Command) -> ExitCode:
    """`aiki runs show`: all that is known of one run, its journal aside."""
    async with reading(command.settings) as client:
        handle = await find_run(client, command.arguments.run)
        info = await handle.info(follow=False)
    if command.output.json:
        command.output.document(to_wire(info))
        return ExitCode.OK
    for name, text in facts_of(info):
        command.output.line(f"{name:<12} {command.output.word(text)}")
    return ExitCode.OK


def facts_of(info: RunInfo) -> list[tuple[str, str]]:
    """Return what is known of a run as names and texts; what is unknown or empty is left out."""
    facts: list[tuple[str, str]] = [
        ("run", info.id),
        ("workflow", f"{info.workflow} {info.version}"),
        ("status", info.status.value),
        ("reference", info.reference_id or ""),
        ("parent", info.parent_id or ""),
        ("labels", ", ".join(f"{name}={value}" for name, value in info.labels.items())),
        ("pool", "" if info.pool == "default" else info.pool),
        ("attempt", "" if info.attempt == 1 else str(info.attempt)),
        ("created", shown_time(info.created_at)),
        ("started", shown_time(info.started_at)),
        ("ended", shown_time(info.ended_at)),
        ("due", shown_time(info.due_at)),
        ("worker", info.worker_id or ""),
        ("input", shown_json(info.input)),
        ("output", shown_json(info.output) if info.status is RunStatus.COMPLETED else ""),
        ("error", "" if info.error is None else str(info.error)),
        ("reason", info.reason or ""),
    ]
    facts += [
        ("waits for", f"{wait.kind} {wait.name} {_until(wait.due_at)}".strip())
        for wait in info.waits
    ]
    facts += [("value", f"{key} = {shown_json(value)}") for key, value in info.values.items()]
    facts += [("child", child) for child in info.children]
    facts += [
        ("continued as", info.continued_as or ""),
        ("continues", info.continued_from or ""),
        ("forked from", "" if info.forked_from is None else info.forked_from.run_id),
    ]
    facts += [("fork", fork.run_id) for fork in info.forks]
    return [(name, text) for name, text in facts if text]


def _until(due_at: datetime | None) -> str:
    return "" if due_at is None else f"until {shown_time(due_at)}"


async def show_history(command: Command) -> ExitCode:
    """`aiki runs history`: the journal of one run, entry by entry."""
    async with reading(command.settings) as client:
        handle = await find_run(client, command.arguments.run)
        entries = [entry for entry in await handle.history() if entry.seq > command.arguments.after]
    if command.output.json:
        command.output.document([to_wire(entry) for entry in entries])
        return ExitCode.OK
    for entry in entries:
        body = shown_json(dict(entry.body)) if command.arguments.bodies else _brief(entry.body)
        command.output.line(
            f"{entry.seq:>5}  {command.output.dim(shown_time(entry.at))}  {entry.kind:<22} {body}"
        )
    return ExitCode.OK


def _brief(body: Mapping[str, JsonValue]) -> str:
    """Say what an entry is about, without payloads."""
    call = body.get("call")
    if isinstance(call, dict):
        return ":".join(str(call.get("address")).split(":")[:2])
    for name in ("name", "reason", "worker_id", "workflow", "child_id", "key"):
        if isinstance(body.get(name), str):
            return f"{name} {body[name]}"
    return ""


async def watch_run(command: Command) -> ExitCode:
    """`aiki runs watch`: what happens to one run, until it ends."""
    async with watching(command.settings) as client:
        handle = await find_run(client, command.arguments.run)
        after = 0 if command.arguments.all else (await handle.info(follow=False)).seq
        async with handle.updates(after=after) as updates:

            async def next_update() -> Update | None:
                return await anext(updates, None)

            while (update := await bearing_reloads(next_update)) is not None:
                print_update(command.output, update)
        info = await handle.info(follow=False)
    if not command.output.json:
        command.output.line(f"{info.id} is {command.output.word(info.status.value)}")
    return ExitCode.OK


def print_update(output: Output, update: Update) -> None:
    """Print one change of a run."""
    if output.json:
        output.item(to_wire(update))
        return
    output.line(
        f"{output.dim(update.at.strftime('%H:%M:%S'))}  {update.run_id}  {update.workflow:<20} "
        f"{update.kind:<22} {output.word(update.status.value)}"
    )


async def bearing_reloads(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again while the runtime is away, for `RELOAD_S` seconds at most.

    Raises:
        Unavailable: it does not come back.
    """
    deadline = trio.current_time() + RELOAD_S
    while True:
        try:
            return await ask()
        except Unavailable:
            if trio.current_time() >= deadline:
                raise
        await trio.sleep(RETRY_S)


# --- Changing -------------------------------------------------------------------------------------


async def control_runs(command: Command) -> ExitCode:
    """`aiki runs cancel|terminate|pause|resume|wake|requeue|retry`: one thing to some runs."""
    word: str = command.arguments.command
    done: list[JsonValue] = []
    async with changing(command.settings) as connection:
        for text in command.arguments.runs:
            handle = await find_run(connection.client, text)
            await _control(handle, word, command.arguments)
            info = await handle.info()
            done.append({"run_id": info.id, "status": info.status.value})
            if not command.output.json:
                shown = command.output.word(info.status.value)
                command.output.line(f"{info.id}: {word} accepted, now {shown}")
    if command.output.json:
        command.output.document(done)
    return ExitCode.OK


async def _control(handle: RunHandle[object], word: str, arguments: Namespace) -> None:
    match word:
        case "cancel":
            await handle.cancel(arguments.reason)
        case "terminate":
            await handle.terminate(arguments.reason)
        case "pause":
            await handle.pause(arguments.reason)
        case "resume":
            await handle.resume()
        case "wake":
            await handle.wake(arguments.sleep)
        case "requeue":
            await handle.requeue()
        case _:
            assert word == "retry", f"the parser knows no command {word!r}"
            await handle.retry()


async def send_event(command: Command) -> ExitCode:
    """`aiki runs send`: an event to one run."""
    arguments = command.arguments
    data = None if arguments.data is None else json_argument("data", arguments.data)
    async with changing(command.settings) as connection:
        handle = await find_run(connection.client, arguments.run)
        receipt = await handle.send(arguments.event, data, reference_id=arguments.reference_id)
    if command.output.json:
        command.output.document(to_wire(receipt))
    else:
        how = "was accepted before" if receipt.duplicate else f"accepted as entry {receipt.seq}"
        command.output.line(f"{handle.id}: event {arguments.event} {how}")
    return ExitCode.OK


async def fork_run(command: Command) -> ExitCode:
    """`aiki runs fork`: a new run of what one had recorded."""
    arguments = command.arguments
    given = None if arguments.input is None else json_argument("input", arguments.input)
    if given is not None and not isinstance(given, dict):
        message = f"--input {given!r} is not valid: pass a JSON object, every parameter by name"
        raise InvalidRequest(message)
    async with changing(command.settings) as connection:
        handle = await find_run(connection.client, arguments.run)
        fork = await handle.fork(arguments.at, input=given, version=arguments.to_version)
    if command.output.json:
        command.output.document({"run_id": fork.id, "forked_from": handle.id})
    else:
        command.output.line(fork.id)
    return ExitCode.OK


async def start_run(command: Command) -> ExitCode:
    """`aiki start`: start a run, and wait for its end if that was asked for."""
    arguments, settings = command.arguments, command.settings
    data = json_argument("input", arguments.input)
    if not isinstance(data, dict):
        message = f"--input {data!r} is not valid: pass a JSON object, every parameter by name"
        raise InvalidRequest(message)
    name, _, version = cast("str", arguments.workflow).partition("@")
    options: dict[str, Any] = {
        "reference_id": arguments.reference_id,
        "on_conflict": arguments.on_conflict,
        "priority": arguments.priority,
        "pool": arguments.pool,
        "labels": pairs_argument("label", arguments.label),
        "version": version or None,
    }
    for option in ("delay", "timeout"):
        text: str | None = getattr(arguments, option)
        if text is not None:
            options[option] = span_argument(option, text)
    async with changing(settings, create=True, work=arguments.wait) as connection:
        if not connection.served and settings.module is None:
            message = (
                f"nobody serves {settings.database_url}, so the workflow's code is needed: pass "
                "--module, as in `--module my_app.workflows`, or run `aiki dev` first"
            )
            raise InvalidRequest(message)
        handle = await connection.client.options(**options).start(cast("Any", name), data)
        if arguments.wait:
            return await _await_end(command, handle)
    if command.output.json:
        command.output.document({"run_id": handle.id})
    else:
        command.output.line(handle.id)
        if not connection.served:
            command.output.note("nobody executes it until a runtime opens the database")
    return ExitCode.OK


async def _await_end(command: Command, handle: RunHandle[Any]) -> ExitCode:
    output, text = command.output, command.arguments.wait_timeout
    timeout = None if text is None else span_argument("wait-timeout", text)
    output.note(handle.id)
    try:
        result: object = await bearing_reloads(lambda: handle.result(timeout=timeout))
    except RunOutcome as outcome:
        if output.json:
            info = await handle.info()
            output.document(to_wire(info))
        word = "failed" if isinstance(outcome, RunFailed) else "cancelled"
        output.note(f"{output.word(word)}: {outcome.message}")
        return ExitCode.REFUSED
    shown = to_wire(result)
    output.document(shown) if output.json else output.line(shown_json(shown))
    return ExitCode.OK
