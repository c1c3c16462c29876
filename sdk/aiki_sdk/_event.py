"""Events: named, typed messages that a workflow waits for."""

from typing import Any, Generic, TypeVar, overload

from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name
from aiki_sdk.payload import CONVERTER, encode_payload

T = TypeVar("T")


class Event(Generic[T]):
    """A named message to a run, with the type of its data.

    ``Event("payment-received", str)`` carries a str, ``Event("ping")`` carries nothing. Equal if
    name and type are. List it in the workflow's `events=[...]`; wait for it with `run.wait(event)`;
    send it with `handle.send(event, data)`.
    """

    __slots__ = ("name", "type_")

    name: str
    type_: Any

    @overload
    def __init__(self: "Event[None]", name: str) -> None: ...

    @overload
    def __init__(self, name: str, type_: type[T]) -> None: ...

    # Unions and other type forms, which no type checker can see through yet.
    @overload
    def __init__(self: "Event[Any]", name: str, type_: object) -> None: ...

    def __init__(self, name: str, type_: Any = None) -> None:
        """Name the event and the type of its data.

        Raises:
            InvalidRequest: if the name is not valid.
        """
        self.name = check_name("event", name)
        self.type_ = type_

    def encode(self, data: T) -> JsonValue:
        """Convert data to JSON by the event's type.

        Raises:
            PayloadError: naming the place in the data that does not fit.
            PayloadTooLarge: if it is larger than 2 MiB.
        """
        return encode_payload(data, self.type_, what=f"event {self.name!r}")

    def decode(self, json: JsonValue) -> T:
        """Convert JSON to data by the event's type.

        Raises:
            PayloadError: naming the place in the JSON that does not fit.
        """
        data: T = CONVERTER.from_json(json, self.type_, path=f"event {self.name!r}")
        return data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self.name == other.name and self.type_ == other.type_

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        if self.type_ is None:
            return f"Event({self.name!r})"
        return f"Event({self.name!r}, {getattr(self.type_, '__name__', self.type_)})"
