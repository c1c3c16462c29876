"""`aiki dev`: runs a module's workflows and starts anew whenever its code changes.

    aiki dev ── watches the files, stops and starts ──► child process: runtime, control socket

The runtime lives in a child process, because Python cannot forget imported code. On a change the
child is told to stop (SIGTERM): it takes nothing new, lets running tasks end within the grace
period, gives its runs back and leaves. The next child takes them up where they were; that is what
durable means. Code that cannot be imported is shown, and the next change is waited for.

Invariant: at most one child lives, and none outlives this process: it ends when its standard input
does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from ._command import Command
from ._connect import check_asserts, needed_module
from ._exit import ExitCode
from ._modules import Module, find_module
from ._output import Output
from ._settings import RELOAD_GRACE_S, CliSettings, variable_of
from ._watch_files import Snapshot, changed_between, scan_in_thread, wait_changed

KILL_AFTER_S: Final = 10.0
"""Added to the tasks' grace period before a child that does not leave is killed."""


async def dev(command: Command) -> ExitCode:
    """Run until told to stop.

    Raises:
        InvalidRequest: there is no module, or Python runs with -O.
    """
    check_asserts()
    settings = command.settings
    module = find_module(needed_module(settings), Path.cwd())
    reload = not command.arguments.no_reload
    program = "aiki_trio.cli._dev_child"
    return await Reloading(settings, command.output, module, program, reload=reload).run()


@define(eq=False)
class Reloading:
    """Watches the files and keeps a child running.

    Attributes:
        program: the module that the child runs; it gets the settings as its argument.

    """

    settings: CliSettings
    output: Output
    module: Module
    program: str
    reload: bool = True
    child: trio.Process | None = field(default=None, init=False)

    async def run(self) -> ExitCode:
        """Keep a child running until a signal comes or the child ends by itself."""
        code = ExitCode.OK
        async with trio.open_nursery() as nursery:
            work = trio.CancelScope()
            await nursery.start(self._stop_on_signal, work)
            with work:
                code = await self._keep()
            nursery.cancel_scope.cancel()
        return code

    async def _stop_on_signal(
        self,
        work: trio.CancelScope,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Stop gracefully at the first signal, and at once at the second."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if work.cancel_called and self.child is not None:
                    self.child.kill()
                work.cancel()

    async def _keep(self) -> ExitCode:
        root = self.module.source_root
        # Taken before the child reads the code, so that no change falls in between.
        seen = await scan_in_thread(root)
        while True:
            result = await self._run_child(root, seen)
            if isinstance(result, int):
                if result != ExitCode.USAGE or not self.reload:
                    return ExitCode(result) if result in set(ExitCode) else ExitCode.REFUSED
                self.output.note("waiting for a change of the code")
                result = await wait_changed(root, seen)
            changes = [Path(path).name for path in changed_between(seen, result)]
            self.output.note(f"reloading: {', '.join(changes[:5])} changed")
            seen = result

    async def _run_child(self, root: Path, seen: Snapshot) -> int | Snapshot:
        """Run one child; return its exit code, or the files' new state if they changed first."""
        child = self.child = await self._start()
        found: list[Snapshot] = []
        try:
            async with trio.open_nursery() as nursery:
                if self.reload:
                    nursery.start_soon(_until_changed, root, seen, found, nursery.cancel_scope)
                await child.wait()
                nursery.cancel_scope.cancel()
        finally:
            await self._stop(child)
            self.child = None
        return found[0] if found else child.returncode or 0

    async def _start(self) -> trio.Process:
        # -B: a cached module is told apart by seconds and size alone, too little for quick edits.
        command = [sys.executable, "-B", "-m", self.program]
        arguments = json.dumps({**self.settings.to_json(), "colour": self.output.colour})
        environment = dict(os.environ)
        if self.settings.api_key is not None:
            environment[variable_of("api_key")] = self.settings.api_key
        # A session of its own, so that Ctrl-C reaches this process alone, which then stops it.
        return await trio.lowlevel.open_process(
            [*command, arguments], stdin=subprocess.PIPE, start_new_session=True, env=environment
        )

    async def _stop(self, child: trio.Process) -> None:
        """Let a child drain, whatever happens here; kill it if it does not come to an end."""
        with trio.CancelScope(shield=True):
            if child.returncode is None:
                child.terminate()
                with trio.move_on_after(self.settings.grace_s(RELOAD_GRACE_S) + KILL_AFTER_S):
                    await child.wait()
            if child.returncode is None:
                self.output.note("the child process did not stop in time and is killed")
                child.kill()
                await child.wait()
            if child.stdin is not None:
                await child.stdin.aclose()


async def _until_changed(
    root: Path, seen: Snapshot, found: list[Snapshot], scope: trio.CancelScope
) -> None:
    found.append(await wait_changed(root, seen))
    scope.cancel()
