"""The shape of a workflow's code: the executor's side of the SDK's `FlowPort`.

Timeouts, fan-out and compensations themselves are in `_timeouts.py`, `_fan_out.py`, `_saga.py`;
here they are tied to the branch that asks for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiki_actors import engine as e
from aiki_sdk import AnyTask

from ._branches import Branch
from ._execution import Execution
from ._fan_out import FanOut, in_order_of_completion, map_all
from ._saga import Saga
from ._timeouts import DurableTimeout


class FlowOperations(ABC):
    """The part of one run's durable operations that gives its code a shape."""

    _execution: Execution
    _saga: Saga

    @abstractmethod
    def _branch(self, what: str) -> Branch: ...

    def timeout(self, name: str, micros: int, *, fails: bool) -> DurableTimeout:
        """Make a durable timeout; it is named when it is entered."""
        what = "run.fail_after" if fails else "run.move_on_after"
        return DurableTimeout(
            name, e.Micros(micros), fails, self._execution, lambda: self._branch(what)
        )

    async def map(
        self, function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], limit: int | None
    ) -> list[Any]:
        """Call a function for each item, at most `limit` at once."""
        branch = self._branch("run.map")
        return await map_all(FanOut.of(branch, self._execution, function, items, limit))

    def as_completed(
        self, function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], limit: int | None
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Any, Any]]]:
        """Call a function for each item and give the results as they come."""
        branch = self._branch("run.as_completed")
        return in_order_of_completion(FanOut.of(branch, self._execution, function, items, limit))

    def compensate(self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Register a task call that undoes something."""
        self._saga.compensate(self._branch("run.compensate"), task, args, kwargs)

    def on_cancel(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Register a task or function for a cancellation."""
        self._saga.on_cancel(self._branch("run.on_cancel"), function, args, kwargs)
