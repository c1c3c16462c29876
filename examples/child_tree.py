"""A tree of runs: a workflow that starts itself for every part of its work.

Each child is a run of its own, with a journal, retries and a status of its own. These are cancelled
if their parent ends before them. (`await run.call(workflow, ...)` is shorter where a child is to be
started and waited for at one place.) Run it with `python -m examples.child_tree`.
"""

from __future__ import annotations

import trio
from attrs import frozen

import aiki_trio
from aiki_sdk import Client, Run, task, workflow


@frozen
class Folder:
    name: str
    files: dict[str, int]  # name -> bytes
    folders: tuple[Folder, ...] = ()


TREE = Folder(
    "photos",
    {"index.html": 2_000},
    (
        Folder("2024", {"sea.jpg": 40_000}, (Folder("raw", {"sea.raw": 900_000}),)),
        Folder("2025", {"snow.jpg": 55_000, "fire.jpg": 61_000}),
    ),
)


@task
async def size_of(files: dict[str, int]) -> int:
    return sum(files.values())


@workflow("measure", "1.0.0")
async def measure(run: Run, folder: Folder) -> int:
    children = [
        await run.start_child(
            measure, part, reference_id=f"{run.reference_id}/{part.name}", on_parent_end="cancel"
        )
        for part in folder.folders
    ]  # from here on they run at the same time, also while this run measures its own files
    own = await size_of(folder.files)
    parts = await run.gather(*[child.result() for child in children])
    return own + sum(parts)


async def show(client: Client, run_id: str, depth: int = 0) -> None:
    """Print a run and, below it, its children."""
    handle = await client.get(run_id, workflow=measure)
    info = await handle.info()
    print(f"{'  ' * depth}{info.reference_id}: {info.status}, {await handle.result()} bytes")
    for child_id in info.children:
        await show(client, child_id, depth + 1)


async def main() -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[measure]) as runtime:
        handle = await runtime.client.start(measure, TREE, reference_id=TREE.name)
        await handle.result()
        await show(runtime.client, handle.id)


if __name__ == "__main__":
    trio.run(main)
