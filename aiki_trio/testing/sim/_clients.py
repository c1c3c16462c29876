"""The clients of a simulation: what they ask for, what they are promised, and a log of both.

A request that got no answer (the server was killed, its storage failed) is made again if that is
safe, as an application's client would; else `Unavailable` is raised. Whatever is acknowledged must
be durable in that very step.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_sdk import AikiError, Unavailable, UnknownOutcome
from aiki_sdk.protocol import (
    ClientPort,
    ControlRequest,
    EventReceipt,
    SendRequest,
    StartRequest,
    StartResult,
)
from aiki_trio.testing._port import OutlastingPort

from ._chance import latency
from ._cluster import Cluster
from ._disk import Disk, short

T = TypeVar("T")

AGAIN_S = 0.5
"""Mean pause before a request is made again."""


@frozen
class Started:
    """An acknowledged start."""

    request: StartRequest
    run_id: str
    created: bool
    at: float


@frozen
class Sent:
    """An acknowledged event or question."""

    run_id: str
    request: SendRequest
    receipt: EventReceipt
    at: float


@frozen
class Controlled:
    """An acknowledged command."""

    run_id: str
    request: ControlRequest
    at: float


@define(eq=False)
class ClientLog:
    """What was acknowledged, in order."""

    started: list[Started] = field(factory=lambda: list[Started](), init=False)
    sent: list[Sent] = field(factory=lambda: list[Sent](), init=False)
    controlled: list[Controlled] = field(factory=lambda: list[Controlled](), init=False)


@define(eq=False)
class SimPort(OutlastingPort):
    """A `ClientPort` to whichever life of the server is there; keeps the log."""

    cluster: Cluster
    log: ClientLog
    rng: random.Random

    async def _ask(self, act: Callable[[ClientPort], Awaitable[T]], *, again: bool = True) -> T:
        cluster, rng = self.cluster, self.rng
        while True:
            life = await cluster.present()
            with life.caller():
                await trio.sleep(latency(rng, cluster.options.latency_s))
                try:
                    answer = await act(life.runtime.port_for(self.namespace))
                except AikiError as error:
                    unknown = isinstance(error, UnknownOutcome)
                    if not again or not (error.retryable or unknown):
                        raise
                else:
                    await trio.sleep(latency(rng, cluster.options.latency_s))
                    return answer
            if not again:
                message = (
                    "the server was killed before it answered, and the request may have taken "
                    "effect; give it a reference_id, so that it can be repeated safely"
                )
                raise Unavailable(message)
            await trio.sleep(AGAIN_S * 2 * rng.random())

    @property
    def disk(self) -> Disk:
        """The truth."""
        return self.cluster.disk

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run; see `ClientPort.start`."""

        async def act(port: ClientPort) -> StartResult:
            result = await port.start(request)
            if result.run_id not in self.disk.journals:
                self.disk.report("P10", f"the start of run {result.run_id} was acknowledged early")
            return result

        result = await self._ask(act, again=request.reference_id is not None)
        self.log.started.append(
            Started(request, result.run_id, result.created, trio.current_time())
        )
        self._note(f"{short(result.run_id)} started, created={result.created}")
        return result

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Acknowledge an event for a run; see `ClientPort.send`."""

        async def act(port: ClientPort) -> EventReceipt:
            receipt = await port.send(run_id, request)
            self._check_receipt(run_id, request, receipt)
            return receipt

        receipt = await self._ask(act, again=request.reference_id is not None)
        self.log.sent.append(Sent(run_id, request, receipt, trio.current_time()))
        self._note(f"{short(run_id)} sent {request.event}, seq {receipt.seq}")
        return receipt

    def _check_receipt(self, run_id: str, request: SendRequest, receipt: EventReceipt) -> None:
        journal = self.disk.journals.get(run_id, [])
        if receipt.seq is None:
            return
        body = journal[receipt.seq - 1].body if receipt.seq <= len(journal) else None
        if not isinstance(body, e.EventAccepted) or body.data != request.data:
            self.disk.report(
                "P10",
                f"run {run_id}: event {request.event!r} was acknowledged as entry {receipt.seq}, "
                "and is not there",
            )

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run; see `ClientPort.control`."""
        await self._ask(lambda port: port.control(run_id, request))
        self.log.controlled.append(Controlled(run_id, request, trio.current_time()))
        self._note(f"{short(run_id)} {request.command}")

    def _note(self, what: str) -> None:
        self.cluster.trace.note("client", what)
