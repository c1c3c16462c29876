"""Human approval: whatever comes first, a decision or the next reminder, and at last a deadline.

`run.race` cancels what did not win, and has the same winner on every replay. The manager's answer
is a *question*: whoever decides hears at once whether the decision was taken. Days pass in an
instant here, in the test kit. Run it with `python -m examples.approval`.
"""

from __future__ import annotations

from datetime import timedelta

from attrs import frozen

from aiki_sdk import AskRejected, Question, Run, task, workflow
from aiki_trio.testing import Aiki, run as run_in_virtual_time

REMINDERS = 3


@frozen
class Decision:
    by: str
    approved: bool
    comment: str = ""


def _explained(decision: Decision) -> None:
    if not decision.approved and not decision.comment:
        raise ValueError("say why you refuse")


decide = Question("decide", Decision, str, _explained)  # asked with a Decision, answered with a str


@task
async def remind(manager: str, day: int) -> None:
    print(f"  day {day}: {manager}, an expense waits for you")


@task
async def pay_out(cents: int) -> None:
    print(f"  {cents / 100:.2f} paid out")


@workflow("expense", "1.0.0", questions=[decide])
async def expense(run: Run, manager: str, cents: int) -> str:
    for day in range(1, REMINDERS + 1):
        winner, ask = await run.race(decided=run.answer(decide), late=run.sleep("wait", days=1))
        if winner == "decided":
            decision: Decision = ask.data
            await ask.answer(f"noted, {decision.by}")
            if decision.approved:
                await pay_out(cents)
                return "approved"
            return f"refused: {decision.comment}"
        await remind(manager, day)
    return "expired"


async def main() -> None:
    async with Aiki() as aiki:
        print("decided on day 2:")
        handle = await aiki.start(expense, "mia", 12_000)
        await aiki.sleep(timedelta(days=1, hours=5))
        try:
            await handle.ask(decide, Decision("mia", approved=False))
        except AskRejected as error:
            print(f"  rejected: {error.reason}")
        answer = await handle.ask(decide, Decision("mia", approved=True))
        result = await handle.result()  # the answer was heard before, while the run went on
        print(f"  answer: {answer}")
        print(f"  result: {result}")
        print("never decided:")
        print(f"  result: {await (await aiki.start(expense, 'noah', 900)).result()}")


if __name__ == "__main__":
    run_in_virtual_time(main)
