"""What can go wrong on the way to a server, said in the words of the SDK.

Two things decide whether a request is made again: whether it is one that may be repeated, and
whether the failed attempt can have had any effect (`sent`). This is the only place that knows the
errors of httpx and the meaning of HTTP statuses.
"""

import ssl
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx
from attrs import frozen

from aiki_sdk._error_info import cut_text
from aiki_sdk._errors import (
    AikiError,
    InvalidRequest,
    LimitExceeded,
    PayloadError,
    Unauthorized,
    Unavailable,
    error_from_wire,
)
from aiki_sdk._json import JsonValue, loads
from aiki_sdk.protocol import from_wire

T = TypeVar("T")

_REFUSED: Final = 429
_PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses that may be another one a moment later."""

_NOTHING_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_SHOWN_BYTES_MAX: Final = 200


@frozen
class Failure:
    """One attempt that failed.

    Attributes:
        error: what the caller is told if there is no other attempt.
        passing: whether the next attempt may go better.
        sent: whether the server may have done what it was asked.
        retry_after_s: how long the server asks to be left alone, in seconds, if it does.
    """

    error: AikiError
    passing: bool
    sent: bool
    retry_after_s: float | None = None

    def may_repeat(self, repeatable: bool) -> bool:
        """Tell whether to make the request again."""
        return self.passing and (repeatable or not self.sent)


def failure_of_error(error: httpx.RequestError, url: str) -> Failure:
    """Say what kept a request from being answered."""
    made, passing = _error_of(error, url)
    made.__cause__ = error
    return Failure(made, passing=passing, sent=not isinstance(error, _NOTHING_SENT))


def _error_of(error: httpx.RequestError, url: str) -> tuple[AikiError, bool]:
    certificate = _certificate_error(error)
    if certificate is not None:
        message = (
            f"the certificate of {url} is not trusted: {certificate}; if it is yours, pass "
            "http=HttpSettings(verify=ssl.create_default_context(cafile=…))"
        )
        return Unavailable(message), False
    if isinstance(error, httpx.PoolTimeout):
        message = (
            f"no connection to {url} came free in time: all that the client may open are in use; "
            "raise connections_max or waiting_max in HttpSettings"
        )
        return Unavailable(message), True
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        message = (
            f"no server answers at {url} ({reason}); start it with `aiki server`, or correct "
            "the URL"
        )
        return Unavailable(message), True
    if isinstance(error, httpx.TimeoutException):
        message = f"the server at {url} did not answer in time; try again"
        return Unavailable(message), True
    message = f"the connection to {url} was lost ({reason}); try again"
    return Unavailable(message), isinstance(error, httpx.TransportError)


def _certificate_error(error: BaseException) -> str | None:
    """Return what is wrong with a certificate, if that is what an error is about."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return getattr(seen, "verify_message", "") or "it cannot be verified"
        seen = seen.__cause__ or seen.__context__
    return "it cannot be verified" if "CERTIFICATE_VERIFY_FAILED" in str(error) else None


def failure_of_response(response: httpx.Response, url: str) -> Failure | None:
    """Return the error that an answer is, or None if it is none."""
    status = response.status_code
    if response.is_success:
        return None
    error = _problem(response) or _error_of_status(response, url)
    return Failure(
        error,
        passing=status in _PASSING,
        sent=status != _REFUSED,
        retry_after_s=_retry_after_s(response),
    )


def _problem(response: httpx.Response) -> AikiError | None:
    """Return the error of a problem document, if the answer is one of ours."""
    try:
        body = loads(response.content)
    except PayloadError:
        return None
    return problem_error(body)


def problem_error(body: JsonValue) -> AikiError | None:
    """Rebuild the error of a problem document or of a `Problem`; None: it is neither."""
    if not isinstance(body, dict):
        return None
    code, details = body.get("code"), body.get("details")
    message = body.get("detail", body.get("message"))
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    return error_from_wire(code, message, details if isinstance(details, dict) else None)


def _error_of_status(response: httpx.Response, url: str) -> AikiError:
    """Say what an answer without words of ours means; often it comes from something in between."""
    status, phrase = response.status_code, response.reason_phrase
    if response.is_redirect:
        message = f"{url} redirects to {response.headers.get('location')}; use that URL"
        return InvalidRequest(message)
    if status in (401, 403):
        return Unauthorized(f"{url} answered {status} {phrase}; pass an api_key= that is valid")
    if status in (404, 405):
        message = (
            f"{url} has no such route ({status} for {response.request.method} "
            f"{response.request.url.path}); is it an Aiki server, and of this release?"
        )
        return InvalidRequest(message)
    if status == 413:
        message = f"the request was too large for {url} or a proxy before it; send less at once"
        return LimitExceeded.from_wire(message)
    if status in _PASSING or response.is_server_error:
        return Unavailable(f"the server at {url} answered {status} {phrase}; try again")
    shown = cut_text(response.text, _SHOWN_BYTES_MAX)
    return InvalidRequest(f"the server at {url} answered {status} {phrase}: {shown}")


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read `Retry-After`: seconds, or a date, which is compared with the server's own."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
        now = parsedate_to_datetime(response.headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None


def answer_json(response: httpx.Response, url: str) -> JsonValue:
    """Read an answer that must be JSON.

    Raises:
        Unavailable: it is not.
    """
    try:
        return loads(response.content)
    except PayloadError:
        kind = response.headers.get("content-type", "nothing")
        message = (
            f"{url} answered {response.request.url.path} with {kind}, not JSON; is it an Aiki "
            "server, and nothing else in between?"
        )
        raise Unavailable(message) from None


def read_answer(json: JsonValue, cls: type[T], url: str) -> T:
    """Read a wire value that the server sent.

    Raises:
        Unavailable: it is none that this release knows.
    """
    try:
        return from_wire(json, cls, "answer")
    except InvalidRequest as error:
        message = (
            f"the server at {url} answered what this release does not understand "
            f"({error.message}); use the same release on both sides"
        )
        raise Unavailable(message) from error
