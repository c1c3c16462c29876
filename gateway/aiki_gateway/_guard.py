"""Who may call: API keys, browsers' origins, and the host names that a request may be made to.

Invariant: what is secret is compared in constant time and shown in no message.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from attrs import define, field

from aiki_sdk import InvalidRequest, Unauthorized

from ._problems import HttpError
from ._routes import Access
from ._settings import GatewaySettings, key_hash

_LOCAL_NAMES: Final = ("localhost",)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to an address."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_open(host: str, settings: GatewaySettings) -> None:
    """Refuse to serve others than this machine without keys, unless that is wanted.

    Raises:
        InvalidRequest: saying what to set.
    """
    if is_loopback(host) or settings.api_key_hashes or settings.allow_open:
        return
    message = (
        f"host={host!r} is not valid without API keys: anybody who can reach it could start and "
        "read runs; set api_key_hashes, listen on 127.0.0.1, or set allow_open=True"
    )
    raise InvalidRequest(message)


@define(eq=False)
class Guard:
    """Checks requests, websockets included, before anything of them is carried out."""

    _settings: GatewaySettings
    _local_only: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Without keys, only this machine is served."""
        self._local_only = not (self._settings.api_key_hashes or self._settings.allow_open)

    def check(self, headers: Mapping[str, str], access: Access) -> None:
        """Let a request through, or not.

        Raises:
            Unauthorized: the key is missing or wrong.
            HttpError: 403, it comes from a page of somebody else, or under a foreign host name.
        """
        if self._local_only:
            self._check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if origin is not None:
            self._check_origin(origin, headers.get("host", ""))
        if access is Access.KEY and self._settings.api_key_hashes:
            self._check_key(headers.get("authorization", ""))

    def allowed_origin(self, headers: Mapping[str, str]) -> str | None:
        """Return the origin of a request if pages from there are let read the answer."""
        origin = headers.get("origin")
        return origin if origin in self._settings.allowed_origins else None

    def _check_host(self, host: str) -> None:
        """Without keys, a name that resolves to this machine must not be anybody's own.

        Else a page could have its own name resolve here and read everything (DNS rebinding).
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if not is_loopback(name):
            message = (
                f"host {host[:100]!r} is not served without API keys; use localhost or 127.0.0.1"
            )
            raise HttpError(403, InvalidRequest(message))

    def _check_origin(self, origin: str, host: str) -> None:
        try:
            same = urlsplit(origin).netloc == host
        except ValueError:
            same = False
        if not same and origin not in self._settings.allowed_origins:
            message = f"origin {origin[:100]!r} is not allowed; add it to allowed_origins"
            raise HttpError(403, InvalidRequest(message))

    def _check_key(self, authorization: str) -> None:
        scheme, _, key = authorization.partition(" ")
        digest = key_hash(key.strip())
        # Every hash is compared, so that the time tells nothing about which one is nearest.
        matches = [hmac.compare_digest(digest, known) for known in self._settings.api_key_hashes]
        if scheme.lower() != "bearer" or not any(matches):
            message = "the API key is missing or wrong; send Authorization: Bearer <key>"
            raise Unauthorized(message)
