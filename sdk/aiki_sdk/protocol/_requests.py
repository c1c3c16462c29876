"""What is asked about runs: wire values, checked where they are made.

A request that exists is well-formed: the client finds the mistake at the call that made it, and
the gateway finds it in what came over the network, by the same rules and with the same words.
Times are aware datetimes, kept in UTC; durations are seconds. What a request leaves out (None)
follows from the workflow's own definition.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar, cast

from attrs import Factory, frozen

from aiki_sdk._durations import optional_seconds
from aiki_sdk._errors import InvalidRequest, LimitExceeded
from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name, check_version

from ._definition import WorkflowDefinition
from ._status import OnConflict, Priority, RunStatus

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 500
QUERY_LENGTH_MAX: Final = 256
"""More rows than a page of anything shows, few enough that one answer stays below 1 MiB."""

REFERENCE_ID_LENGTH_MAX: Final = 256
"""Long enough for two UUIDs and a path; short enough to be indexed by every database."""

REASON_LENGTH_MAX: Final = 1_000
LABELS_MAX: Final = 32
LABEL_VALUE_LENGTH_MAX: Final = 256
"""Labels are indexed, so they are names and short values, not payloads."""

BATCH_MAX: Final = 1_000
"""Starts in one request: one transaction and one answer of reasonable size."""

WATCHED_RUNS_MAX: Final = 50
"""Runs that one stream may name: where each of them was is in the id of every event."""

_INPUT_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")

E = TypeVar("E", bound=StrEnum)


class ControlCommand(StrEnum):
    """What an operator can do to a run."""

    CANCEL = "cancel"
    TERMINATE = "terminate"
    PAUSE = "pause"
    RESUME = "resume"
    WAKE = "wake"
    REQUEUE = "requeue"
    RETRY = "retry"


def _invalid(name: str, value: object, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{name}={value!r} is not valid: {rule}")


def check_word(name: str, value: object, words: type[E]) -> E:
    """Return the member of an enumeration that `value` is or spells.

    Raises:
        InvalidRequest: naming the parameter, the value and the words that there are.
    """
    if isinstance(value, words):
        return value
    known = {str(member.value): member for member in words}
    if isinstance(value, str) and value in known:
        return known[value]
    raise _invalid(name, value, f"use one of {', '.join(known)}")


def check_label_text(name: str, value: object, length_max: int) -> str:
    """Return `value` if it is a text that can be stored: not empty, no NUL, not too long.

    Raises:
        InvalidRequest: naming the parameter, the value and the rule.
        LimitExceeded: naming the parameter, the limit and the length.
    """
    if not isinstance(value, str) or not value:
        raise _invalid(name, value, "pass a str that is not empty")
    if len(value) > length_max:
        raise LimitExceeded(f"the length of {name}", length_max, len(value), "shorten it")
    if _UNSTORABLE.search(value):
        raise _invalid(name, value, "remove the NUL characters and lone surrogates")
    return value


def check_time(name: str, value: object) -> datetime:
    """Return a time in UTC.

    Raises:
        InvalidRequest: if it is not a datetime, or has no time zone.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise _invalid(name, value, "pass an aware datetime, such as datetime.now(UTC)")
    return value.astimezone(UTC)


def check_labels(name: str, labels: object) -> Mapping[str, str]:
    """Return labels: names and short texts.

    Raises:
        InvalidRequest: naming the parameter and what is wrong with which label.
        LimitExceeded: if there are too many.
    """
    if not isinstance(labels, Mapping):
        raise _invalid(name, labels, "pass a dict of str to str")
    pairs = cast("Mapping[object, object]", labels)
    if len(pairs) > LABELS_MAX:
        raise LimitExceeded(f"the number of {name}", LABELS_MAX, len(pairs), "use fewer")
    return {
        check_name("label", key): check_label_text(
            f"{name}[{key!r}]", value, LABEL_VALUE_LENGTH_MAX
        )
        for key, value in pairs.items()
    }


@frozen(kw_only=True)
class StartRequest:
    """Start a run.

    Attributes:
        workflow: its name.
        version: its version; None: the only or newest one that the server knows.
        input: every parameter by name, as JSON.
        input_hash: SHA-256 of the canonical input, as 64 hexadecimal digits.
        reference_id: the caller's own name for the run, unique per workflow; None: none.
        on_conflict: what to do if the reference id names a run already.
        delay_s: seconds until it starts; at most one of `delay_s` and `at` is given.
        at: when it starts.
        priority: None: the workflow's own, and so for `pool`, `retry` and `timeout_s`.
        pool: which workers may run it.
        retry: a retry policy in its JSON form.
        timeout_s: seconds that the whole run may take.
        labels: what it can be found by.
        definition: of the workflow, for a server that knows none of this name and version yet;
            one that does goes by its own.
    """

    workflow: str
    version: str | None = None
    input: JsonValue
    input_hash: str
    reference_id: str | None = None
    on_conflict: OnConflict = OnConflict.ERROR
    delay_s: float | None = None
    at: datetime | None = None
    priority: Priority | None = None
    pool: str | None = None
    retry: JsonValue = None
    timeout_s: float | None = None
    labels: Mapping[str, str] = Factory(lambda: dict[str, str]())
    definition: WorkflowDefinition | None = None

    def __attrs_post_init__(self) -> None:
        check_name("workflow", self.workflow)
        if self.version is not None:
            check_version(self.version)
        if not _INPUT_HASH.fullmatch(self.input_hash):
            raise _invalid("input_hash", self.input_hash, "pass 64 hexadecimal digits")
        if self.reference_id is not None:
            check_label_text("reference_id", self.reference_id, REFERENCE_ID_LENGTH_MAX)
        optional_seconds("delay", self.delay_s)
        if self.at is not None:
            check_time("at", self.at)
            if self.delay_s is not None:
                raise _invalid("at", self.at.isoformat(), "delay is given too; pass one of the two")
        if self.pool is not None:
            check_name("pool", self.pool)
        if self.retry is not None and not isinstance(self.retry, dict):
            raise _invalid("retry", self.retry, "pass a retry policy as a JSON object")
        optional_seconds("timeout", self.timeout_s, zero=False)
        check_labels("labels", self.labels)
        if self.definition is not None:
            defined = self.definition
            if (defined.name, defined.version) != (self.workflow, self.version):
                fix = "pass the definition of the workflow and version that are to be started"
                raise _invalid("definition", defined.key, fix)


@frozen(kw_only=True)
class SendRequest:
    """Send an event to a run, or ask it a question.

    Attributes:
        event: the event's or the question's name.
        data: what it carries.
        reference_id: the sender's own name for this sending; a repetition is dropped.
        question: whether it is a question; then the answer is in the run's journal.
    """

    event: str
    data: JsonValue = None
    reference_id: str | None = None
    question: bool = False

    def __attrs_post_init__(self) -> None:
        check_name("question" if self.question else "event", self.event)
        if self.reference_id is not None:
            check_label_text("reference_id", self.reference_id, REFERENCE_ID_LENGTH_MAX)


@frozen(kw_only=True)
class ForkRequest:
    """Make a new run of what another one had recorded.

    Attributes:
        at: the last entry of its journal that counts, by seq.
        input: another input, every parameter by name; None: the same.
        input_hash: SHA-256 of that input in its canonical form; given exactly if `input` is.
        overrides: other results of tasks, by the seq of the entry that they replace.
        version: another version of the workflow; None: the same.
    """

    at: int
    input: Mapping[str, JsonValue] | None = None
    input_hash: str | None = None
    overrides: Mapping[int, JsonValue] = Factory(lambda: dict[int, JsonValue]())
    version: str | None = None

    def __attrs_post_init__(self) -> None:
        at = cast("object", self.at)
        if not isinstance(at, int) or isinstance(at, bool) or at < 1:
            raise _invalid("at", at, "pass the seq of an entry, 1 or more")
        if (self.input is None) != (self.input_hash is None):
            raise _invalid("input_hash", self.input_hash, "pass it with the input, or neither")
        if self.input_hash is not None and not _INPUT_HASH.fullmatch(self.input_hash):
            raise _invalid("input_hash", self.input_hash, "pass 64 hexadecimal digits")
        if self.version is not None:
            check_version(self.version)


@frozen(kw_only=True)
class ControlRequest:
    """Do something to a run.

    Attributes:
        command: what to do.
        reason: why, for `cancel`, `terminate` and `pause`; it is kept in the journal.
        sleep: which sleep `wake` ends, by name; None: the one that ends first.
    """

    command: ControlCommand
    reason: str | None = None
    sleep: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.reason is not None:
            check_label_text("reason", self.reason, REASON_LENGTH_MAX)
            if self.command not in _WITH_REASON:
                raise _invalid("reason", self.reason, f"{self.command} takes none; leave it out")
        if self.sleep is not None:
            check_name("sleep", self.sleep)
            if self.command is not ControlCommand.WAKE:
                raise _invalid("sleep", self.sleep, f"{self.command} takes none; leave it out")


_WITH_REASON: Final = (ControlCommand.CANCEL, ControlCommand.TERMINATE, ControlCommand.PAUSE)


@frozen(kw_only=True)
class RunQuery:
    """Which runs to list or count; what is left out does not restrict. All filters must hold.

    Attributes:
        status: any of these; empty: every status.
        labels: the run carries all of these.
        created_after: created then or later.
        created_before: created before then.
        query: every word of it is found in the run's id, workflow or reference id, whatever the
            case of its letters; at most 256 characters.
        undeliverable: it is queued, and no worker that is connected has its workflow and version
            and serves its pool; such a page may hold fewer runs than `limit` and not be the last.
        limit: runs on a page, at most 500.
        cursor: where the page before ended; None: the first page.
    """

    status: tuple[RunStatus, ...] = ()
    workflow: str | None = None
    version: str | None = None
    reference_id: str | None = None
    parent_id: str | None = None
    labels: Mapping[str, str] = Factory(lambda: dict[str, str]())
    created_after: datetime | None = None
    created_before: datetime | None = None
    query: str | None = None
    undeliverable: bool = False
    limit: int = PAGE_SIZE_DEFAULT
    cursor: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.workflow is not None:
            check_name("workflow", self.workflow)
        if self.version is not None:
            check_version(self.version)
        check_labels("labels", self.labels)
        if self.created_after is not None:
            check_time("created_after", self.created_after)
        if self.created_before is not None:
            check_time("created_before", self.created_before)
        if self.query is not None:
            check_query(self.query)
        check_limit(self.limit)


def check_query(query: object) -> str:
    """Return what is searched for.

    Raises:
        InvalidRequest: it is no text, or too long.
    """
    if isinstance(query, str) and len(query) <= QUERY_LENGTH_MAX and "\0" not in query:
        return query
    shown = repr(query)[:100]
    message = (
        f"query={shown} is not valid: pass the words to search for as a str of at most "
        f"{QUERY_LENGTH_MAX} characters"
    )
    raise InvalidRequest(message)


@frozen(kw_only=True)
class UpdateQuery:
    """Which updates of a namespace to stream; what is empty does not restrict. All must hold.

    Attributes:
        run_ids: updates of these runs, at most 50.
        workflows: of runs of these workflows.
        statuses: after which a run has one of these.
    """

    run_ids: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    statuses: tuple[RunStatus, ...] = ()

    def __attrs_post_init__(self) -> None:
        if len(self.run_ids) > WATCHED_RUNS_MAX:
            fix = "watch them with several streams, or all and look which they are"
            raise LimitExceeded(
                "the number of runs in one stream", WATCHED_RUNS_MAX, len(self.run_ids), fix
            )
        for name in self.workflows:
            check_name("workflow", name)

    def selects(self, run_id: str, workflow: str, status: RunStatus) -> bool:
        """Tell whether an update is one of these."""
        return (
            (not self.run_ids or run_id in self.run_ids)
            and (not self.workflows or workflow in self.workflows)
            and (not self.statuses or status in self.statuses)
        )


def check_limit(limit: object) -> int:
    """Return a page size.

    Raises:
        InvalidRequest: if it is not an int from 1 to 500; the message names the value.
    """
    if isinstance(limit, int) and not isinstance(limit, bool) and 1 <= limit <= PAGE_SIZE_MAX:
        return limit
    raise _invalid("limit", limit, f"pass an int from 1 to {PAGE_SIZE_MAX} and read on by cursor")
