"""Worker processes for tasks with `runtime="process"`: CPU-bound functions beside the event loop.

A small pool of Python processes, started when they are needed and kept for the next task. Parent
and child exchange lines of JSON over pipes (`aiki_sdk._process_main` is the child's side): the
function travels as a module and a qualified name, arguments and results as the task's own
converters write them; nothing is pickled. A process runs one attempt at a time. It is killed when
its attempt is cancelled or times out, and with the worker; its death is a failed attempt.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trio
from attrs import Factory, define

from aiki_sdk import AnyTask, ErrorInfo, JsonValue, TaskProcessDied, dumps, loads
from aiki_sdk._process_main import check_importable

from ._host import StartHost, no_host

COMMAND: Final = "from aiki_sdk._process_main import main; main()"

PROCESSES_MAX: Final = 4
"""Worker processes of one worker, unless its settings say otherwise."""


class RaisedElsewhere(Exception):  # the error's own name is in `info`
    """What a task raised in its process.

    Attributes:
        info: the error itself.
        names: its class and the bases of that, by name, for retry policies.
        delay_s: the delay that it asks for, if it is a `Retry.after(...)`.

    """

    def __init__(self, info: ErrorInfo, names: tuple[str, ...], delay_s: float | None) -> None:
        super().__init__(str(info))
        self.info = info
        self.names = names
        self.delay_s = delay_s


@define(eq=False)
class _Channel:
    """One process and the lines that it writes."""

    process: trio.Process
    _buffer: bytearray = Factory(bytearray)

    async def send(self, message: Mapping[str, JsonValue]) -> None:
        stdin = self.process.stdin
        assert stdin is not None, "the process was started with a pipe"
        await stdin.send_all(dumps(dict(message)) + b"\n")

    async def receive(self) -> dict[str, JsonValue] | None:
        """Return the next message; None if the process has closed its end."""
        stdout = self.process.stdout
        assert stdout is not None, "the process was started with a pipe"
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            data = await stdout.receive_some()
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message = loads(line)
        assert isinstance(message, dict), "the child writes objects"
        return message

    async def end(self) -> int:
        """Kill the process if it lives and wait for its end; return its exit code."""
        code = 0
        with trio.CancelScope(shield=True):
            self.process.kill()
            code = await self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    await stream.aclose()
        return code


@define(eq=False)
class Processes:
    """The processes of one worker.

    Attributes:
        limiter: bounds them.

    """

    limiter: trio.CapacityLimiter = Factory(lambda: trio.CapacityLimiter(PROCESSES_MAX))
    start_host: StartHost = no_host
    _hosted: bool = False
    _idle: list[_Channel] = Factory(lambda: list[_Channel]())

    async def run(
        self,
        task: AnyTask,
        data: Mapping[str, JsonValue],
        context: Mapping[str, JsonValue],
        hear: Mapping[str, Callable[[JsonValue], None]],
    ) -> JsonValue:
        """Run a task's function on an input in a process; return its output as JSON.

        Args:
            task: whose function; it must be importable by name.
            data: the input.
            context: what `current_task()` is to say there.
            hear: who hears what the function says while it runs, by kind of message.

        Raises:
            RaisedElsewhere: the function raised.
            TaskProcessDied: its process ended.
            InvalidRequest: the function cannot be imported by name.

        """
        module, qualname = check_importable(task)
        channel = await self._open()
        order: dict[str, JsonValue] = {
            "name": task.name,
            "module": module,
            "qualname": qualname,
            "input": dict(data),
            "context": dict(context),
        }
        answered = False
        try:
            answer = await self._converse(channel, order, hear)
            answered = answer is not None
        finally:
            code = None if answered and self._hosted else await channel.end()
        if answer is None:
            raise TaskProcessDied(task.name, 0 if code is None else code)
        self._idle.append(channel)
        if "error" in answer:
            raise _raised(answer)
        return answer["output"]

    async def _converse(
        self,
        channel: _Channel,
        order: Mapping[str, JsonValue],
        hear: Mapping[str, Callable[[JsonValue], None]],
    ) -> dict[str, JsonValue] | None:
        try:
            await channel.send(order)
            while (message := await channel.receive()) is not None:
                kind = next(iter(message))
                if kind not in hear:
                    return message
                hear[kind](message[kind])
        except trio.BrokenResourceError:
            return None
        return None

    async def _open(self) -> _Channel:
        """Take a process that waits for work, or start one."""
        if not self._hosted:
            self._hosted = True
            self.start_host("processes", self._serve)
        while self._idle:
            channel = self._idle.pop()
            if channel.process.poll() is None:
                return channel
            await channel.end()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _import_path()},
        )
        return _Channel(process)

    async def _serve(self) -> None:
        """End the idle processes with the worker; a busy one ends with its attempt."""
        try:
            await trio.sleep_forever()
        finally:
            self._hosted = False
            idle, self._idle = self._idle, []
            for channel in idle:
                await channel.end()


def _import_path() -> str:
    """Return where this process imports from, for another one that starts in the same folder."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


def _raised(answer: Mapping[str, JsonValue]) -> RaisedElsewhere:
    error, names, delay_s = answer["error"], answer.get("names"), answer.get("delay_s")
    assert isinstance(error, dict), "an error is an object"
    assert isinstance(names, list), "the names of an error's classes are a list"
    wanted = float(delay_s) if isinstance(delay_s, int | float) else None
    return RaisedElsewhere(ErrorInfo.from_json(error), tuple(map(str, names)), wanted)
