"""The program of a worker process: runs functions of tasks with `runtime="process"`, one by one.

It reads orders as lines of JSON from its standard input and writes messages as lines of JSON to
what was its standard output; what tasks print goes to standard error. An order names a module and a
qualified name, never code. Messages: `heartbeat` and `progress` while the function runs, then
`output`, or `error` with the names of the error's class and its bases. The process ends when its
input does.

Invariant: exactly one `output` or `error` follows each order, unless the process dies.
"""

import importlib
import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, cast

from aiki_sdk._context import TaskContext, task_context
from aiki_sdk._error_info import ErrorInfo, type_name
from aiki_sdk._errors import InvalidRequest, RetryAfter
from aiki_sdk._json import JsonValue, dumps, loads
from aiki_sdk._signature import CallSignature
from aiki_sdk._task import AnyTask, SyncTask, TaskDefinition


def check_importable(task: AnyTask) -> tuple[str, str]:
    """Return the module and qualified name under which another process finds a task.

    Raises:
        InvalidRequest: there is none: the function is `__main__`'s, nested, or bound otherwise.
    """
    module, qualname = task.__module__, task.__qualname__
    what = f"task {task.name!r} has runtime='process' but its function {module}.{qualname}"
    if module == "__main__":
        message = (
            f"{what} belongs to the program that was started; a worker process cannot import that: "
            "move the task into a module of its own and import it"
        )
        raise InvalidRequest(message)
    if "<" in qualname:
        message = f"{what} is defined inside another function; move it to the top of its module"
        raise InvalidRequest(message)
    found = _look_up(sys.modules.get(module), qualname)
    if not isinstance(found, TaskDefinition) and not inspect.isfunction(found):
        message = f"{what} is not found under that name; leave the task where its name says it is"
        raise InvalidRequest(message)
    return module, qualname


def _look_up(found: object, qualname: str) -> object:
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _signature_and_function(
    name: str, module: str, qualname: str
) -> tuple[CallSignature, Callable[..., Any]]:
    found = _look_up(importlib.import_module(module), qualname)
    if isinstance(found, SyncTask):
        known = cast("SyncTask[..., Any]", found)
        return known.signature, known.function
    if inspect.isfunction(found):
        return CallSignature(found, f"task {name!r}"), found
    message = f"task {name!r}: {module}.{qualname} is no function in a worker process"
    raise InvalidRequest(message)


class _Channel:
    """The way back to the worker; used by every thread of the task."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, message: dict[str, JsonValue]) -> None:
        """Write one message."""
        with self._lock:
            self._out.write(dumps(message) + b"\n")
            self._out.flush()


def _perform(order: Any, channel: _Channel) -> dict[str, JsonValue]:
    """Carry one order out and return what came of it; whatever the function raises is an answer."""
    try:
        found = order["context"]
        signature, function = _signature_and_function(
            order["name"], order["module"], order["qualname"]
        )
        args, kwargs = signature.decode_input(order["input"])
        context = TaskContext(
            order["name"],
            found["run_id"],
            found["attempt"],
            found["idempotency_key"],
            logging.getLogger("aiki.task"),
            found["last_heartbeat"],
            on_heartbeat=lambda details: channel.say({"heartbeat": details}),
            on_progress=lambda value: channel.say({"progress": value}),
        )
        with task_context(context):
            return {"output": signature.encode_output(function(*args, **kwargs))}
    except BaseException as error:  # noqa: BLE001  # as in a thread: it is the attempt's outcome
        names: list[JsonValue] = [type_name(cls) for cls in type(error).__mro__]
        answer: dict[str, JsonValue] = {
            "error": ErrorInfo.from_exception(error).to_json(),
            "names": names,
        }
        if isinstance(error, RetryAfter):
            answer["delay_s"] = error.delay_s
        return answer


def main() -> None:
    """Serve orders until the input ends."""
    # The worker decides when this process ends; a Ctrl-C for the whole group is for the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = os.fdopen(os.dup(0), "rb")
    channel = _Channel(os.fdopen(os.dup(1), "wb"))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    try:
        for line in orders:
            channel.say(_perform(loads(line), channel))
    except BrokenPipeError:
        # The worker is gone, and with it everybody who would want to know.
        os._exit(0)
