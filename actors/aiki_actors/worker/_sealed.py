"""The worker's side of a `PayloadCodec`: what leaves it is sealed, what reaches it is opened.

It stands between worker and server: executors see plain payloads, the server and its database
sealed ones. Which fields are payloads follows from their annotations in the engine, so that a new
kind of command or entry needs no line here. Who the server works for by them, and what stays in the
clear, is said in `aiki_sdk.client._sealed_port`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs
from attrs import define, evolve, frozen

from aiki_actors import engine as e
from aiki_sdk import JsonValue, PayloadCodec, PayloadError, StaleClaim
from aiki_sdk.payload import seal, seal_error, unseal, unseal_error

from ._port import Assignment, ServerPort, WorkerInbox

LOGGER: Final = logging.getLogger("aiki.worker")

T = TypeVar("T")

_CLEAR: Final = frozenset({("RunCreated", "retry")})
"""What is JSON but no payload: the server reads it."""


_parts_by_class: Final[dict[type[Any], tuple[tuple[str, str], ...]]] = {}


def _parts(cls: type[Any]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a command or entry that hold payloads, and what each holds."""
    known = _parts_by_class.get(cls)
    if known is None:
        known = _parts_by_class[cls] = _find_parts(cls)
    return known


def _find_parts(cls: type[Any]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for attribute in attrs.fields(cls):
        kind = _annotation(cls, attribute.name).removesuffix(" | None")
        known = kind in {"JsonValue", "ErrorInfo", "RunCreated"}
        if known and (cls.__name__, attribute.name) not in _CLEAR:
            found.append((attribute.name, kind))
    return tuple(found)


def _annotation(cls: type[Any], name: str) -> str:
    """Return a field's annotation as it is written; `attribute.type` may have been resolved."""
    for owner in cls.__mro__:
        written: object = vars(owner).get("__annotations__", {}).get(name)
        if written is not None:
            assert isinstance(written, str), f"{owner} is not in a module with deferred annotations"
            return written
    message = f"{cls.__name__}.{name} has no annotation"
    raise LookupError(message)


@frozen
class Seal:
    """Seals and opens commands and entries."""

    codec: PayloadCodec

    def close(self, value: T) -> T:
        """Return the same with its payloads sealed; None stays None."""
        return self._passed(value, opening=False)

    def open(self, entry: e.Entry) -> e.Entry:
        """Return the same with its payloads opened.

        Raises:
            PayloadError: the codec cannot open one.

        """
        body = self._passed(entry.body, opening=True)
        return entry if body is entry.body else e.Entry(entry.seq, entry.at, body)

    def _passed(self, value: T, *, opening: bool) -> T:
        changes: dict[str, Any] = {}
        cls: type[Any] = type(value)
        for name, kind in _parts(cls):
            part: Any = getattr(value, name)
            if part is None:
                continue
            if kind == "JsonValue":
                changes[name] = unseal(part, self.codec) if opening else seal(part, self.codec)
            elif kind == "ErrorInfo":
                way = unseal_error if opening else seal_error
                changes[name] = way(part, self.codec)
            else:
                changes[name] = self._passed(part, opening=opening)
        # Any: attrs' evolve asks for a class that it can see to be one of attrs'.
        made: Any = value
        return evolve(made, **changes) if changes else value


@define(eq=False)
class SealedServer:
    """A `ServerPort` that seals what the worker says."""

    port: ServerPort
    seal: Seal
    epochs: dict[str, int] = attrs.field(factory=lambda: dict[str, int](), init=False)
    """Of the claims on the runs that are here."""

    async def submit(
        self, run_id: str, commands: tuple[e.WorkerCommand, ...]
    ) -> tuple[e.Entry, ...]:
        """Submit sealed commands; return the entries, opened."""
        sealed = tuple(self.seal.close(command) for command in commands)
        entries = await self.port.submit(run_id, sealed)
        try:
            return tuple(self.seal.open(entry) for entry in entries)
        except PayloadError as error:
            # It is durable, but this worker cannot go on with it: another may have the right key.
            self.port.lost(run_id, commands[0].claim.epoch, str(error))
            raise StaleClaim(f"run {run_id} is given up: {error}") from error

    async def reclaim(self, run_id: str) -> None:
        """Pass on."""
        await self.port.reclaim(run_id)

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Pass on."""
        self.port.lost(run_id, epoch, reason)

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Show sealed values."""
        if "value" in body:
            body = {**body, "value": seal(body["value"], self.seal.codec)}
        self.port.progress(run_id, kind, body)

    def join(self) -> None:
        """Pass on."""
        self.port.join()

    def leave(self) -> None:
        """Pass on."""
        self.port.leave()

    def dropped(self, run_id: str) -> None:
        """Pass on."""
        self.epochs.pop(run_id, None)
        self.port.dropped(run_id)


@define(eq=False)
class OpeningInbox:
    """A `WorkerInbox` that opens what the server says."""

    _inbox: WorkerInbox
    _server: SealedServer

    def assign(self, assignment: Assignment) -> None:
        """Execute a run, unless its payloads cannot be opened: then it is given back."""
        epoch = assignment.claim.epoch
        entries = self._opened(assignment.run_id, epoch, assignment.entries)
        if entries is not None:
            self._server.epochs[assignment.run_id] = epoch
            self._inbox.assign(evolve(assignment, entries=entries))

    def push(self, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        """Tell what happened."""
        opened = self._opened(run_id, self._server.epochs.get(run_id, 0), entries)
        if opened is not None:
            self._inbox.push(run_id, opened)

    def drop(self, run_id: str, reason: str) -> None:
        """Pass on."""
        self._inbox.drop(run_id, reason)

    def cool(self, run_id: str) -> None:
        """Pass on."""
        self._inbox.cool(run_id)

    def forget_warm(self) -> None:
        """Pass on."""
        self._inbox.forget_warm()

    def _opened(
        self, run_id: str, epoch: int, entries: tuple[e.Entry, ...]
    ) -> tuple[e.Entry, ...] | None:
        try:
            return tuple(self._server.seal.open(entry) for entry in entries)
        except PayloadError as error:
            LOGGER.error("run %s cannot be executed here: %s", run_id, error)  # noqa: TRY400
            self._server.port.lost(run_id, epoch, str(error))
            return None
