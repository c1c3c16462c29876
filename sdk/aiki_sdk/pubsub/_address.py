"""The address of a Redis server, as a subscriber takes it.

`redis://[user[:password]@]host[:port]`, `rediss://` for TLS (`?ssl_ca_certs=FILE`,
`?ssl_cert_reqs=none`), `unix://[user:password@]/path`. A database number is allowed and means
nothing: channels are not in databases.

Invariant: neither the repr nor an error shows the password.
"""

import ssl
from typing import Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import field, frozen

from aiki_sdk._request_errors import InvalidRequest

PORT: Final = 6379
_OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "ssl_cert_reqs"})


@frozen
class Address:
    """Where Redis is and how it lets us in; `path` is that of a Unix socket."""

    host: str
    port: int
    path: str | None
    tls: ssl.SSLContext | None
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Read an address.

        Raises:
            InvalidRequest: it is none; the message names what is wrong, and no secret.

        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or PORT
        except ValueError:
            # The parser's own words may show a part of the password.
            raise InvalidRequest("redis_url has no valid host and port") from None
        unix = parts.scheme == "unix"
        if parts.scheme not in {"redis", "rediss", "unix"} or not (parts.path if unix else host):
            message = "redis_url is not valid: write redis://host:6379, rediss://… or unix:///path"
            raise InvalidRequest(message)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            known = ", ".join(sorted(_OPTIONS))
            message = f"redis_url has the option {unknown[0]!r}; known here are {known}"
            raise InvalidRequest(message)
        return cls(
            host=host,
            port=port,
            path=unquote(parts.path) if unix else None,
            tls=_context(options) if parts.scheme == "rediss" else None,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def _context(options: dict[str, str]) -> ssl.SSLContext:
    wanted = options.get("ssl_cert_reqs", "required")
    if wanted not in {"required", "none"}:
        message = f"redis_url has ssl_cert_reqs={wanted!r}; it is 'required' or 'none'"
        raise InvalidRequest(message)
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    except (OSError, ssl.SSLError) as error:
        message = f"redis_url names ssl_ca_certs that cannot be read: {error}"
        raise InvalidRequest(message) from error
    if wanted == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
