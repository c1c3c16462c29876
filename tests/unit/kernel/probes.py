"""Actors and specs that the kernel's tests drive by messages: they do as told and write a log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Never

import trio
from attrs import define, field, frozen
from typing_extensions import override

from aiki_actors.kernel import (
    Actor,
    ActorContext,
    ActorRef,
    ActorSystem,
    Backoff,
    ChildFailure,
    ChildSpec,
    MailboxPolicy,
    Reply,
    Restart,
    StopReason,
    Strategy,
    SupervisorSpec,
    Terminated,
    open_system,
)

QUICK = Backoff(initial_s=1, factor=2, max_s=8, jitter=0)


@frozen(eq=False)
class Get:
    """Answer with all messages seen by this incarnation."""

    reply: Reply[list[object]]


@frozen(eq=False)
class Do:
    """Run an action inside the handler; answers when it returned."""

    action: Callable[[Probe], Awaitable[object]]
    reply: Reply[None] = field(factory=lambda: Reply[None]())


@frozen(eq=False)
class Quiet:
    """Never answered by the handler."""

    reply: Reply[None] = field(factory=lambda: Reply[None]())


@define(eq=False)
class Hooks:
    """What a probe does in its other hooks; nothing by default."""

    started: Callable[[Probe], Awaitable[object]] | None = None
    ending: Callable[[Probe], object] | None = None
    stopping: Callable[[Probe], Awaitable[object]] | None = None


class Probe(Actor[object]):
    """Do as the messages say."""

    kind = "probe"

    def __init__(self, log: list[str], name: str, hooks: Hooks) -> None:
        self.log = log
        self.name = name
        self.hooks = hooks
        self.seen: list[object] = []
        self.context: ActorContext[object]

    @override
    async def started(self, context: ActorContext[object]) -> None:
        self.context = context
        self.log.append(f"{self.name} started")
        if self.hooks.started is not None:
            await self.hooks.started(self)

    @override
    async def handle(self, message: object) -> None:
        match message:
            case Get(reply=reply):
                reply.send(list(self.seen))
            case Do(action=action, reply=done):
                await action(self)
                done.send(None)
            case BaseException():
                raise message
            case _:
                self.seen.append(message)

    @override
    def ending(self) -> None:
        if self.hooks.ending is not None:
            self.hooks.ending(self)

    @override
    async def stopping(self, reason: StopReason) -> None:
        self.log.append(f"{self.name} {reason.value}")
        if self.hooks.stopping is not None:
            await self.hooks.stopping(self)
            self.log.append(f"{self.name} cleaned up")

    @override
    async def watched(self, notice: Terminated) -> None:
        self.log.append(f"{self.name} saw {notice.ref.name} {notice.reason.value}")

    @override
    def describe(self) -> str:
        return f"{len(self.seen)} seen"


def probe(
    log: list[str],
    name: str = "a",
    *,
    restart: Restart = Restart.PERMANENT,
    shutdown_s: float = 5,
    mailbox: MailboxPolicy | None = None,
    hooks: Hooks | None = None,
) -> ChildSpec[object]:
    """Spec of a probe."""
    own_hooks = hooks or Hooks()
    return ChildSpec(
        name,
        lambda: Probe(log, name, own_hooks),
        restart,
        shutdown_s,
        mailbox or MailboxPolicy(),
    )


def system(
    *children: ChildSpec[Never] | SupervisorSpec,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    intensity: int = 3,
    period_s: float = 10,
    failures: list[ChildFailure] | None = None,
) -> AbstractAsyncContextManager[ActorSystem]:
    """Open a system with these children under its root."""
    root = SupervisorSpec(
        children=children,
        strategy=strategy,
        intensity=intensity,
        period_s=period_s,
        backoff=QUICK,
    )
    callback = None if failures is None else failures.append
    return open_system("app", root, rng=Random(7), on_child_failure=callback)


def child(app: ActorSystem, name: str = "a") -> ActorRef[object]:
    """Return a living child of the root, which must be there."""
    ref = app.root.child(name)
    assert ref is not None
    return ref  # type: ignore[return-value]


async def seen(ref: ActorRef[object]) -> list[object]:
    """Return what this incarnation has handled so far."""
    return await ref.ask(Get, deadline_s=60)


async def forever(_: Probe) -> None:
    """Wait until cancelled."""
    await trio.sleep_forever()
