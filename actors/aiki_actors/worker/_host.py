"""What a worker keeps open for its tasks: an actor that lives until its worker ends.

An event loop or a pool of processes is opened when the first task asks for it and closed with the
executors, after their tasks have ended. It gets its own place in the tree, and its failure is its
own: the next task that asks opens another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Never

from attrs import define

from aiki_actors.kernel import Actor, ActorContext, ChildSpec, Restart, Supervisor

StartHost = Callable[[str, Callable[[], Awaitable[None]]], None]
"""Has a function run until the worker ends; takes the name of its place and the function."""


@define(eq=False)
class Host(Actor[Never]):
    """Runs one function until it is stopped."""

    kind: ClassVar[str] = "host"
    serve: Callable[[], Awaitable[None]]

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin."""
        context.start_soon(self.serve)


def host_starter(supervisor: Supervisor) -> StartHost:
    """Return what starts hosts under this supervisor."""

    def start(name: str, serve: Callable[[], Awaitable[None]]) -> None:
        supervisor.start_child(
            ChildSpec(name, lambda: Host(serve), Restart.TEMPORARY, shutdown_s=10.0)
        )

    return start


def no_host(name: str, _serve: Callable[[], Awaitable[None]]) -> None:
    """Stand in where no worker is, as in a replay: there nothing is executed."""
    message = f"nothing can be opened here for tasks that need {name!r}"
    raise RuntimeError(message)
