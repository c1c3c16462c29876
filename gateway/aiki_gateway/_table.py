"""The route table: every path and method that there is, with all that is to be known of it."""

from __future__ import annotations

from typing import Final

from aiki_sdk.protocol import (
    ControlCommand,
    EventReceipt,
    ForkRequest,
    Health,
    Outcome,
    RunInfo,
    RunPage,
    StartRequest,
    StartResult,
    TreeNode,
)

from . import _control, _live, _runs, _system
from ._bodies import (
    Alive,
    BulkAnswers,
    BulkBody,
    Count,
    Journal,
    Pending,
    SendBody,
    StartAnswers,
    StartBatch,
    Workers,
    Workflows,
)
from ._call import Param
from ._params import FILTERS, NAME, PAGE, PLACE, STATUS, TEXT
from ._routes import Access, Answer, Link, Route

_RUN_LINK: Final = {"run_id": "$response.body#/run_id"}
_STARTED_LINKS: Final = {
    "get": Link(operation="getRun", parameters=_RUN_LINK),
    "result": Link(operation="getResult", parameters=_RUN_LINK),
    "journal": Link(operation="getJournal", parameters=_RUN_LINK),
    "cancel": Link(operation="cancelRun", parameters=_RUN_LINK),
}
_STARTED: Final = {
    201: Answer(about="The run was started.", type=StartResult),
    200: Answer(about="The run that the reference id names.", type=StartResult),
}

_COMMANDS: Final = {
    ControlCommand.CANCEL: "Cancel a run: its code may still clean up.",
    ControlCommand.TERMINATE: "End a run at once, without running any of its code.",
    ControlCommand.PAUSE: "Let a run do nothing until it is resumed.",
    ControlCommand.RESUME: "Let a paused run go on.",
    ControlCommand.WAKE: "End a sleep of a run now.",
    ControlCommand.REQUEUE: "Have a run that is stalled, or whose worker hangs, executed anew.",
    ControlCommand.RETRY: "Start the next attempt of a run that waits for it now.",
}

RUNS: Final = (
    Route(
        method="POST",
        path="/v1/runs",
        operation="startRun",
        summary="Start a run, or find the one that the reference id names.",
        handler=_runs.start_run,
        body=StartRequest,
        body_optional=("input_hash",),
        answers=_STARTED,
        errors=(404, 409),
        links=_STARTED_LINKS,
        idempotency=True,
    ),
    Route(
        method="GET",
        path="/v1/runs",
        operation="listRuns",
        summary="List the runs that match, the newest first.",
        handler=_runs.list_runs,
        query=(*FILTERS, *PAGE),
        answers={200: Answer(about="A page of runs.", type=RunPage)},
    ),
    Route(
        method="POST",
        path="/v1/runs/batch",
        operation="startRuns",
        summary="Start many runs; each succeeds or fails by itself.",
        handler=_runs.start_batch,
        body=StartBatch,
        answers={200: Answer(about="One answer per run, in order.", type=StartAnswers)},
        idempotency=True,
    ),
    Route(
        method="POST",
        path="/v1/runs/bulk",
        operation="bulk",
        summary="Do one thing to many runs; each is done or not by itself.",
        handler=_control.bulk,
        body=BulkBody,
        answers={200: Answer(about="One answer per run, in order.", type=BulkAnswers)},
        idempotency=True,
    ),
    Route(
        method="GET",
        path="/v1/runs/count",
        operation="countRuns",
        summary="Count the runs that match.",
        handler=_runs.count_runs,
        query=FILTERS,
        answers={200: Answer(about="How many there are.", type=Count)},
    ),
    Route(
        method="GET",
        path="/v1/runs/find",
        operation="findRun",
        summary="Find the run that holds a reference id of a workflow.",
        handler=_runs.find_run,
        query=(
            Param(name="workflow", schema=NAME, about="The workflow.", required=True),
            Param(name="reference_id", schema=TEXT, about="The reference id.", required=True),
        ),
        answers={200: Answer(about="The run.", type=RunInfo)},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/runs/{run_id}",
        operation="getRun",
        summary="Show all that is known of a run now, its journal aside.",
        handler=_runs.get_run,
        answers={200: Answer(about="The run.", type=RunInfo)},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/runs/{run_id}/journal",
        operation="getJournal",
        summary="Show a part of a run's history.",
        handler=_runs.journal,
        query=(
            Param(name="after", schema=PLACE, about="Entries with a seq above this."),
            Param(
                name="limit",
                schema={"type": "integer", "minimum": 1, "maximum": 500, "default": 500},
                about="At most so many.",
            ),
        ),
        answers={200: Answer(about="The entries; none: there are no more.", type=Journal)},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/v1/runs/{run_id}/result",
        operation="getResult",
        summary="Wait for a run's end.",
        handler=_runs.result,
        query=(
            Param(
                name="wait",
                schema={"type": "number", "minimum": 0, "maximum": 60, "default": 0},
                about="Seconds to wait.",
            ),
        ),
        answers={
            200: Answer(about="How it ended.", type=Outcome),
            202: Answer(about="It has not ended yet.", type=Pending),
        },
        errors=(404,),
        waits=True,
    ),
    Route(
        method="POST",
        path="/v1/runs/{run_id}/events/{name}",
        operation="sendEvent",
        summary="Send an event to a run.",
        handler=_control.send_event,
        body=SendBody,
        body_may_be_absent=True,
        answers={200: Answer(about="It is durable.", type=EventReceipt)},
        errors=(404, 409),
        idempotency=True,
    ),
    Route(
        method="POST",
        path="/v1/runs/{run_id}/questions/{name}",
        operation="askQuestion",
        summary="Ask a run a question; the answer is in its journal.",
        handler=_control.ask_question,
        body=SendBody,
        body_may_be_absent=True,
        answers={200: Answer(about="It is durable.", type=EventReceipt)},
        errors=(404, 409),
        idempotency=True,
    ),
    *(
        Route(
            method="POST",
            path=f"/v1/runs/{{run_id}}/{command.value}",
            operation=f"{command.value}Run",
            summary=summary,
            handler=_control.control(command),
            body=_control.control_body(command),
            body_may_be_absent=True,
            answers={204: Answer(about="Done, or already in effect.")},
            errors=(404, 409),
        )
        for command, summary in _COMMANDS.items()
    ),
    Route(
        method="POST",
        path="/v1/runs/{run_id}/fork",
        operation="forkRun",
        summary="Make a new run of what a run had recorded up to an entry.",
        handler=_runs.fork,
        body=ForkRequest,
        answers={201: Answer(about="The new run.", type=StartResult)},
        errors=(404, 409),
        links=_STARTED_LINKS,
    ),
)

SYSTEM: Final = (
    Route(
        method="GET",
        path="/v1/workflows",
        operation="listWorkflows",
        summary="List the workflows that the server knows.",
        handler=_system.workflows,
        answers={200: Answer(about="The workflows.", type=Workflows)},
    ),
    Route(
        method="GET",
        path="/v1/workers",
        operation="listWorkers",
        summary="List the workers that are connected.",
        handler=_system.workers,
        answers={200: Answer(about="The workers.", type=Workers)},
    ),
    Route(
        method="GET",
        path="/v1/tree",
        operation="showTree",
        summary="Show the live actor tree.",
        handler=_system.tree,
        answers={200: Answer(about="The tree, from its root down.", type=TreeNode)},
    ),
    Route(
        method="GET",
        path="/v1/health",
        operation="showHealth",
        summary="Show how this server is, with all its components.",
        handler=_system.health,
        answers={200: Answer(about="How it is.", type=Health)},
    ),
    Route(
        method="GET",
        path="/healthz",
        operation="isAlive",
        summary="Tell whether the process answers.",
        handler=_system.alive,
        answers={200: Answer(about="It does.", type=Alive)},
        access=Access.OPEN,
    ),
    Route(
        method="GET",
        path="/readyz",
        operation="isReady",
        summary="Tell whether the server does its work.",
        handler=_system.ready,
        answers={
            200: Answer(about="It does.", type=Health),
            503: Answer(about="It does not.", type=Health),
        },
        access=Access.OPEN,
    ),
)

_NAMESPACE: Final = Param(
    name="namespace", schema=NAME, about="The namespace, where no header can be sent."
)
_FROM: Final = Param(
    name="from",
    schema={"type": "string", "enum": ["latest"]},
    about="`latest`: only what happens from now on.",
)
_EVENTS: Final = "text/event-stream"

LIVE: Final = (
    Route(
        method="GET",
        path="/v1/runs/{run_id}/stream",
        operation="streamRun",
        summary="Stream one run's updates, to its end.",
        stream=_live.run_stream,
        query=(
            Param(name="after", schema=PLACE, about="Updates with a seq above this."),
            _FROM,
            _NAMESPACE,
        ),
        answers={200: Answer(about="Events: update, end.", type=str, content_type=_EVENTS)},
        errors=(404,),
        waits=True,
    ),
    Route(
        method="GET",
        path="/v1/stream",
        operation="stream",
        summary="Stream the updates of all runs that the filters select.",
        stream=_live.namespace_stream,
        query=(
            Param(name="run", schema=TEXT, about="These runs.", many=True),
            Param(name="workflow", schema=NAME, about="These workflows.", many=True),
            Param(name="status", schema=STATUS, about="Changes to these.", many=True),
            _FROM,
            _NAMESPACE,
        ),
        answers={
            200: Answer(about="Events: snapshot, update, end.", type=str, content_type=_EVENTS)
        },
        waits=True,
    ),
)

ABOUT: Final = (
    Route(
        method="GET",
        path="/metrics",
        operation="metrics",
        summary="Show what the server counts, in Prometheus' text format.",
        handler=_system.metrics,
        answers={200: Answer(about="Samples.", type=str, content_type="text/plain")},
    ),
    Route(
        method="GET",
        path="/openapi.json",
        operation="openapi",
        summary="Show this document.",
        handler=_system.openapi,
        answers={200: Answer(about="An OpenAPI 3.1 document.", type=dict)},
        access=Access.OPEN,
    ),
)

ROUTES: Final = (*RUNS, *LIVE, *SYSTEM, *ABOUT)
