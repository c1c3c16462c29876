"""Coming from Celery: the same job, with what a task queue leaves to you taken care of.

The old code: tasks that hand over to each other, and one that polls a table of yours::

    @app.task(autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=5)
    def fetch_report(month):
        return http.get(f"/reports/{month}").text

    @app.task(bind=True, max_retries=None)
    def wait_for_approval(self, report, month):
        if not Approval.objects.filter(month=month).exists():
            raise self.retry(countdown=3600)
        return report

    chain(fetch_report.s(month), wait_for_approval.s(month), publish_report.s())
        .apply_async(task_id=f"report-{month}")

What becomes of it, besides the code below: `group` and `chord` are `run.gather` and `run.map`,
`countdown=` and `eta=` are `delay=` and `at=` of `client.start`, and `AsyncResult(id).get()` is
`await handle.result()`. There is nothing like `acks_late`: what a lost worker had completed is in
the journal, the rest is done again. Run it with `python -m examples.from_celery`.
"""

from __future__ import annotations

import trio

import aiki_trio
from aiki_sdk import Event, Retry, Run, current_task, task, workflow

approved = Event("approved", str)  # by whom


@task(retry=Retry.exponential(max_attempts=6, base_delay=0.01, only=(ConnectionError,)))
def fetch_report(month: str) -> str:  # a plain function that blocks, as before: it has a thread
    if current_task().attempt == 1:
        raise ConnectionError("the line is busy")
    return f"report of {month}"


@task
def publish_report(report: str, approver: str) -> str:
    return f"{report}, approved by {approver}"


@workflow("monthly-report", "1.0.0", events=[approved])
async def monthly_report(run: Run, month: str) -> str:
    report = await fetch_report(month)
    approver = await run.wait(approved)  # nobody polls: the run is parked until it is sent
    return await publish_report(report, approver)


async def main() -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[monthly_report]) as runtime:
        starter = runtime.client.options(reference_id="report-2025-05")  # started once
        handle = await starter.start(monthly_report, "2025-05")
        await handle.send(approved, "Maria")
        print(await handle.result())
        failed = [entry for entry in await handle.history() if entry.kind == "attempt-failed"]
        print(f"attempts that failed: {len(failed)}")


if __name__ == "__main__":
    trio.run(main)
