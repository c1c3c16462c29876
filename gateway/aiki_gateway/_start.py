"""Starts the gateway under a supervisor; what the extra `[server]` brings is imported here only."""

from __future__ import annotations

import importlib.util
import socket
from typing import Final, Never

import trio
from attrs import define, field, frozen

from aiki_actors.kernel import ChildSpec, Supervisor
from aiki_sdk import InvalidRequest

from ._engine import Engine
from ._settings import HOST, PORT, GatewaySettings

GATEWAY: Final = "gateway"
STOP_MARGIN_S: Final = 2.0
"""Added to the grace of requests before the supervisor cuts the gateway off."""


@frozen
class Bound:
    """Where a gateway listens.

    Attributes:
        host: the address.
        port: the port; the one that the system chose, where it was left to it.
    """

    host: str
    port: int

    @property
    def url(self) -> str:
        """What clients connect to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@define(eq=False)
class _Listeners:
    """Gives the first incarnation the socket that was made for it, and later ones one like it."""

    bound: Bound
    settings: GatewaySettings
    first: socket.socket | None = field()

    def next(self) -> socket.socket:
        """Return a listening socket."""
        listener, self.first = self.first, None
        if listener is not None:
            return listener
        from ._server import listen

        return listen(self.bound.host, self.bound.port, self.settings)

    def close(self) -> None:
        """Close the first socket, if nobody has taken it."""
        listener, self.first = self.first, None
        if listener is not None:
            listener.close()


async def start_gateway(
    supervisor: Supervisor,
    engine: Engine,
    *,
    host: str = HOST,
    port: int = PORT,
    settings: GatewaySettings | None = None,
) -> Bound:
    """Serve an engine over HTTP until the supervisor, or the child `gateway` of it, stops.

    Returns when clients can connect.

    Raises:
        InvalidRequest: the extra `[server]` is not installed, or others than this machine could
            connect although there are no keys.
        OSError: the address cannot be had.
        NameTaken: the supervisor has a gateway already.
    """
    settings = settings or GatewaySettings()
    for module in ("hypercorn", "quart_trio"):
        if importlib.util.find_spec(module) is None:
            message = f"serving needs {module}; install aiki-trio[server]"
            raise InvalidRequest(message)
    from ._server import GatewayActor, address_of, listen, make_gate

    listener = listen(host, port, settings)
    bound = Bound(*address_of(listener))
    listeners = _Listeners(bound, settings, listener)
    gate = make_gate(engine, settings)
    serving = trio.Event()
    spec: ChildSpec[Never] = ChildSpec(
        GATEWAY,
        lambda: GatewayActor(listeners.next, gate, serving),
        shutdown_s=settings.stop_grace_s + STOP_MARGIN_S,
    )
    try:
        supervisor.start_child(spec)
        await serving.wait()
    finally:
        listeners.close()
    return bound
