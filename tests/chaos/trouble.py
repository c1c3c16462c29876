"""Trouble that kills nobody: full disk, read-only or locked database, stopped process, orderly end.

The disk is a small tmpfs where root can mount one. Elsewhere the size of the process's files is
limited instead (RLIMIT_FSIZE), which SQLite reports as an I/O error and not as a full disk; the
notes of a scenario say which it was.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .processes import Child
from .program import SETTINGS, Life, Report
from .scenario import Named, Stage

DISK_BYTES: Final = 4 * 1024 * 1024
LARGE_BYTES: Final = 256 * 1024 * 1024
GRACE_S: Final = SETTINGS.worker.shutdown_grace_s
MORE_S: Final = 1.5
"""What an orderly end may take beyond the grace of running tasks."""


def _mount(*arguments: str) -> bool:
    """Mount something; False if this machine does not let us."""
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def small_disk(stage: Stage) -> Generator[bool]:
    """Put the database on a tmpfs of a few megabytes; False if that cannot be mounted."""
    folder = stage.folder.database.parent
    folder.mkdir()
    options = f"size={DISK_BYTES}"
    mounted = os.geteuid() == 0 and _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _fill(path: Path) -> None:
    """Write a file as large as the disk permits."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def _limit_files(child: Child, size: int) -> None:
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full_disk(stage: Stage) -> Report:
    """The disk is full for a while: nothing is acknowledged that is not there, and work goes on."""
    with small_disk(stage) as mounted:
        with stage.serve() as child:
            stage.await_progress(child)
            filler = stage.folder.database.parent / "filler"
            if mounted:
                stage.notes.append(f"a tmpfs of {DISK_BYTES} bytes was full")
                _fill(filler)
            else:
                stage.notes.append("no tmpfs could be mounted: files were limited in size instead")
                database = stage.folder.database
                sizes = [p.stat().st_size for p in database.parent.glob(f"{database.name}*")]
                _limit_files(child, max(sizes))
            child.until(
                lambda: stage.logged("changes were not written"), 15.0, "meet the full disk"
            )
            at_full = stage.progress()
            time.sleep(0.6)
            stage.notes.append(f"{stage.progress() - at_full} bytes acknowledged meanwhile")
            stage.expect(child.poll() is None, "the process ended when the disk was full")
            if mounted:
                filler.unlink()
            else:
                _limit_files(child, LARGE_BYTES)
            stage.await_progress(child, 1_500)
            _end(stage, child)
        return stage.finish(Life(doubts=True))


def full_disk_and_kill(stage: Stage) -> Report:
    """The process is killed while the disk is full, and the next one finds it full."""
    with small_disk(stage) as mounted:
        if not mounted:
            stage.notes.append("skipped: no tmpfs can be mounted here")
            return Report([], {}, 0.0)
        filler = stage.folder.database.parent / "filler"
        with stage.serve() as child:
            stage.await_progress(child)
            _fill(filler)
            child.until(lambda: stage.logged("changes were not written"), 15.0, "meet it")
            time.sleep(0.2)
        with stage.serve() as child:
            time.sleep(1.0)
            ended = child.poll()
            stage.notes.append(f"with a full disk, the next process ended with {ended}")
        filler.unlink()
        return stage.finish(Life(doubts=True))


def read_only(stage: Stage) -> Report:
    """A database that cannot be written to is refused at the start, and is as it was."""
    with small_disk(stage) as mounted:
        folder = stage.folder.database.parent
        with stage.serve() as child:
            stage.await_progress(child)
            _end(stage, child)
        if mounted:
            stage.expect(_mount("-o", "remount,ro", str(folder)), "it could not be remounted")
        else:
            stage.notes.append("no tmpfs could be mounted: files and folder lost their w bits")
            _permit(folder, writing=False)
        if not mounted and os.geteuid() == 0:
            stage.notes.append("root may write all the same: nothing was shown")
        else:
            with stage.serve() as child:
                stage.expect(child.wait(10.0) == 1, f"it served, and ended with {child.code}")
            stage.expect(stage.logged("StorageReadOnly"), "the log does not say StorageReadOnly")
        if mounted:
            stage.expect(_mount("-o", "remount,rw", str(folder)), "it could not be remounted")
        else:
            _permit(folder, writing=True)
        return stage.finish()


def _permit(folder: Path, *, writing: bool) -> None:
    for path in folder.iterdir():
        path.chmod(0o644 if writing else 0o444)
    folder.chmod(0o755 if writing else 0o555)


def locked(stage: Stage) -> Report:
    """Another program holds the write lock: bounded waits, typed refusals, and on it goes."""
    with stage.serve() as child:
        stage.await_progress(child)
        with _lock_held(stage.folder.database):
            time.sleep(SETTINGS.sqlite.busy_timeout_s + 0.7)
            stage.expect(stage.logged("StorageLocked") or stage.logged("is locked"), "no refusal")
        stage.await_progress(child, 1_500)
        _end(stage, child)
    return stage.finish(Life(doubts=True))


@contextmanager
def _lock_held(database: Path) -> Generator[None]:
    connection = sqlite3.connect(database, timeout=10.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def stopped(stage: Stage) -> Report:
    """A process is stopped for long: its file stays its own, and it goes on as if nothing was."""
    with stage.serve() as child:
        stage.await_progress(child)
        child.signal(signal.SIGSTOP)
        time.sleep(1.0)
        with stage.serve() as second:
            stage.expect(second.wait(10.0) == 1, f"a second process ended with {second.code}")
        stage.expect(stage.logged("StorageLocked"), "the log does not say StorageLocked")
        child.signal(signal.SIGCONT)
        stage.await_progress(child, 1_500)
        _end(stage, child)
    return stage.finish()


def told_to_end(stage: Stage) -> Report:
    """SIGTERM under load, at random moments: in time, with code 0, and nothing is repeated."""
    longest_s = 0.0
    for _ in range(4):
        with stage.serve() as child:
            time.sleep(stage.chance.uniform(0.3, 0.9))
            longest_s = max(longest_s, _end(stage, child))
    stage.notes.append(f"the longest of 4 orderly ends took {longest_s:.2f} s")
    report = stage.finish()
    repeated = report.counts.get("repeated", 0)
    stage.expect(repeated == 0, f"{repeated} attempts were repeated though nobody was killed")
    return report


def _end(stage: Stage, child: Child) -> float:
    """Tell a process to end, and see that it does within its grace; return how long it took."""
    began = time.monotonic()
    child.signal(signal.SIGTERM)
    code = child.wait(30.0)
    took_s = time.monotonic() - began
    stage.expect(code == 0, f"SIGTERM led to exit code {code}")
    stage.expect(took_s <= GRACE_S + MORE_S, f"the orderly end took {took_s:.1f} s")
    return took_s


SCENARIOS: Final = (
    Named("full disk", full_disk),
    Named("full disk and kill", full_disk_and_kill),
    Named("read-only database", read_only),
    Named("locked database", locked),
    Named("stopped process", stopped),
    Named("told to end", told_to_end),
)
