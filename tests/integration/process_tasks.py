"""Tasks that run in worker processes; a module of its own, for a process imports it by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from attrs import frozen

from aiki_sdk import Retry, current_task, task


@frozen
class Part:
    """Something with types that JSON does not have."""

    weight: Decimal
    lasts: timedelta


@task(runtime="process")
def doubles(part: Part) -> Part:
    sys.stdout.write("this goes to standard error, not into the protocol\n")
    return Part(part.weight * 2, part.lasts * 2)


@task(runtime="process")
def where() -> int:
    return os.getpid()


@task(runtime="process")
def dies(code: int) -> None:
    os._exit(code)


@task(runtime="process", at_most_once=True, retry=Retry.fixed(3, 0.01))
def dies_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(runtime="process", timeout=0.5)
def hangs(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


@task(runtime="process", retry=Retry.fixed(3, 0.01, only=(OSError,)))
def refuses(kind: str) -> int:
    me = current_task()
    if me.last_heartbeat is None:
        me.heartbeat({"attempt": me.attempt})
    me.progress(me.attempt)
    if kind == "connection" and me.attempt < 3:
        raise ConnectionRefusedError(kind)
    if kind == "value":
        raise ValueError(kind)
    if kind == "later" and me.attempt == 1:
        raise Retry.after(0.02)
    return me.attempt


def plain_double(number: int) -> int:
    return number * 2


renamed = task(name="renamed", runtime="process")(plain_double)


def makes_task() -> object:
    @task(runtime="process")
    def nested() -> int:
        return 1

    return nested
