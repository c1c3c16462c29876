"""Where a server is, and the key that opens it: checked where they are given.

Invariant: the key is in no URL, no message and no `repr`.
"""

import re
from typing import Final, cast
from urllib.parse import quote

import httpx

from aiki_sdk._errors import InvalidRequest

PORT_MAX: Final = 65_535

_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


def check_url(url: object) -> str:
    """Return the URL of a server, without a slash at its end.

    Raises:
        InvalidRequest: it is not one; the message tells no user name or password in it.
    """
    if not isinstance(url, str):
        message = f"url={url!r} is not valid: pass a str such as 'http://localhost:9850'"
        raise InvalidRequest(message)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        message = f"the server's URL is not valid: {error}; pass one like 'http://localhost:9850'"
        raise InvalidRequest(message) from None
    if parsed.userinfo:
        message = "the server's URL has a user name or password in it; pass api_key= instead"
        raise InvalidRequest(message)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        message = (
            f"url={url!r} is not valid: pass http:// or https:// and a host, "
            "such as 'http://localhost:9850'"
        )
        raise InvalidRequest(message)
    if parsed.port is not None and not 0 < parsed.port <= PORT_MAX:
        message = f"url={url!r} is not valid: the port is a number from 1 to {PORT_MAX}"
        raise InvalidRequest(message)
    if parsed.query or parsed.fragment:
        message = f"url={url!r} is not valid: leave out what follows '?' or '#'"
        raise InvalidRequest(message)
    return str(parsed).rstrip("/")


def check_key(api_key: object) -> str | None:
    """Return an API key that a header can carry; None for None.

    Raises:
        InvalidRequest: it is not one; the message does not tell it.
    """
    if api_key is None:
        return None
    if isinstance(api_key, str) and _PRINTABLE.fullmatch(api_key):
        return api_key
    message = (
        f"api_key (a {type(api_key).__name__}) is not valid: pass a str of printable ASCII "
        "characters without blanks, as `aiki keys create` printed it"
    )
    raise InvalidRequest(message)


def path_of(*segments: object) -> str:
    """Return the path of a route; what a caller gave is quoted, so that it stays one segment."""
    return "/v1/" + "/".join(quote(cast("str", segment), safe="") for segment in segments)
