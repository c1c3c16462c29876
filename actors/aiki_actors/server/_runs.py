"""The directory of run actors: finds the one of a run, or starts it.

Invariant: at most one actor per run lives in this process at a time; a message for a run whose
actor has just passivated starts the next one, which begins when the old one has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.kernel import (
    ActorRef,
    ActorStopped,
    ChildSpec,
    KernelError,
    MailboxFull,
    MailboxPolicy,
    Overflow,
    Reply,
    Restart,
    Supervisor,
)
from aiki_sdk import JsonValue, Unavailable
from aiki_sdk.protocol import RunInfo

from ._run_actor import Idle, RunActor
from ._services import Do, Ending, Entries, RunMessage, Services, Show, Submit, View, ViewEnd

LOGGER: Final = logging.getLogger("aiki.server")

MAILBOX_MAX: Final = 256
"""Messages that may wait for one run; a sender waits for room, the machinery comes again."""

R = TypeVar("R")


@define(eq=False)
class Runs:
    """Finds and starts run actors. `services` and `supervisor` are set when the tree stands."""

    mailbox_max: int = MAILBOX_MAX
    services: Services = field(init=False)
    supervisor: Supervisor = field(init=False)
    _refs: dict[str, ActorRef[RunMessage]] = field(
        factory=lambda: dict[str, ActorRef[RunMessage]](), init=False
    )

    _idle: Idle = field(factory=lambda: dict[str, Callable[[], bool]](), init=False)

    @property
    def active(self) -> int:
        """How many run actors there are."""
        return len(self._refs)

    def is_active(self, run_id: str) -> bool:
        """Whether the run has an actor now that does not merely stay for what may come."""
        ref = self._refs.get(run_id)
        return ref is not None and ref.alive and run_id not in self._idle

    def activate(self, run_id: str, *, fresh: bool = False) -> ActorRef[RunMessage]:
        """Return the run's actor; `fresh`: the run is being created, there is nothing to load."""
        ref = self._refs.get(run_id)
        if ref is not None and ref.alive:
            return ref
        ref = self.supervisor.start_child(self._spec(run_id, fresh))
        self._refs[run_id] = ref
        return ref

    def _spec(self, run_id: str, fresh: bool) -> ChildSpec[RunMessage]:
        return ChildSpec(
            id=run_id,
            start=lambda: RunActor(run_id, self.services, self._forget, fresh, self._idle),
            restart=Restart.TEMPORARY,
            mailbox=MailboxPolicy(self.mailbox_max, Overflow.BLOCK),
        )

    def _forget(self, ref: ActorRef[RunMessage]) -> None:
        if self._refs.get(ref.name) is ref:
            del self._refs[ref.name]

    def tell(self, run_id: str, message: RunMessage) -> bool:
        """Tell a run something that is said again later if it is lost; False if it has no room."""
        try:
            self.activate(run_id).tell(message)
        except (MailboxFull, ActorStopped) as error:
            LOGGER.warning("run %s was not told %s: %s", run_id, type(message).__name__, error)
            if isinstance(message, Do) and isinstance(message.command, e.LoseClaim):
                lost = message.command
                self.services.dispatcher.broken[run_id, lost.epoch] = lost.reason
            return False
        return True

    async def do(
        self,
        run_id: str,
        command: e.Command,
        *,
        fresh: bool = False,
        supersedes: str | None = None,
        namespace: str | None = None,
        pulled: bool = False,
    ) -> Entries:
        """Have a command carried out; returns the durable entries it made.

        Raises:
            AikiError: it was refused, or could not be made durable.

        """
        ref = self.activate(run_id, fresh=fresh)
        return await _ask(
            ref,
            lambda reply: Do(
                command, reply, supersedes=supersedes, namespace=namespace, pulled=pulled
            ),
        )

    async def submit(self, run_id: str, commands: tuple[e.WorkerCommand, ...]) -> Entries:
        """Have a worker's commands carried out, as one change."""
        ref = self.activate(run_id)
        try:
            return await ref.ask_shielded(lambda reply: Submit(commands, reply))
        except KernelError as error:
            raise _translated(ref, error) from error

    async def view(self, run_id: str) -> RunInfo | None:
        """Describe a run; None if it does not exist."""
        return await _ask(self.activate(run_id), View)

    async def ending(self, run_id: str) -> Ending | None:
        """Say how a run ended, if it has; None if it does not exist."""
        return await _ask(self.activate(run_id), ViewEnd)

    def deliver(self, notice: e.Notice) -> None:
        """Tell a run what another one owes it; the keeper repeats what was not settled."""
        fault_point("notice.owed")
        self.tell(notice.target_id, Do(notice.command, notice=notice))
        fault_point("notice.told")

    def show(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Show something of an active run to whoever watches it, if there is room to say so."""
        if not self.services.hub.streamed(run_id):
            return
        ref = self._refs.get(run_id)
        if ref is None:
            return
        with suppress(MailboxFull, ActorStopped):
            ref.tell(Show(kind, body))

    def claim(self, run_id: str, worker_id: str, claim_id: str, warm: bool) -> None:
        """Claim a run for a worker whose slot was taken for it."""
        command = e.ClaimRun(worker_id, claim_id)
        if not self.tell(run_id, Do(command, warm=warm)):
            self.services.dispatcher.withdraw(worker_id)


async def _ask(ref: ActorRef[RunMessage], build: Callable[[Reply[R]], RunMessage]) -> R:
    """Ask without a deadline: every run actor answers, or fails its replies when it ends."""
    try:
        return await ref.ask(build, deadline_s=None)
    except KernelError as error:
        raise _translated(ref, error) from error


def _translated(ref: ActorRef[RunMessage], error: KernelError) -> Unavailable:
    """Turn the kernel's error about a run's actor into the one that callers know."""
    return Unavailable(f"run {ref.name} could not answer: {error}; try again")
