"""What an edit of a workflow does to a live run: as `aiki replay` says, and as it happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from aiki_sdk import AnyWorkflow, RunStatus, WorkflowRegistry
from aiki_trio.cli._modules import load_workflows
from aiki_trio.cli._replay import Verdict, judge
from aiki_trio.testing import Journal, export_journal
from tests.integration.code_changes import EDITS, Edit
from tests.integration.runtimes import file_runtime

PATIENCE_S = 20


def module(folder: Path, name: str, text: str) -> tuple[AnyWorkflow, ...]:
    """Save a module under a name of its own and return its workflows."""
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return load_workflows(str(folder / f"{name}.py"), folder)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
async def test_an_edit_does_to_a_live_run_what_the_page_says(edit: Edit, tmp_path: Path) -> None:
    """A run on the old code waits for an event; the new code gets it, and the event."""
    unique = edit.name.replace("-", "_")
    old = module(tmp_path, f"{unique}_old", edit.old)
    new = module(tmp_path, f"{unique}_new", edit.new)
    with trio.fail_after(PATIENCE_S):
        journal = await waiting_run(tmp_path, old)

        judgement = judge(journal, "the run", WorkflowRegistry(new))
        assert judgement.verdict == edit.verdict, judgement.report
        assert judgement.live

        await check_what_happens(tmp_path, new, journal, edit.verdict)


async def waiting_run(folder: Path, workflows: tuple[AnyWorkflow, ...]) -> Journal:
    """Start a run on the old code, let it come to its wait, and return its journal."""
    async with file_runtime(folder / "runs.db", *workflows) as runtime:
        handle = await runtime.client.start("order", {"cents": 500})
        await handle.wait("awaiting_event")
        return await export_journal(handle)


async def check_what_happens(
    folder: Path, workflows: tuple[AnyWorkflow, ...], journal: Journal, verdict: Verdict
) -> None:
    """Give the run to the new code, send what it waits for, and see."""
    async with file_runtime(folder / "runs.db", *workflows) as runtime:
        handle = await runtime.client.get(journal.run_id)
        await handle.send("go", 1)
        if verdict is Verdict.NEEDS_VERSION:
            await handle.wait("queued")
            await runtime.recovered()
            assert await handle.status() is RunStatus.QUEUED
            return
        status = await handle.wait(["completed", "failed", "stalled"])
        info = await handle.info()
        if verdict is Verdict.SAFE:
            assert status is RunStatus.COMPLETED, info.error
        else:
            assert status is RunStatus.FAILED
            assert info.error is not None
            assert info.error.code in {"divergence", "recorded-type-mismatch"}


def test_the_names_of_edits_are_unique() -> None:
    names = [edit.name for edit in EDITS]
    assert len(names) == len(set(names))
