"""The process in which `aiki worker --reload` works: one worker, until it is told to stop."""

from __future__ import annotations

import sys

import trio

from aiki_sdk import AnyWorkflow

from ._dev_child import handed_over, run_child
from ._output import Output
from ._settings import CliSettings
from ._signals import stop_with_parent
from ._work import run_worker


def main(arguments: list[str]) -> int:
    """Work until told to stop; the settings come as one JSON argument."""
    settings, output = handed_over(arguments[0])
    return run_child(_work, settings, output)


async def _work(settings: CliSettings, workflows: tuple[AnyWorkflow, ...], output: Output) -> None:
    gone = trio.Event()
    keys = ", ".join(workflow.key for workflow in workflows)
    output.note(f"ready: {keys}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_with_parent, gone)
        nursery.start_soon(_cancel_when_set, gone, nursery.cancel_scope)
        await run_worker(settings, workflows)
        nursery.cancel_scope.cancel()


async def _cancel_when_set(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
