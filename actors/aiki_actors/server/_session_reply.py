"""Answers of run actors that go back over a worker's session, with no task that waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from aiki_actors import engine as e
from aiki_actors.kernel import Reply

from ._services import Entries

if TYPE_CHECKING:
    from ._worker_session import WorkerSession


@define(eq=False, kw_only=True)
class SessionReply(Reply[Entries]):
    """An answer that goes back over the session, without a task that waits for it."""

    session: WorkerSession
    number: int
    run_id: str
    claim: e.ClaimRef | None = None

    def send(self, value: Entries) -> None:
        """Answer with the entries that were made."""
        if self._is_first():
            self.session.answer(self, value)

    def fail(self, error: BaseException) -> None:
        """Answer with the error."""
        if self._is_first():
            self.session.refuse(self, error)

    def lose(self, error: BaseException) -> None:
        """Answer that the run's actor has ended, unless it had answered."""
        if self._is_first():
            self.session.refuse(self, error)

    def _is_first(self) -> bool:
        first, self._settled = not self._settled, True
        return first


@define(eq=False, kw_only=True)
class ClaimReply(SessionReply):
    """An answer to a worker that asked for a run: the assignment tells it all else."""

    def send(self, value: Entries) -> None:
        """Answer that the run is on its way."""
        del value
        super().send(())
