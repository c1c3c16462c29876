"""An agent: a model that calls tools until it knows the answer, and streams what it says.

Answers of the model and of tools are recorded: after a crash in the middle nothing that was paid
for is asked again. `current_task().progress` shows something to whoever watches; it is not kept.
`SCRIPT` stands for the model. Run it with `python -m examples.agent`.
"""

from __future__ import annotations

import trio
from attrs import frozen

import aiki_trio
from aiki_sdk import Retry, Run, SyncTask, Task, current_task, task, workflow


@frozen
class Turn:
    text: str
    calls: tuple[tuple[str, str], ...] = ()  # tools that the model wants to be called, with what


SCRIPT = (
    Turn("I look both up.", (("weather", "Oslo"), ("weather", "Rome"))),
    Turn("I subtract.", (("subtract", "31 12"),)),
    Turn("Rome is 19 degrees warmer than Oslo."),
)


@task(retry=Retry.jittered(max_attempts=5, base_delay=1), timeout=120)
async def ask_model(conversation: list[str]) -> Turn:
    await trio.sleep(0.1)  # call your model here
    turn = SCRIPT[sum(message.startswith("model: ") for message in conversation)]
    for word in turn.text.split():
        current_task().progress(word)
        await trio.sleep(0.005)
    return turn


@task
async def weather(city: str) -> str:
    return {"Oslo": "12", "Rome": "31"}[city]


@task
def subtract(numbers: str) -> str:
    first, second = numbers.split()
    return str(int(first) - int(second))


tools: dict[str, Task[[str], str] | SyncTask[[str], str]]
tools = {"weather": weather, "subtract": subtract}


@workflow("agent", "1.0.0")
async def agent(run: Run, question: str) -> str:
    async def use(call: tuple[str, str]) -> str:
        tool, argument = call
        return f"{tool}({argument}) = {await tools[tool](argument)}"

    conversation = [question]
    while (turn := await ask_model(conversation)).calls:
        results = await run.map(use, turn.calls)  # all at once, in the order of the calls
        await run.publish("results", results)
        conversation += [f"model: {turn.text}", *results]
    return turn.text


async def main() -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[agent]) as runtime:
        handle = await runtime.client.start(agent, "How much warmer is Rome than Oslo?")
        async for update in handle.updates():  # ends with the run
            if update.kind in {"task-progress", "value-published"} and update.body is not None:
                print(f"{update.kind}: {update.body['value']}")
        print("answer:", await handle.result())


if __name__ == "__main__":
    trio.run(main)
