"""The process in which `aiki dev` runs workflows: one runtime, its control socket, its news.

It ends, letting running tasks finish within their grace period, when it gets SIGTERM or SIGINT, and
when its standard input is closed, which happens when the process that started it is gone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from attrs import evolve

from aiki_actors.server import KeeperSettings, SubscriberTooSlow, UpdateFilter
from aiki_actors.storage import SqliteSettings
from aiki_actors.worker import WorkerSettings
from aiki_sdk import AikiError, AnyWorkflow, Unavailable
from aiki_trio._runtime import Runtime, open_runtime
from aiki_trio._settings import RuntimeSettings

from ._connect import needed_module
from ._control_server import start_control
from ._exit import ExitCode, exit_code_of, only_error
from ._logs import log_to_stderr
from ._modules import load_workflows
from ._output import Output
from ._runs import print_update
from ._settings import RELOAD_GRACE_S, CliSettings, variable_of
from ._signals import stop_on_signal, stop_with_parent


def main(arguments: list[str]) -> int:
    """Run until told to stop; the settings come as one JSON argument."""
    settings, output = handed_over(arguments[0])
    return run_child(_serve, settings, output)


def handed_over(argument: str) -> tuple[CliSettings, Output]:
    """Read what the process that started this one says, and log as it says."""
    values = json.loads(argument)
    colour = values.pop("colour") is True
    key = os.environ.get(variable_of("api_key"))
    settings = CliSettings(**values, api_key=key)
    log_to_stderr(settings.log_level or "warning")
    return settings, Output(sys.stdout, sys.stderr, json=settings.json, colour=colour)


Serve = Callable[[CliSettings, tuple[AnyWorkflow, ...], Output], Awaitable[None]]


def run_child(serve: Serve, settings: CliSettings, output: Output) -> int:
    """Import the workflows and serve them; return the exit code."""
    try:
        workflows = load_workflows(needed_module(settings), Path.cwd())
        trio.run(serve, settings, workflows, output)
    except (AikiError, BaseExceptionGroup) as group:
        error = only_error(group)
        if not isinstance(error, AikiError):
            raise
        output.error(error)
        return exit_code_of(error)
    return ExitCode.OK


def runtime_settings(settings: CliSettings) -> RuntimeSettings:
    """Return the settings of the runtime."""
    worker = WorkerSettings(
        runs_max=settings.runs_max,
        pools=settings.pool_names,
        shutdown_grace_s=settings.grace_s(RELOAD_GRACE_S),
    )
    return evolve(
        RuntimeSettings(),
        worker=worker,
        keeper=KeeperSettings(retention=settings.retention),
        sqlite=SqliteSettings(synchronous=settings.synchronous),
        on_divergence=settings.on_divergence or "fail",
    )


async def _serve(settings: CliSettings, workflows: tuple[AnyWorkflow, ...], output: Output) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stop)
        nursery.start_soon(stop_with_parent, stop)
        async with open_runtime(
            settings.database_url,
            workflows=workflows,
            settings=runtime_settings(settings),
            namespace=settings.namespace,
            redis_url=settings.redis_url,
        ) as runtime:
            await start_control(runtime, settings.database_path)
            async with trio.open_nursery() as printing:
                printing.start_soon(_print_changes, runtime, output)
                keys = ", ".join(workflow.key for workflow in workflows)
                output.note(f"ready: {keys} on {settings.database_url}")
                await stop.wait()
                printing.cancel_scope.cancel()
            # Left without being cancelled: so the runtime drains instead of breaking off.
        nursery.cancel_scope.cancel()


async def _print_changes(runtime: Runtime, output: Output) -> None:
    """Print what happens to every run; a terminal that is too slow misses some, and is told so."""
    while True:
        with runtime.hub.subscribe(where=UpdateFilter(runtime.namespace)) as subscription:
            try:
                async for update in subscription:
                    print_update(output, update)
            except SubscriberTooSlow as error:
                output.note(f"changes were left out here: {error.message}")
            except Unavailable:
                return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
