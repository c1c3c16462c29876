"""A run's published values as an async iterator: the present one, then every next one."""

from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, final

from aiki_sdk.client._updates import Updates
from aiki_sdk.payload import CONVERTER
from aiki_sdk.protocol import ClientPort, Update

T = TypeVar("T")

_PUBLISHED: Final = "value-published"


@final
class ValueWatch(Generic[T]):
    """What a run publishes under one key, until the run ends.

    ::

        async for progress in handle.watch("progress", int):
            print(progress)

    The first one is the value of now, if there is one; a value published while nobody reads is
    given when somebody does. It goes on with the run that goes on in place of one that continued as
    new. Use ``async with handle.watch(...) as values:`` where the loop may be left early.
    """

    __slots__ = ("_ended", "_key", "_port", "_run_id", "_type", "_updates")

    def __init__(self, port: ClientPort, run_id: str, key: str, type_: Any) -> None:
        """Use `RunHandle.watch`."""
        self._port = port
        self._run_id = run_id
        self._key = key
        self._type = type_
        self._updates: Updates | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for the next value.

        Raises:
            StopAsyncIteration: the run has ended and every value was read.
            PayloadError: the value is not of the type that was asked for.
            Unavailable: the connection was lost; calling again goes on after the last value.
        """
        while not self._ended:
            if self._updates is None:
                info = await self._port.get(self._run_id)
                self._updates = Updates(self._port, self._run_id, info.seq)
                if self._key in info.values:
                    return self._decoded(info.values[self._key])
            async for update in self._updates:
                if self._wanted(update):
                    return self._decoded(update.body["value"] if update.body else None)
            await self._follow()
        raise StopAsyncIteration

    def _wanted(self, update: Update) -> bool:
        body = update.body
        return update.kind == _PUBLISHED and body is not None and body.get("key") == self._key

    def _decoded(self, json: Any) -> T:
        value: T = CONVERTER.from_json(json, self._type, path=f"value {self._key!r}")
        return value

    async def _follow(self) -> None:
        """Go on with the run that goes on in this one's place, or end."""
        info = await self._port.get(self._run_id)
        if info.continued_as is None:
            self._ended = True
        else:
            self._run_id, self._updates = info.continued_as, None

    async def aclose(self) -> None:
        """Watch no more. Closing again does nothing."""
        self._ended = True
        if self._updates is not None:
            await self._updates.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
