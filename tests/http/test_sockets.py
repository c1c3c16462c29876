"""What real sockets do to a client: connections that are reset, silent, full of nonsense, or false.

The server here is a script: for each connection it does the next thing that it was told.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aiki_sdk import Client, SyncClient, Unavailable
from aiki_sdk.http import HttpSettings
from aiki_sdk.protocol import Health

IMPATIENT = HttpSettings(timeout_s=0.1, connect_timeout_s=1.0, attempts_max=3, backoff_s=0.01)
HEALTHY = b'{"status": "ok", "problems": {}, "version": "test"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(HEALTHY), HEALTHY)

Ask = Callable[[str, HttpSettings], Health]


@define(eq=False)
class ScriptedServer:
    """Does the next thing of a script with each connection, and the last one ever after."""

    script: list[str]
    accepted: list[str] = field(factory=lambda: list[str]())
    received: list[bytes] = field(factory=lambda: list[bytes]())

    async def serve(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        """Serve one connection."""
        what = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.accepted.append(what)
        try:
            await self._do(what, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _do(
        self, what: str, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    ) -> None:
        if what == "close":
            return
        self.received.append(bytes(await stream.receive_some()))
        if what == "reset":
            assert isinstance(stream, trio.SocketStream)
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif what == "nonsense":
            await stream.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")
        elif what == "half":
            await stream.send_all(ANSWER[:-10])
        elif what == "silent":
            await trio.sleep_forever()
        elif what == "ok":
            await stream.send_all(ANSWER)
            await trio.sleep_forever()


@asynccontextmanager
async def scripted(
    *script: str, context: ssl.SSLContext | None = None
) -> AsyncGenerator[tuple[ScriptedServer, str]]:
    """Serve a script; gives it and its URL."""
    server = ScriptedServer([*script])

    async def serve(stream: trio.SocketStream) -> None:
        if context is None:
            await server.serve(stream)
            return
        secured = trio.SSLStream(stream, context, server_side=True)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError:
            return
        await server.serve(secured)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield server, f"{'http' if context is None else 'https'}://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


def ask_plainly(url: str, settings: HttpSettings) -> Health:
    with SyncClient(url, http=settings, api_key="sesame") as client:
        return client.health()


def ask_under_trio(url: str, settings: HttpSettings) -> Health:
    async def main() -> Health:
        async with Client(url, http=settings, api_key="sesame") as client:
            return await client.health()

    return trio.run(main)


def ask_under_asyncio(url: str, settings: HttpSettings) -> Health:
    async def main() -> Health:
        async with Client(url, http=settings, api_key="sesame") as client:
            return await client.health()

    return asyncio.run(main())


@pytest.fixture(params=[ask_plainly, ask_under_trio, ask_under_asyncio])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each way to ask a server, in a thread of its own."""
    chosen: Ask = request.param
    return chosen


@pytest.mark.parametrize("fault", ["close", "reset", "nonsense", "half", "silent"])
async def test_a_request_survives_what_sockets_do(fault: str, ask: Ask) -> None:
    async with scripted(fault, fault, "ok") as (server, url):
        assert (await trio.to_thread.run_sync(ask, url, IMPATIENT)).ok
    assert server.accepted == [fault, fault, "ok"]


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [("reset", "was lost"), ("nonsense", "was lost"), ("silent", "did not answer in time")],
)
async def test_what_sockets_do_for_ever_is_an_error_that_names_the_server(
    fault: str, complaint: str, ask: Ask
) -> None:
    async with scripted(fault) as (server, url):
        with pytest.raises(Unavailable, match=complaint) as raised:
            await trio.to_thread.run_sync(ask, url, IMPATIENT)
    assert url in str(raised.value)
    assert len(server.accepted) == 3


async def test_a_port_where_nobody_listens_is_named_with_what_to_do(ask: Ask) -> None:
    with pytest.raises(Unavailable, match=r"no server answers at http://127.0.0.1:1 .*aiki server"):
        await trio.to_thread.run_sync(ask, "http://127.0.0.1:1", IMPATIENT)


# --- Certificates ---------------------------------------------------------------------------------


def self_signed(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1, with its key, that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


async def test_a_server_that_nobody_vouches_for_is_not_told_the_key(
    ask: Ask, tmp_path: Path
) -> None:
    path = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    trusting = HttpSettings(timeout_s=5.0, verify=ssl.create_default_context(cafile=str(path)))
    async with scripted("ok", context=context) as (server, url):
        with pytest.raises(Unavailable, match=r"certificate of https://.* is not trusted"):
            await trio.to_thread.run_sync(ask, url, HttpSettings(timeout_s=5.0))
        assert server.received == []

        assert (await trio.to_thread.run_sync(ask, url, trusting)).ok
        assert b"sesame" in server.received[0]
