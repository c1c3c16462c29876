"""The root of the error family: what every error has, on this side of the wire and on the other.

An error that came over the wire is rebuilt from message and details, so every structured attribute
is read from `details` and never kept beside it. The family itself is drawn in `_errors`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from aiki_sdk._error_info import ErrorInfo

if TYPE_CHECKING:
    from aiki_sdk._json import JsonValue


class AikiError(Exception):
    """Base of every error that this project raises on purpose.

    Raised when the server failed in a way that it did not foresee; the cause is in its log.

    What to do: Look at the server's log; asking again changes nothing unless its cause has
    gone.

    Attributes:
        code: stable kebab-case name of the kind of error; the same on the wire.
        retryable: whether doing the same again unchanged may succeed.
        message: what happened, to what, and what to do about it.
        details: the facts of `message` as JSON, for programs.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    message: str
    details: "dict[str, JsonValue]"

    def __init__(
        self, message: str = "", *, details: "Mapping[str, JsonValue] | None" = None
    ) -> None:
        """Store the message and the facts behind it."""
        self.message = message or type(self).code
        self.details = dict(details or {})
        super().__init__(self.message)

    @classmethod
    def from_wire(cls, message: str, details: "Mapping[str, JsonValue] | None" = None) -> Self:
        """Rebuild an error of this class from what was sent, whatever its own constructor takes."""
        error = cls.__new__(cls)
        AikiError.__init__(error, message, details=details)
        return error

    def __reduce__(self) -> "tuple[object, tuple[object, ...]]":
        # Copies and test runners' process borders rebuild it as the wire does.
        return _rebuild, (type(self), self.message, self.details)

    def _text(self, key: str) -> str:
        value = self.details.get(key)
        return value if isinstance(value, str) else ""

    def _number(self, key: str) -> int:
        value = self.details.get(key)
        return value if isinstance(value, int) else 0

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self.details.get(key)
        if not isinstance(value, list):
            return ()
        return tuple(item for item in value if isinstance(item, str))

    def _error_info(self) -> ErrorInfo:
        value = self.details.get("error")
        if isinstance(value, dict):
            return ErrorInfo.from_json(value)
        return ErrorInfo(type="Exception", message=self.message)


def _rebuild(cls: type[AikiError], message: str, details: "dict[str, JsonValue]") -> AikiError:
    return cls.from_wire(message, details)
