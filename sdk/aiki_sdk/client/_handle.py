"""A handle on one run: ask how it is, wait for it, talk to it.

A handle holds an id and nothing else that matters: any number of handles may stand for one run,
and waiting on one never affects the run. A run that continued as new goes on under another id;
`result`, `wait`, `status`, `info`, `send`, `ask`, `value`, `watch` and the commands follow it,
`history`, `updates` and `fork` stay with the journal of this run.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar, cast, final, overload

from aiki_sdk._durations import Duration
from aiki_sdk._error_info import ErrorInfo, type_name
from aiki_sdk._errors import (
    InvalidRequest,
    RunCancelled,
    RunEnded,
    RunFailed,
    RunTerminated,
)
from aiki_sdk._event import Event
from aiki_sdk._json import JsonValue
from aiki_sdk._workflow import AnyWorkflow
from aiki_sdk.client._conversation import Conversation
from aiki_sdk.client._forking import fork_request, is_of
from aiki_sdk.client._updates import Updates
from aiki_sdk.client._waiting import Deadline, Monotonic
from aiki_sdk.client._words import StatusWords, check_statuses
from aiki_sdk.payload import encode_payload
from aiki_sdk.protocol import (
    PAGE_SIZE_MAX,
    ClientPort,
    ControlCommand,
    ControlRequest,
    EventReceipt,
    JournalEntry,
    Outcome,
    RunInfo,
    RunStatus,
    SendRequest,
)

R_co = TypeVar("R_co", covariant=True)
D = TypeVar("D")
T = TypeVar("T")

_NO_ERROR: Final = ErrorInfo(type="Exception", message="no error was recorded")


class _NoData:
    """Stands for data that was not given, where None is data."""

    def __repr__(self) -> str:
        return "nothing"


_NO_DATA: Final = _NoData()


@final
class RunHandle(Conversation, Generic[R_co]):
    """One run, whether it goes on or has ended.

    Every method may raise `NotFound` (no such run in this namespace), `Unauthorized` and
    `Unavailable`.

    Attributes:
        id: the run's id.
    """

    __slots__ = ("_current", "_monotonic", "_port", "_workflow", "id")

    id: str

    def __init__(
        self, port: ClientPort, run_id: str, workflow: AnyWorkflow | None, monotonic: Monotonic
    ) -> None:
        """Use `Client.start` or `Client.get`."""
        self.id = run_id
        self._port = port
        self._workflow = workflow
        self._monotonic = monotonic
        # Where the run goes on now: its own id, or that of the last run which continued it.
        self._current = run_id

    def __repr__(self) -> str:
        name = "" if self._workflow is None else f" of {self._workflow.key}"
        return f"<run {self.id}{name}>"

    # --- How it is --------------------------------------------------------------------------------

    async def status(self) -> RunStatus:
        """Return what the run is doing now."""
        return (await self.info()).status

    async def info(self, *, follow: bool = True) -> RunInfo:
        """Return all that is known of the run now.

        Args:
            follow: whether to describe the run that goes on, if this one continued as new.
        """
        if not follow:
            return await self._port.get(self.id)
        while True:
            info = await self._port.get(self._current)
            if info.continued_as is None:
                return info
            self._current = info.continued_as

    async def history(self) -> list[JournalEntry]:
        """Return this run's whole journal, in order."""
        entries: list[JournalEntry] = []
        while True:
            after = entries[-1].seq if entries else 0
            page = await self._port.journal(self.id, after=after, limit=PAGE_SIZE_MAX)
            entries.extend(page)
            if len(page) < PAGE_SIZE_MAX:
                return entries

    def updates(self, after: int | None = None) -> Updates:
        """Return this run's updates as an async iterator; it ends with the run.

        Args:
            after: begin after this seq. Default: from the first entry.

        Raises:
            InvalidRequest: if `after` is not a seq.
        """
        start = cast("object", 0 if after is None else after)
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            message = f"after={after!r} is not valid: pass the seq of an update, 0 or more"
            raise InvalidRequest(message)
        return Updates(self._port, self.id, start)

    # --- Waiting for it ---------------------------------------------------------------------------

    async def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the run's end and return its result.

        The result has the workflow's return type if the client knows the workflow, else it is the
        JSON value.

        Args:
            timeout: seconds or a timedelta to wait; 0 does not wait. Default: as long as it takes.

        Raises:
            RunFailed: with the run's `error`.
            RunCancelled: with the `reason`; `RunTerminated` if it was ended by force.
            ResultTimeout: the run did not end in time; it goes on.
            RecordedTypeMismatch: the result does not fit the workflow's return type any more.
        """
        deadline = Deadline.after(timeout, self._monotonic)
        while True:
            outcome = await self._port.result(self._current, wait_s=deadline.left_s())
            if outcome is None:
                deadline.check(self._current, "end")
            elif outcome.continued_as is not None:
                self._current = outcome.continued_as
            else:
                return self._value(outcome)

    def _value(self, outcome: Outcome) -> R_co:
        if outcome.status is RunStatus.FAILED:
            raise RunFailed(outcome.error or _NO_ERROR, run_id=self._current)
        if outcome.status is RunStatus.CANCELLED:
            kind = RunTerminated if outcome.terminated else RunCancelled
            raise kind(outcome.reason or "", run_id=self._current)
        assert outcome.status is RunStatus.COMPLETED, f"{outcome.status} is not an outcome"
        if self._workflow is None:
            return cast("R_co", outcome.output)
        return cast("R_co", self._workflow.decode_output(outcome.output))

    async def wait(self, status: StatusWords, timeout: Duration | None = None) -> RunStatus:
        """Wait until the run has a status, and return it.

        A status that the run enters and leaves while this waits counts, however short it was.

        Args:
            status: one status or several, as members or as words.
            timeout: seconds or a timedelta to wait. Default: as long as it takes.

        Raises:
            RunEnded: the run has ended with another status.
            ResultTimeout: the run did not get there in time; it goes on.
            InvalidRequest: there is no such status.
        """
        wanted = check_statuses(status)
        if not wanted:
            message = f"status={status!r} is not valid: pass at least one status"
            raise InvalidRequest(message)
        deadline = Deadline.after(timeout, self._monotonic)
        words = " or ".join(wanted)
        while True:
            info = await self.info()
            if info.status in wanted:
                return info.status
            if info.status.terminal:
                raise RunEnded(f"wait until it is {words}", info.status, run_id=info.id)
            deadline.check(info.id, f"become {words}")
            seen = await self._watch(info, wanted, deadline)
            if seen is not None:
                return seen

    async def _watch(
        self, info: RunInfo, wanted: tuple[RunStatus, ...], deadline: Deadline
    ) -> RunStatus | None:
        """Read the updates after `info` until one has a wanted status; None: look again."""
        stream = self._port.updates(info.id, after=info.seq, wait_s=deadline.left_s())
        async with stream as updates:
            async for update in updates:
                # Completion is looked at again, for it may be that of a run that continued as new.
                if update.status in wanted and update.status is not RunStatus.COMPLETED:
                    return update.status
                if update.status.terminal:
                    return None
        return None

    # --- Talking to it ----------------------------------------------------------------------------

    @overload
    async def send(
        self, event: Event[None], *, reference_id: str | None = None
    ) -> EventReceipt: ...

    @overload
    async def send(
        self, event: Event[D], data: D, *, reference_id: str | None = None
    ) -> EventReceipt: ...

    @overload
    async def send(
        self, event: str, data: object = None, *, reference_id: str | None = None
    ) -> EventReceipt: ...

    async def send(
        self, event: Event[Any] | str, data: object = _NO_DATA, *, reference_id: str | None = None
    ) -> EventReceipt:
        """Send an event; when this returns it is durable, and the workflow will get it once.

        Args:
            event: the event, or its name. By name the data is checked here only if the client
                knows the workflow.
            data: what it carries.
            reference_id: your own name for this sending; sent again with the same name it is
                acknowledged and dropped, so that it can be repeated safely.

        Raises:
            PayloadError: the data does not fit the event's type.
            UnknownEvent: the workflow declares no event of this name.
            RunEnded: the run has ended.
        """
        value = None if data is _NO_DATA else data
        if isinstance(event, str):
            name, body = event, self._encode_event(event, value)
        else:
            name, body = _encode_typed(event, value)
        request = SendRequest(event=name, data=body, reference_id=reference_id)
        return await self._following(lambda run_id: self._port.send(run_id, request))

    def _encode_event(self, name: str, data: object) -> JsonValue:
        if self._workflow is not None:
            return self._workflow.event(name).encode(data)
        return encode_payload(data, what=f"event {name!r}")

    # --- Commands ---------------------------------------------------------------------------------

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the run to unwind: its tasks are cancelled, its compensations run, then it ends.

        Raises:
            RunEnded: the run has ended otherwise. Cancelling a cancelled run does nothing.
        """
        await self._control(ControlRequest(command=ControlCommand.CANCEL, reason=reason))

    async def terminate(self, reason: str | None = None) -> None:
        """End the run at once, without running any of its code, compensations included.

        Raises:
            RunEnded: the run has ended otherwise.
        """
        await self._control(ControlRequest(command=ControlCommand.TERMINATE, reason=reason))

    async def pause(self, reason: str | None = None) -> None:
        """Let nothing of the run be executed; its waits go on elapsing, its events arriving.

        Raises:
            RunEnded: the run has ended.
        """
        await self._control(ControlRequest(command=ControlCommand.PAUSE, reason=reason))

    async def resume(self) -> None:
        """Lift a pause.

        Raises:
            RunEnded: the run has ended.
        """
        await self._control(ControlRequest(command=ControlCommand.RESUME))

    async def wake(self, sleep: str | None = None) -> None:
        """End a sleep now; the workflow sees `Slept.WOKEN`.

        Args:
            sleep: the sleep's name. Default: the one that ends first.

        Raises:
            IllegalTransition: the run does not sleep.
        """
        await self._control(ControlRequest(command=ControlCommand.WAKE, sleep=sleep))

    async def requeue(self) -> None:
        """Let a stalled run try again.

        Raises:
            IllegalTransition: the run is not stalled.
        """
        await self._control(ControlRequest(command=ControlCommand.REQUEUE))

    async def retry(self) -> None:
        """Send a failed run round again; it keeps what it has completed.

        Raises:
            IllegalTransition: the run has not failed.
        """
        await self._control(ControlRequest(command=ControlCommand.RETRY))

    async def fork(
        self,
        at: int,
        *,
        input: tuple[Any, ...] | Mapping[str, Any] | None = None,  # noqa: A002  (the run's word)
        overrides: Mapping[int, object] | None = None,
        version: str | None = None,
    ) -> "RunHandle[R_co]":
        """Make a new run of what this one had recorded up to an entry, and return a handle on it.

        The new run begins with the results, events and values that stand in the journal up to `at`,
        and does the rest itself; this run is not touched.

        Args:
            at: the last entry that counts, by seq; see `history`.
            input: other arguments: positional ones as a tuple, or all by name as a mapping. By
                position only if the client knows the workflow. Default: those of this run.
            overrides: other results of tasks, by the seq of the `task-succeeded` entry.
            version: another version of the workflow. Default: the same.

        Raises:
            InvalidRequest: there is no such entry, or an override names no task result up to it.
            UnknownWorkflow: the server does not know this version.
            PayloadError: the arguments or a result cannot travel, or do not fit.
        """
        request = fork_request(self._workflow, at, input, overrides or {}, version)
        result = await self._port.fork(self.id, request)
        code = self._workflow if is_of(self._workflow, version) else None
        return RunHandle(self._port, result.run_id, code, self._monotonic)

    async def _control(self, request: ControlRequest) -> None:
        await self._following(lambda run_id: self._port.control(run_id, request))

    async def _following(self, act: Callable[[str], Awaitable[T]]) -> T:
        """Act on the run, or on the one that goes on in its place if it has ended for that."""
        while True:
            asked = self._current  # another task may follow it meanwhile
            try:
                return await act(asked)
            except RunEnded:
                if (await self.info()).id == asked:
                    raise


def _encode_typed(event: Event[Any], data: object) -> tuple[str, JsonValue]:
    if not isinstance(cast("object", event), Event):
        message = (
            f"event={event!r} is not valid: pass an Event or the name of one, "
            f"not {type_name(type(event))}"
        )
        raise InvalidRequest(message)
    return event.name, event.encode(data)
