"""Lists of runs: await one for a page, or iterate over all pages; and what they are filtered by."""

from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypedDict, cast, final

from attrs import evolve

from aiki_sdk._error_info import type_name
from aiki_sdk._errors import InvalidRequest
from aiki_sdk._workflow import AnyWorkflow, Workflow
from aiki_sdk.client._words import StatusWords, check_statuses
from aiki_sdk.protocol import ClientPort, RunPage, RunQuery, RunSummary, UpdateQuery
from aiki_sdk.protocol._requests import check_labels, check_time

_NO_FILTERS: Final[Mapping[str, object]] = {}


class RunFilters(TypedDict, total=False):
    """What `Client.list` and `Client.count` take; a run is meant if all that are given hold.

    Attributes:
        status: one status or several, as members or as words.
        workflow: a workflow (every version of it) or its name.
        version: the workflow's version.
        reference_id: the reference id.
        parent_id: the run that started it as its child.
        labels: labels that it carries, all of them.
        created_after: it was created then or later; an aware datetime.
        created_before: it was created before then; an aware datetime.
        query: words; each is found in the run's id, workflow or reference id.
        undeliverable: true: it is queued, and no worker that is connected has its workflow and
            version and serves its pool.
    """

    status: StatusWords | None
    workflow: AnyWorkflow | str | None
    version: str | None
    reference_id: str | None
    parent_id: str | None
    labels: Mapping[str, str]
    created_after: datetime | None
    created_before: datetime | None
    query: str | None
    undeliverable: bool


_FILTER_NAMES: Final = frozenset(RunFilters.__annotations__)


def run_query(filters: RunFilters) -> RunQuery:
    """Make a query of filters.

    Raises:
        InvalidRequest: naming the filter and its value.
        TypeError: if there is no such filter.
    """
    unknown = sorted(filters.keys() - _FILTER_NAMES)
    if unknown:
        known = ", ".join(sorted(_FILTER_NAMES))
        message = f"there is no filter {unknown[0]!r}; filters are {known}"
        raise TypeError(message)
    return RunQuery(
        status=check_statuses(filters.get("status")),
        workflow=workflow_name(filters.get("workflow")),
        version=filters.get("version"),
        reference_id=filters.get("reference_id"),
        parent_id=filters.get("parent_id"),
        labels=check_labels("labels", filters.get("labels", _NO_FILTERS)),
        created_after=_time("created_after", filters.get("created_after")),
        created_before=_time("created_before", filters.get("created_before")),
        query=filters.get("query"),
        undeliverable=_flag("undeliverable", filters.get("undeliverable", False)),
    )


def update_query(run_ids: object, workflow: object, status: StatusWords | None) -> UpdateQuery:
    """Make a query of what `Client.updates` takes.

    Raises:
        InvalidRequest: naming the filter and its value.
    """
    if isinstance(run_ids, str) or not isinstance(run_ids, Iterable):
        message = f"run_ids={run_ids!r} is not valid: pass several ids, such as a list"
        raise InvalidRequest(message)
    given: Iterable[object] = (workflow,)
    if not isinstance(workflow, str) and isinstance(workflow, Iterable):
        given = cast("Iterable[object]", workflow)
    names = [workflow_name(item) for item in given]
    return UpdateQuery(
        run_ids=tuple(dict.fromkeys(cast("Iterable[str]", run_ids))),
        workflows=tuple(dict.fromkeys(name for name in names if name is not None)),
        statuses=check_statuses(status),
    )


def workflow_name(workflow: object) -> str | None:
    """Return the name of a workflow that is given as itself or by name; None for None.

    Raises:
        InvalidRequest: if it is neither.
    """
    if isinstance(workflow, Workflow):
        return cast("AnyWorkflow", workflow).name
    if workflow is None or isinstance(workflow, str):
        return workflow
    message = (
        f"workflow={workflow!r} is not valid: pass a @workflow function or the name of one, "
        f"not {type_name(type(workflow))}"
    )
    raise InvalidRequest(message)


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    message = f"{name}={value!r} is not valid: pass True or False"
    raise InvalidRequest(message)


def _time(name: str, value: object) -> datetime | None:
    return None if value is None else check_time(name, value)


@final
class RunList:
    """The runs that match a query, the newest first.

    ::

        page = await client.list(status="failed")  # one page, with a cursor
        async for run in client.list(status="failed"):
            ...  # all of them, page by page

    Iterating again begins again.
    """

    __slots__ = ("_port", "_query")

    def __init__(self, port: ClientPort, query: RunQuery) -> None:
        """Use `Client.list`."""
        self._port = port
        self._query = query

    def __await__(self) -> Generator[Any, Any, RunPage]:
        return self._port.list(self._query).__await__()

    def __aiter__(self) -> AsyncIterator[RunSummary]:
        return _RunIterator(self._port, self._query)


@final
class _RunIterator(AsyncIterator[RunSummary]):
    """Fetches the next page when the one before is used up; holds nothing open in between."""

    __slots__ = ("_port", "_query", "_rows")

    def __init__(self, port: ClientPort, query: RunQuery) -> None:
        self._port = port
        self._query: RunQuery | None = query
        self._rows: list[RunSummary] = []  # of the current page, the next one last

    async def __anext__(self) -> RunSummary:
        while not self._rows:
            if self._query is None:
                raise StopAsyncIteration
            page = await self._port.list(self._query)
            self._rows = list(reversed(page.runs))
            # Changed after the await only, so that a cancelled or failed read can be repeated.
            self._query = None if page.cursor is None else evolve(self._query, cursor=page.cursor)
        return self._rows.pop()
