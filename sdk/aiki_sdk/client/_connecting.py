"""What a client is given to reach a server by, checked: a port, or a URL and what goes with it."""

from typing import TYPE_CHECKING

from aiki_sdk._errors import InvalidRequest
from aiki_sdk.client._waiting import Monotonic
from aiki_sdk.protocol import ClientPort

if TYPE_CHECKING:
    # httpx takes a tenth of a second to import, which a client in the server's process can spare.
    from aiki_sdk.http import HttpSettings


def port_of(
    given: ClientPort | str,
    *,
    api_key: str | None,
    namespace: str | None,
    http: "HttpSettings | None",
    monotonic: Monotonic,
) -> ClientPort:
    """Return the port that is given, or make one to the URL that is.

    Raises:
        InvalidRequest: naming what is not valid, or what does not go with the other.
    """
    if isinstance(given, str):
        from aiki_sdk.http import HttpPort

        return HttpPort.to(
            given,
            namespace="default" if namespace is None else namespace,
            api_key=api_key,
            settings=http,
            monotonic=monotonic,
        )
    for name, value in (("api_key", api_key), ("http", http)):
        if value is not None:
            message = f"{name}= goes with a URL; a port in this process needs none"
            raise InvalidRequest(message)
    if namespace is not None and namespace != given.namespace:
        message = (
            f"namespace={namespace!r} is not valid: the port is for {given.namespace!r}; "
            f"ask the runtime for the port of {namespace!r}"
        )
        raise InvalidRequest(message)
    return given


def url_of(port: ClientPort) -> str | None:
    """Return where a port leads to; None: nowhere but into this process."""
    url = getattr(port, "url", None)
    return url if isinstance(url, str) else None


def key_of(port: ClientPort) -> str | None:
    """Return the key that a port shows its server, if it has one."""
    key = getattr(port, "api_key", None)
    return key if isinstance(key, str) else None
