"""Where a workload runs: in this process, or on a server and workers in processes of their own.

Either way it is given a `Place`, and asks it for a client of an engine that has run a few small
runs, so that no figure has imports and first connections in it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from attrs import Factory, frozen

from aiki_sdk import AnyWorkflow, Client
from aiki_trio import Runtime, open_runtime
from tests.bench._measuring import Figures, Params, check, limited
from tests.bench._workflows import chain

if TYPE_CHECKING:
    from aiki_trio.testing.cluster import LocalCluster, Managed

Topology: TypeAlias = Literal["embedded", "split", "postgres", "full"]
TOPOLOGIES: Final[tuple[Topology, ...]] = get_args(Topology)
APART: Final[tuple[Topology, ...]] = TOPOLOGIES[1:]

CODE: Final = "tests.bench._workflows"
"""What workers in processes of their own execute."""

WARM_UP_RUNS: Final = 20
WARM_UP_STEPS: Final = 5
WARM_UP_CAP: Final = 10

ROOT: Final = Path(__file__).parents[2]
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@frozen
class Place:
    """One repetition's own place.

    Attributes:
        folder: empty, for the database and whatever else.
        topology: `embedded`: one process; `split`: a server and a worker process, reached by HTTP;
            `postgres`: a server, two workers and PostgreSQL; `full`: the same with Redis Streams.

    """

    folder: Path
    topology: Topology = "embedded"

    def database_url(self) -> str:
        """Return the storage URL of the workload's database in this process."""
        return f"sqlite:///{self.folder / 'bench.db'}"


@frozen
class Workload:
    """One row of the table in the performance specification.

    Attributes:
        name: `w1` to `w8`.
        title: what it does, in one line.
        full: parameters of a measurement.
        quick: parameters that only show that everything works.
        measure: does it once, from this process, in the place that it is given.
        topologies: those that it can be measured in.

    """

    name: str
    title: str
    full: Params
    quick: Params
    measure: Callable[[Params, Place], Figures]
    topologies: tuple[Topology, ...] = TOPOLOGIES


@frozen
class Engine:
    """An engine that is warm.

    Attributes:
        client: of it.
        runtime: the engine itself, if it is in this process.
        processes: its other processes, by name.

    """

    client: Client
    runtime: Runtime | None = None
    processes: Mapping[str, Managed] = Factory(dict)

    def cpu_s(self) -> Figures:
        """Return the seconds that each other process has computed, under names of figures."""
        return {f"{name}_cpu_s": _cpu_s(part.pid) for name, part in self.processes.items()}


def _cpu_s(pid: int) -> float:
    """Return user and system time of a process, from what the system counts."""
    # The second field is the program's name in brackets, which may contain anything.
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


@asynccontextmanager
async def warm_runtime(
    place: Place, workflows: Sequence[AnyWorkflow]
) -> AsyncGenerator[Runtime, None]:
    """Open an embedded runtime with its default settings and have it run a few small runs."""
    async with open_runtime(place.database_url(), workflows=[chain, *workflows]) as runtime:
        await _warm_up(runtime.client)
        yield runtime


@asynccontextmanager
async def warm_engine(
    place: Place, workflows: Sequence[AnyWorkflow]
) -> AsyncGenerator[Engine, None]:
    """Open an engine of the place's topology and have it run a few small runs."""
    if place.topology == "embedded":
        async with warm_runtime(place, workflows) as runtime:
            yield Engine(runtime.client, runtime)
        return
    with local_cluster(place) as cluster:
        async with Client(cluster.url, workflows=[chain, *workflows]) as client:
            await _warm_up(client)
            workers = {part.name.replace("-", "_"): part for part in cluster.workers}
            parts = {"server": cluster.server, **workers}
            yield Engine(client, None, parts)


def local_cluster(place: Place) -> LocalCluster:
    """Return server, workers and what they stand on, by default settings; entering starts them."""
    # Not above: a process of W6 would import pytest with it, in the time that is measured.
    from aiki_trio.testing.cluster import LocalCluster

    return LocalCluster(
        CODE,
        count=1 if place.topology == "split" else 2,
        postgres=place.topology != "split",
        redis=place.topology == "full",
        folder=place.folder,
        environment={"PYTHONPATH": str(ROOT), "AIKI_LOG_LEVEL": "info"},
    )


async def _warm_up(client: Client) -> None:
    async def one(number: int) -> None:
        await run_chain(client, number, WARM_UP_STEPS)

    await limited(WARM_UP_RUNS, WARM_UP_CAP, one)


async def run_chain(client: Client, number: int, steps: int) -> None:
    """Run a chain of tasks and check its result."""
    handle = await client.start(chain, number, steps)
    check(actual=await handle.result(), expected=number + steps, what=f"result of {handle.id}")
