"""What happens to all runs of a namespace, as a stream for a client in this process."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from attrs import define, field

from aiki_sdk.protocol import Outcome, Update, UpdateQuery

from ._hub import Hub
from ._subscription import SubscriberTooSlow, Subscription, UpdateFilter


@define(eq=False)
class RunsWatch:
    """A context manager and the endless iterator that it gives."""

    _hub: Hub[Outcome]
    _namespace: str
    _query: UpdateQuery
    _subscription: Subscription = field(init=False)

    async def __aenter__(self) -> Self:
        """Subscribe: from here on nothing is missed."""
        self._subscription = self._subscribe()
        return self

    def _subscribe(self) -> Subscription:
        only = self._query.workflows
        where = UpdateFilter(
            namespace=self._namespace,
            workflow=only[0] if len(only) == 1 else None,
            status=self._query.statuses or None,
        )
        return self._hub.subscribe(where=where)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no more."""
        self._subscription.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next update.

        Raises:
            SubscriberTooSlow: the reader fell too far behind; reading again begins anew.
            Unavailable: the server is stopping.
        """
        while True:
            try:
                update = await self._subscription.next()
            except SubscriberTooSlow:
                self._subscription.close()
                self._subscription = self._subscribe()
                raise
            if self._query.selects(update.run_id, update.workflow, update.status):
                return update
