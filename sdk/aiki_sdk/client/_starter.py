"""Starts with options fixed beforehand, so that every argument after them is the workflow's."""

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast, final

from aiki_sdk._workflow import Workflow
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._options import StartOptions, StartSpec

P = ParamSpec("P")
R = TypeVar("R")

Start: TypeAlias = Callable[[StartSpec[Any]], Awaitable[RunHandle[Any]]]


@final
class Starter:
    """What `Client.options` returns: it starts workflows with those options."""

    __slots__ = ("_options", "_start")

    def __init__(self, start: Start, options: StartOptions) -> None:
        """Use `Client.options`."""
        self._start = start
        self._options = options

    async def start(
        self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[R]:
        """Start a run; every argument is the workflow's.

        Raises:
            AikiError: as `Client.start`.
            TypeError: if the arguments do not fit the workflow's signature.
        """
        handle = await self._start(self.spec(workflow, *args, **kwargs))
        return cast("RunHandle[R]", handle)

    def spec(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StartSpec[R]:
        """Return the same as an item for `Client.start_many`; nothing is started yet."""
        return StartSpec(workflow, args, kwargs, self._options)
