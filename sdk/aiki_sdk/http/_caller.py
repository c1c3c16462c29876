"""`Caller`: one server and the way to ask it something, over and over where that is safe.

It knows nothing of runs: it builds requests, tries again, reads answers, and turns whatever goes
wrong into errors of the SDK.

Invariant: what may have happened is repeated only if the caller of `ask` said that it may be.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

import httpx
from attrs import define, field

from aiki_sdk._errors import AikiError, Unavailable
from aiki_sdk._json import JsonValue, dumps
from aiki_sdk._ports import Rng
from aiki_sdk.client._waiting import Monotonic
from aiki_sdk.http._address import check_key, check_url
from aiki_sdk.http._exchange import Body, Chunks, Exchange
from aiki_sdk.http._failures import (
    Failure,
    answer_json,
    failure_of_error,
    failure_of_response,
    problem_error,
    read_answer,
)
from aiki_sdk.http._retrying import Tries
from aiki_sdk.http._settings import HttpSettings
from aiki_sdk.protocol import Problem

T = TypeVar("T")

Items: TypeAlias = list[dict[str, JsonValue]]
"""What was answered for each of many."""

_NO_BODY: Final = b""


@define(eq=False)
class Caller:
    """A server and one namespace of it.

    Attributes:
        url: where the server is.
        namespace: the namespace that everything happens in.
        api_key: what opens it; never shown.
    """

    url: str = field(converter=check_url)
    namespace: str
    api_key: str | None = field(converter=check_key, repr=False)
    settings: HttpSettings
    exchange: Exchange = field(repr=False)
    _rng: Rng = field(repr=False)
    monotonic: Monotonic = field(repr=False)
    _headers: dict[str, str] = field(init=False, repr=False)
    _abandoned: list[Chunks] = field(factory=lambda: list[Chunks](), init=False, repr=False)
    _closed: bool = field(default=False, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._headers = {
            "accept": "application/json, application/problem+json",
            "aiki-namespace": self.namespace,
            "user-agent": "aiki-sdk",
        }
        if self.api_key is not None:
            self._headers["authorization"] = f"Bearer {self.api_key}"

    # --- Requests ---------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        body: JsonValue = None,
        params: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        read_s: float,
        pool_s: float,
    ) -> httpx.Request:
        sent = {**self._headers, **(headers or {})}
        content = _NO_BODY
        if method == "POST":
            content = dumps({} if body is None else body)
            sent["content-type"] = "application/json"
        settings = self.settings
        timeout = httpx.Timeout(
            connect=settings.connect_timeout_s, read=read_s, write=settings.timeout_s, pool=pool_s
        )
        request = httpx.Request(
            method,
            f"{self.url}{path}",
            params=list(params),
            headers=sent,
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )
        request.stream = Body(content)
        return request

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: JsonValue = None,
        params: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> httpx.Response:
        """Make a request, again and again where that is safe, and return an answer without error.

        Raises:
            AikiError: the error that was answered, or why there is no answer.
        """
        limit_s = self.settings.timeout_s
        request = self.request(
            method, path, body=body, params=params, headers=headers, read_s=limit_s, pool_s=limit_s
        )
        tries = Tries(self.settings, self._rng, self.monotonic)
        while True:
            answer = await self.attempt(request)
            if isinstance(answer, httpx.Response):
                return answer
            pause_s = tries.pause_s(answer.retry_after_s) if answer.may_repeat(repeatable) else None
            if pause_s is None:
                raise answer.error
            await self.exchange.sleep(pause_s)

    async def ask_and_wait(self, path: str, wait_s: float | None) -> httpx.Response:
        """Ask for something that the server may hold back, with what is left of the time.

        Args:
            path: what to ask for.
            wait_s: how long to wait for it; None: as long as the server holds one answer back.

        Raises:
            AikiError: the error that was answered, or why there is no answer.
        """
        until_s = math.inf if wait_s is None else self.monotonic() + wait_s
        tries = self.patient_tries()
        while True:
            asked_s = min(self.settings.poll_s, max(0.0, until_s - self.monotonic()))
            # Coming free of a connection, and the answer itself, may take their time on top.
            limit_s = self.settings.timeout_s + asked_s
            params = [("wait", f"{asked_s:.3f}")]
            request = self.request("GET", path, params=params, read_s=limit_s, pool_s=limit_s)
            answer = await self.attempt(request, waits=True)
            if isinstance(answer, httpx.Response):
                return answer
            pause_s = tries.pause_s(answer.retry_after_s) if answer.passing else None
            if pause_s is None or self.monotonic() + pause_s > until_s:
                raise answer.error
            await self.exchange.sleep(pause_s)

    async def attempt(
        self, request: httpx.Request, *, waits: bool = False
    ) -> httpx.Response | Failure:
        await self._check_open()
        try:
            response = await self.exchange.request(request, waits=waits)
        except httpx.RequestError as error:
            return failure_of_error(error, self.url)
        return failure_of_response(response, self.url) or response

    async def _check_open(self) -> None:
        if self._closed:
            message = f"the client of {self.url} is closed; make another one"
            raise Unavailable(message)
        await self._close_abandoned()

    async def _close_abandoned(self) -> None:
        while True:
            try:  # rather than look first, for threads may share a port
                chunks = self._abandoned.pop()
            except IndexError:
                return
            await chunks.aclose()

    def read(self, response: httpx.Response, cls: type[T]) -> T:
        return self.parse(answer_json(response, self.url), cls)

    def parse(self, json: JsonValue, cls: type[T]) -> T:
        return read_answer(json, cls, self.url)

    def member(self, response: httpx.Response, name: str) -> JsonValue:
        body = answer_json(response, self.url)
        if isinstance(body, dict) and name in body:
            return body[name]
        message = (
            f"the server at {self.url} answered {response.request.url.path} without {name!r}; use "
            "the same release on both sides"
        )
        raise Unavailable(message)

    def items(self, response: httpx.Response, name: str, count: int) -> Items:
        items = self.member(response, name)
        found = (
            [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        )
        if len(found) != count:
            message = f"the server at {self.url} answered {len(found)} of {count} items; try again"
            raise Unavailable(message)
        return found

    def problem(self, item: Mapping[str, JsonValue]) -> Problem | None:
        """Return the error of one item of many, if it has one."""
        json = item.get("error")
        if json is None:
            return None
        error = problem_error(json) or AikiError("the server did not say what is wrong")
        return Problem.from_error(error)

    async def open_stream(
        self, path: str, params: Sequence[tuple[str, str]], idle_s: float, last_id: str = ""
    ) -> Chunks:
        """Make one request for a stream."""
        await self._check_open()
        headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
        if last_id:
            headers["last-event-id"] = last_id
        request = self.request(
            "GET",
            path,
            params=params,
            headers=headers,
            read_s=idle_s,
            pool_s=self.settings.timeout_s,
        )
        return await self.exchange.open(request)

    def patient_tries(self) -> Tries:
        """Count attempts at something that is waited for."""
        return Tries(self.settings, self._rng, self.monotonic, patient=True)

    async def pause(self, delay_s: float) -> None:
        """Wait."""
        await self.exchange.sleep(delay_s)

    def abandon(self, chunks: Chunks) -> None:
        """Close a stream later that nobody reads any more."""
        self._abandoned.append(chunks)

    async def aclose(self) -> None:
        """Close all connections; from then on every request raises `Unavailable`."""
        self._closed = True
        await self._close_abandoned()
        await self.exchange.aclose()
