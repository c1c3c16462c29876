"""A handle on one run for plain code: `RunHandle`, each method in a plain call."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast, final, overload

from aiki_sdk._durations import Duration
from aiki_sdk._event import Event
from aiki_sdk._question import Question
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._stepping import run_plain
from aiki_sdk.client._sync_streams import SyncUpdates, SyncValueWatch
from aiki_sdk.client._words import StatusWords
from aiki_sdk.protocol import EventReceipt, JournalEntry, RunInfo, RunStatus

A = TypeVar("A")
D = TypeVar("D")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


@final
class SyncRunHandle(Generic[R_co]):
    """One run, whether it goes on or has ended; the methods are those of `RunHandle`.

    Attributes:
        id: the run's id.
    """

    __slots__ = ("_handle", "id")

    id: str

    def __init__(self, handle: RunHandle[R_co]) -> None:
        """Use `SyncClient.start` or `SyncClient.get`."""
        self._handle = handle
        self.id = handle.id

    def __repr__(self) -> str:
        return repr(self._handle)

    def status(self) -> RunStatus:
        """Return what the run is doing now."""
        return run_plain(self._handle.status())

    def info(self, *, follow: bool = True) -> RunInfo:
        """Return all that is known of the run now; see `RunHandle.info`."""
        return run_plain(self._handle.info(follow=follow))

    def history(self) -> list[JournalEntry]:
        """Return this run's whole journal, in order."""
        return run_plain(self._handle.history())

    def updates(self, after: int | None = None) -> SyncUpdates:
        """Return this run's updates as an iterator; see `RunHandle.updates`."""
        return SyncUpdates(self._handle.updates(after))

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the run's end and return its result; see `RunHandle.result`."""
        return run_plain(self._handle.result(timeout))

    def wait(self, status: StatusWords, timeout: Duration | None = None) -> RunStatus:
        """Wait until the run has a status, and return it; see `RunHandle.wait`."""
        return run_plain(self._handle.wait(status, timeout))

    # --- Talking to it ----------------------------------------------------------------------------

    @overload
    def send(self, event: Event[None], *, reference_id: str | None = None) -> EventReceipt: ...

    @overload
    def send(
        self, event: Event[D], data: D, *, reference_id: str | None = None
    ) -> EventReceipt: ...

    @overload
    def send(
        self, event: str, data: object = None, *, reference_id: str | None = None
    ) -> EventReceipt: ...

    def send(
        self, event: Event[Any] | str, *data: Any, reference_id: str | None = None, **named: Any
    ) -> EventReceipt:
        """Send an event; when this returns it is durable; see `RunHandle.send`."""
        sent = self._handle.send(cast("Any", event), *data, reference_id=reference_id, **named)
        return run_plain(sent)

    @overload
    def ask(
        self,
        question: Question[None, A],
        *,
        timeout: Duration | None = None,
        reference_id: str | None = None,
    ) -> A: ...

    @overload
    def ask(
        self,
        question: Question[D, A],
        data: D,
        timeout: Duration | None = None,
        reference_id: str | None = None,
    ) -> A: ...

    def ask(self, question: Question[Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Ask the run a question and wait for its answer; see `RunHandle.ask`."""
        return run_plain(self._handle.ask(question, *args, **kwargs))

    @overload
    def value(self, key: str, type_: type[T]) -> T: ...

    @overload
    def value(self, key: str, type_: type[T], default: D) -> T | D: ...

    @overload
    def value(self, key: str, type_: object = ..., default: object = ...) -> Any: ...

    def value(self, key: str, type_: Any = Any, *default: Any, **named: Any) -> Any:
        """Return what the run published last under a key; see `RunHandle.value`."""
        return run_plain(self._handle.value(key, type_, *default, **named))

    @overload
    def watch(self, key: str, type_: type[T]) -> SyncValueWatch[T]: ...

    @overload
    def watch(self, key: str, type_: object = ...) -> SyncValueWatch[Any]: ...

    def watch(self, key: str, type_: Any = Any) -> SyncValueWatch[Any]:
        """Iterate over what the run publishes under a key; see `RunHandle.watch`."""
        return SyncValueWatch(self._handle.watch(key, type_))

    # --- Commands ---------------------------------------------------------------------------------

    def cancel(self, reason: str | None = None) -> None:
        """Ask the run to unwind; see `RunHandle.cancel`."""
        run_plain(self._handle.cancel(reason))

    def terminate(self, reason: str | None = None) -> None:
        """End the run at once; see `RunHandle.terminate`."""
        run_plain(self._handle.terminate(reason))

    def pause(self, reason: str | None = None) -> None:
        """Let nothing of the run be executed; see `RunHandle.pause`."""
        run_plain(self._handle.pause(reason))

    def resume(self) -> None:
        """Lift a pause; see `RunHandle.resume`."""
        run_plain(self._handle.resume())

    def wake(self, sleep: str | None = None) -> None:
        """End a sleep now; see `RunHandle.wake`."""
        run_plain(self._handle.wake(sleep))

    def requeue(self) -> None:
        """Let a stalled run try again; see `RunHandle.requeue`."""
        run_plain(self._handle.requeue())

    def retry(self) -> None:
        """Send a failed run round again; see `RunHandle.retry`."""
        run_plain(self._handle.retry())

    def fork(
        self,
        at: int,
        *,
        input: tuple[Any, ...] | Mapping[str, Any] | None = None,  # noqa: A002  (the run's word)
        overrides: Mapping[int, object] | None = None,
        version: str | None = None,
    ) -> "SyncRunHandle[R_co]":
        """Make a new run of what this one had recorded; see `RunHandle.fork`."""
        fork = self._handle.fork(at, input=input, overrides=overrides, version=version)
        return SyncRunHandle(run_plain(fork))
