"""How what a user says about a fork becomes a `ForkRequest`; every mistake is found here."""

from collections.abc import Mapping
from typing import Any

from aiki_sdk._canonical import input_hash
from aiki_sdk._errors import InvalidRequest
from aiki_sdk._json import JsonValue
from aiki_sdk._workflow import AnyWorkflow
from aiki_sdk.payload import encode_payload
from aiki_sdk.protocol import ForkRequest


def is_of(code: AnyWorkflow | None, version: str | None) -> bool:
    """Whether `code` is that of a fork in this version (None: the version of `code`)."""
    return code is not None and version in (None, code.version)


def fork_request(
    code: AnyWorkflow | None,
    at: int,
    given: tuple[Any, ...] | Mapping[str, Any] | None,
    overrides: Mapping[int, object],
    version: str | None,
) -> ForkRequest:
    """Make the request of what `RunHandle.fork` was given.

    Raises:
        InvalidRequest: naming what is wrong.
        PayloadError: naming the argument or result that cannot travel.
        TypeError: the arguments do not fit the workflow's signature.
    """
    body, digest = (None, None) if given is None else _input(code, given, version)
    results = {
        seq: encode_payload(value, what=f"the result in overrides[{seq}]")
        for seq, value in overrides.items()
    }
    return ForkRequest(at=at, input=body, input_hash=digest, overrides=results, version=version)


def _input(
    code: AnyWorkflow | None, given: tuple[Any, ...] | Mapping[str, Any], version: str | None
) -> tuple[Mapping[str, JsonValue], str]:
    if code is not None and is_of(code, version):
        if isinstance(given, tuple):
            return code.encode_input(given)
        return code.encode_input((), given)
    if isinstance(given, tuple):
        message = (
            f"input={given!r} is not valid: this client does not know the parameters of that "
            "version; pass the arguments by name, as a dict"
        )
        raise InvalidRequest(message)
    body = {name: encode_payload(value, what=name) for name, value in given.items()}
    return body, input_hash(body)
