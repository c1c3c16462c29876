"""How a client speaks HTTP: its limits, its patience, and whom it trusts."""

import ssl
from typing import Final

from attrs import field, fields, frozen

from aiki_sdk._durations import seconds
from aiki_sdk._errors import InvalidRequest

WAIT_MAX_S: Final = 60.0
"""The longest that a server holds an answer back; see `HttpSettings.poll_s`."""

TRUSTED: Final = True


@frozen(kw_only=True)
class HttpSettings:
    """Limits and patience of a client over HTTP. All durations are seconds.

    Attributes:
        timeout_s: how long one answer may take, beyond what the server was asked to wait.
        connect_timeout_s: how long opening a connection may take.
        connections_max: requests under way at once of those that are answered at once.
        waiting_max: the same for results and streams that are waited for. They are counted apart,
            so that who waits never keeps a command from going out.
        idle_connections_max: connections that are kept open between requests.
        idle_connection_s: how long they are kept; shorter than the server keeps them, which is 30,
            so that no request is sent into a connection that is being closed.
        attempts_max: how often a request that may be repeated is made at most; 1: never repeated.
        backoff_s: about how long the first pause before a repetition is; each next one is twice as
            long, and each is shortened by chance, by up to half.
        backoff_max_s: the longest such pause. A server that asks for a longer one gets it, up to
            `timeout_s`; if it asks for more, the error is raised at once.
        reconnect_s: how long a wait for a result, or a stream of updates, puts up with a server
            that cannot be reached, such as one that is being restarted.
        poll_s: how long the server may hold back one answer to who waits for a result, at most 60.
            Proxies in between must allow for it.
        stream_idle_s: a stream on which not even a sign of life came for so long is opened again.
            The server gives one every 15 seconds.
        verify: whether the server's certificate is checked; or an `ssl.SSLContext` that trusts
            certificates of your own.
    """

    timeout_s: float = 30.0
    connect_timeout_s: float = 5.0
    connections_max: int = 32
    waiting_max: int = 1_000
    idle_connections_max: int = 32
    idle_connection_s: float = 20.0
    attempts_max: int = 5
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0
    reconnect_s: float = 60.0
    poll_s: float = 30.0
    stream_idle_s: float = 45.0
    verify: bool | ssl.SSLContext = field(default=TRUSTED, repr=False)

    def __attrs_post_init__(self) -> None:
        for attribute in fields(HttpSettings):
            name, value = attribute.name, getattr(self, attribute.name)
            if name.endswith("_s"):
                seconds(name, value, zero=name == "reconnect_s")
            elif name.endswith("_max"):
                _check_count(name, value)
        if self.poll_s > WAIT_MAX_S:
            message = f"poll_s={self.poll_s!r} is not valid: servers wait 60 seconds at most"
            raise InvalidRequest(message)


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        message = f"{name}={value!r} is not valid: pass an int, 1 or more"
        raise InvalidRequest(message)
