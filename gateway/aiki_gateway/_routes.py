"""What a route is, and how a request finds its own: the one table is in `_table`.

The server and the OpenAPI document are made of the same values, so that neither can tell of a
route that the other does not have.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final

from attrs import Factory, define, field, frozen

from aiki_sdk import JsonValue

from ._call import Call, Param, Reply, StreamOut

Handler = Callable[[Call], Awaitable[Reply]]
StreamHandler = Callable[[Call, StreamOut], Awaitable[None]]

_BRACES: Final = re.compile(r"\{(\w+)\}")


class Access(Enum):
    """Who may call a route."""

    OPEN = "open"
    """Anybody who can reach the server: probes, and what describes the interface."""
    KEY = "key"
    """Holders of a key, once there are keys."""


@frozen(kw_only=True)
class Answer:
    """One status that a route answers with.

    Attributes:
        about: what it means.
        type: the wire type of the body; None: no body.
        content_type: what the body is.
    """

    about: str
    type: object = None
    content_type: str = "application/json"


@frozen(kw_only=True)
class Link:
    """A request that an answer leads to: this operation, with these parameters of the answer."""

    operation: str
    parameters: Mapping[str, str]


@frozen(kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        path: with a name in braces for each part that varies.
        operation: its unique name.
        summary: what it does, in a line.
        handler: what answers; None for streams and websockets.
        stream: what writes the answer, for streams.
        query: the parameters that it takes.
        body: the type of its body; None: it takes none.
        body_optional: the members of the body's type that may be left out although the type needs
            them; the handler fills them in.
        body_may_be_absent: whether a request without a body is the same as one with `{}`.
        answers: what it answers if all is well, by status.
        errors: the statuses of problems that it answers besides those that every route may.
        links: what a good answer leads to, by name.
        access: who may call it.
        waits: whether it may take long because it was asked to: no time limit, and it ends when
            the client goes away.
        idempotency: whether it honours `Idempotency-Key`.
    """

    method: str
    path: str
    operation: str
    summary: str
    handler: Handler | None = None
    stream: StreamHandler | None = None
    query: tuple[Param, ...] = ()
    body: type | None = None
    body_optional: tuple[str, ...] = ()
    body_may_be_absent: bool = False
    answers: Mapping[int, Answer] = Factory(lambda: dict[int, Answer]())
    errors: tuple[int, ...] = ()
    links: Mapping[str, Link] = Factory(lambda: dict[str, Link]())
    access: Access = Access.KEY
    waits: bool = False
    idempotency: bool = False
    params: Mapping[str, Param] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """File the parameters by name, for every request needs them so."""
        object.__setattr__(self, "params", {param.name: param for param in self.query})

    @property
    def path_names(self) -> list[str]:
        """The names in the braces of the path, in order."""
        return _BRACES.findall(self.path)


PATH_SCHEMAS: Final[Mapping[str, Mapping[str, JsonValue]]] = {
    "run_id": {"type": "string", "minLength": 1, "maxLength": 256},
    "name": {"type": "string", "minLength": 1, "maxLength": 128},
}
"""The schemas of what the braces of paths stand for."""


@define(eq=False)
class Router:
    """Finds the route of a request."""

    routes: Sequence[Route]
    _fixed: dict[str, dict[str, Route]] = field(init=False)
    _varying: list[tuple[re.Pattern[str], dict[str, Route]]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Sort the routes by path; fixed paths go before those that vary."""
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = by_path.setdefault(route.path, {})
            assert route.method not in methods, f"{route.method} {route.path} is there twice"
            methods[route.method] = route
        self._fixed = {path: methods for path, methods in by_path.items() if "{" not in path}
        self._varying = [
            (_pattern(path), methods) for path, methods in by_path.items() if "{" in path
        ]

    def find(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        """Return the routes of a path by method, and what its braces stand for; none: unknown."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        for pattern, methods in self._varying:
            found = pattern.fullmatch(path)
            if found is not None:
                return methods, found.groupdict()
        return {}, {}


def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a path; a part at its end may hold slashes, as names of events may."""
    text = ""
    rest = path
    while found := _BRACES.search(rest):
        part = ".+" if found.end() == len(rest) and found[1] == "name" else "[^/]+"
        text += f"{re.escape(rest[: found.start()])}(?P<{found[1]}>{part})"
        rest = rest[found.end() :]
    return re.compile(text + re.escape(rest), re.DOTALL)
