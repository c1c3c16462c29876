"""`aiki worker`: executes a module's workflows for a server elsewhere.

With `--reload` the worker lives in a child process that is started anew whenever the code changes,
as in `aiki dev`; its runs go on in the next one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import evolve

from aiki_sdk import AnyWorkflow, Client
from aiki_trio._worker import Worker

from ._command import Command
from ._connect import check_asserts, needed_module
from ._dev import Reloading
from ._exit import ExitCode
from ._logs import log_to_stderr
from ._modules import find_module, load_workflows
from ._settings import RELOAD_GRACE_S, STOP_GRACE_S, CliSettings

LOCAL_URL: Final = "http://127.0.0.1:9850"


async def work(command: Command) -> ExitCode:
    """Work until told to stop; then drain.

    Raises:
        InvalidRequest: there is no module, or Python runs with -O.
        Unauthorized: the server does not let the worker in.
    """
    check_asserts()
    settings = evolve(command.settings, url=command.settings.url or LOCAL_URL)
    if command.arguments.reload:
        grace_s = settings.grace_s(RELOAD_GRACE_S)
        settings = evolve(settings, shutdown_grace_s=grace_s)
        module = find_module(needed_module(settings), Path.cwd())
        program = "aiki_trio.cli._worker_child"
        return await Reloading(settings, command.output, module, program).run()
    log_to_stderr(settings.log_level or "info")
    workflows = load_workflows(needed_module(settings), Path.cwd())
    await run_worker(settings, workflows)
    return ExitCode.OK


async def run_worker(settings: CliSettings, workflows: tuple[AnyWorkflow, ...]) -> None:
    """Run a worker until a signal stops it, or a cancellation."""
    url = settings.url or LOCAL_URL
    async with Client(url, api_key=settings.api_key, namespace=settings.namespace) as client:
        worker = Worker(
            client,
            workflows=workflows,
            pools=settings.pool_names,
            max_runs=settings.runs_max,
            grace_period=settings.grace_s(STOP_GRACE_S),
            redis_url=settings.redis_url,
        )
        await worker.run()
