"""Fan-out: one workflow calls a task for each of 1,000 items, at most 50 at once.

Every item is recorded by itself: after a crash only the calls that were not finished are made
again. Run it with `python -m examples.fan_out`.
"""

from __future__ import annotations

import trio
from attrs import frozen

import aiki_trio
from aiki_sdk import Retry, Run, task, workflow

IMAGES = 1_000
AT_ONCE = 50


@frozen
class Image:
    name: str
    width: int
    height: int


@frozen
class Summary:
    images: int
    kilobytes: int


class Gauge:
    """Counts how many of the tasks run at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_error: object) -> None:
        self.now -= 1


GAUGE = Gauge()


@task(retry=Retry.jittered(max_attempts=3, base_delay=0.1), timeout=30)
async def make_thumbnail(image: Image) -> int:
    """Scale an image down, and return the bytes of what came out."""
    with GAUGE:
        await trio.sleep(0.001)  # the real work
        return image.width * image.height // 100


@workflow("thumbnails", "1.0.0")
async def thumbnails(run: Run, images: list[Image]) -> Summary:
    sizes = await run.map(make_thumbnail, images, limit=AT_ONCE)  # in the order of the images
    return Summary(len(sizes), sum(sizes) // 1024)


async def main() -> None:
    images = [Image(f"{number}.png", 640 + number, 480) for number in range(IMAGES)]
    async with aiki_trio.open_runtime("memory://", workflows=[thumbnails]) as runtime:
        handle = await runtime.client.start(thumbnails, images)
        summary = await handle.result()
        print(f"{summary.images} thumbnails, {summary.kilobytes} kB")
        done = [entry for entry in await handle.history() if entry.kind == "task-succeeded"]
        print(f"{len(done)} results in the journal")
        print(f"never more than {AT_ONCE} at once: {GAUGE.most <= AT_ONCE}")


if __name__ == "__main__":
    trio.run(main)
