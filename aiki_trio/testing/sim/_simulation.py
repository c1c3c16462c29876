"""`simulate` and `explore`: run a whole cluster in one loop, by seed, and hold it to its promises.

One simulation is one Trio run on a clock that skips time, with a scheduler that follows the seed.
The safety phase has faults; then there are none, and every run has to end. A broken promise ends a
simulation at once, with the last lines of its trace and the command that shows it again.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, Final

import trio
from attrs import define, field, frozen

from aiki_actors.engine import Phase
from aiki_sdk import AikiError, AnyWorkflow, Client, RunHandle, WorkflowRegistry
from aiki_trio.testing._run import run

from ._chance import Chance
from ._clients import ClientLog, SimPort
from ._cluster import Cluster
from ._disk import Disk
from ._effects import Effects, TaskAttempt
from ._nemesis import Nemesis
from ._options import Fault, SimOptions
from ._programs import program
from ._promises import complaints
from ._replays import replay_problems
from ._rest import STRANGERS, leftovers, seen_by_a_stranger
from ._scheduler import deterministic
from ._trace import Trace
from ._workload import random_workload

SETTLE_S: Final = 15.0
"""After the last fault timers have to be punctual from this many seconds on."""

REQUEUE_S: Final = 2.0
"""After the last fault stalled runs are looked for this often."""

LOOKS: Final = 10
LOOK_S: Final = 0.5
"""What is there at each of so many looks, this far apart, is kept by the server, and not in use."""

LOGGERS: Final = ("aiki", "aiki_actors")
"""What the product logs in a simulation is about faults, which are meant: it is switched off."""

HOOKS_LOGGER: Final = "trio.abc.Instrument"
"""Where Trio logs that an instrument raised; a worker without its hooks knows no branches."""

Workload = Callable[["Simulation"], Awaitable[None]]
"""What happens in a simulation: starts runs, sends, waits; asserts what it likes."""


class SimulationFailed(AssertionError):
    """A promise was broken.

    Attributes:
        seed: shows it again.
        options: what the simulation was like.
        promises: which promises, such as `P5`.
        problems: what was broken, a sentence each.

    """

    def __init__(
        self,
        seed: int | str,
        options: SimOptions,
        problems: Sequence[tuple[str, str]],
        trace: Sequence[str],
        replay: str,
    ) -> None:
        self.seed = seed
        self.options = options
        self.promises: tuple[str, ...] = tuple(dict.fromkeys(promise for promise, _ in problems))
        self.problems: tuple[str, ...] = tuple(what for _, what in problems)
        lines = [
            f"seed {seed}: {len(problems)} broken promises",
            *(f"  {promise}: {what}" for promise, what in problems),
            f"options: {options.as_code()}",
            f"the last {len(trace)} lines of the trace:",
            *(f"  {line}" for line in trace),
            f"replay: {replay}",
        ]
        super().__init__("\n".join(lines))


@frozen
class SimReport:
    """What a simulation was that broke no promise.

    Attributes:
        seed: shows it again.
        options: what it was like.
        runs: how many runs there were.
        entries: how many entries their journals have.
        commits: how many commits the storage made.
        attempts: how many attempts of tasks began.
        seconds: how much virtual time passed.
        digest: equal for equal simulations.

    """

    seed: int | str
    options: SimOptions
    runs: int
    entries: int
    commits: int
    attempts: int
    seconds: float
    digest: str


@define(eq=False)
class Simulation:
    """A simulation that runs; what a workload is given.

    Attributes:
        seed: what everything is drawn from.
        options: what it is like.
        client: a client of the cluster; its handles outlast crashes of the server.

    """

    seed: int | str
    options: SimOptions
    workflows: tuple[AnyWorkflow, ...]
    trace: Trace = field(factory=Trace, init=False)
    log: ClientLog = field(factory=ClientLog, init=False)
    disk: Disk = field(init=False)
    effects: Effects = field(init=False)
    cluster: Cluster = field(init=False)
    client: Client = field(init=False)
    problems: list[tuple[str, str]] = field(factory=lambda: list[tuple[str, str]](), init=False)
    _chance: Chance = field(init=False)
    _calm: trio.Event = field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with an empty disk."""
        self._chance = Chance(str(self.seed))
        self.disk = Disk(self.trace, self.broken)
        self.disk.lost_max = self.options.claims_lost_max
        self.effects = Effects(self.disk)

    @property
    def attempts(self) -> list[TaskAttempt]:
        """Every attempt of every task so far, in the order in which they began."""
        return self.effects.attempts

    def random(self, name: str) -> random.Random:
        """Return the generator of chance with this name."""
        return self._chance.of(f"workload/{name}")

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.note("workload", what)

    def broken(self, promise: str, what: str) -> None:
        """Report a broken promise: the simulation ends at once, and fails."""
        self.problems.append((promise, what))
        self.trace.note("BROKEN", f"{promise}: {what}")
        self._scope.cancel()

    async def calm(self) -> None:
        """Wait until no more faults happen."""
        await self._calm.wait()

    async def handle(self, run_id: str) -> RunHandle[Any]:
        """Return a handle on a run."""
        return await self.client.get(run_id)

    async def run(self, workload: Workload) -> None:
        """Run the simulation; see `problems` afterwards."""
        options = self.options
        with self._scope:
            async with trio.open_nursery() as nursery:
                registry = WorkflowRegistry(self.workflows)
                cluster = self.cluster = Cluster(
                    options, self._chance, self.trace, self.disk, self.effects, registry, nursery
                )
                port = SimPort("default", cluster, cluster, self.log, self._chance.of("client"))
                self.client = Client(port, workflows=registry, clock=cluster.clock)
                try:
                    await self._phases(cluster, nursery, workload)
                finally:
                    cluster.close()
                nursery.cancel_scope.cancel()

    async def _phases(self, cluster: Cluster, nursery: trio.Nursery, workload: Workload) -> None:
        options = self.options
        nursery.start_soon(cluster.keep_server)
        for index in range(options.workers):
            nursery.start_soon(cluster.keep_worker, index)
        nursery.start_soon(self._rage, cluster)
        nursery.start_soon(self._requeue)
        nursery.start_soon(self._visit, cluster)
        with trio.move_on_after(options.safety_s + options.liveness_s) as patience:
            await workload(self)
            await self.calm()
            await self.disk.rest()
            # What is still owed between runs is delivered by the second sweep after this, of a
            # server that may have started only now.
            await cluster.present()
            await trio.sleep(4 * options.sweep_s + 2.0)
            self.problems += await self._leftovers(cluster)
        if patience.cancelled_caught:
            self.problems.append(("P1", f"not at rest {options.liveness_s:g} s after all faults"))
        with trio.CancelScope(shield=True):
            self.problems += await complaints(self.disk, self.log, self.effects)

    async def _leftovers(self, cluster: Cluster) -> Sequence[tuple[str, str]]:
        """Return what the server keeps; not what is there for a moment.

        A message may come late, and then there is a claim to refuse, of a run that has ended.
        """
        found: list[tuple[str, str]] = []
        for _ in range(LOOKS):
            server = await cluster.present()
            published = 0 if cluster.queue is None else cluster.queue.published
            found = list(leftovers(server.runtime, self.options.slots, published))
            if not found:
                break
            await trio.sleep(LOOK_S)
        return found

    async def _requeue(self) -> None:
        """Be the operator who lets stalled runs try again, once nothing fails any more."""
        await self.calm()
        while True:
            await trio.sleep(REQUEUE_S)
            for run_id in list(self.disk.going):
                oracle = self.disk.oracles.get(run_id)
                if oracle is not None and oracle.phase is Phase.STALLED:
                    try:
                        await (await self.handle(run_id)).requeue()
                    except AikiError as error:
                        self.note(f"{run_id} was not requeued: {type(error).__name__}")

    async def _visit(self, cluster: Cluster) -> None:
        """Look at what there is, as a client of another namespace."""
        await self.calm()
        port = SimPort(STRANGERS, cluster, cluster, ClientLog(), self._chance.of("stranger"))
        for problem in await seen_by_a_stranger(port, list(self.disk.journals)):
            self.broken("P11", problem)

    async def _rage(self, cluster: Cluster) -> None:
        await Nemesis(cluster, self.options, self._chance.of("nemesis")).rage()
        self._calm.set()
        if Fault.CLOCK_JUMP in self.options.faults:
            return  # what was noted by a clock that has been set back since is found late
        await trio.sleep(SETTLE_S)
        server = await cluster.present()
        self.disk.punctual_from = server.runtime.now()

    def replay_problems(self) -> list[tuple[str, str]]:
        """Replay some of the runs that have completed; return what is wrong."""
        rng = self._chance.of("replay")
        return list(replay_problems(self.disk, self.workflows, rng, str(self.seed)))

    def report(self, seconds: float) -> SimReport:
        """Sum it up."""
        return SimReport(
            self.seed,
            self.options,
            len(self.disk.journals),
            sum(len(journal) for journal in self.disk.journals.values()),
            self.disk.commits,
            len(self.attempts),
            seconds,
            self.trace.digest,
        )


class _HookErrors(logging.Handler):
    """Reports what Trio only logs: a hook raised, and was removed for good."""

    def __init__(self, sim: Simulation) -> None:
        super().__init__(logging.ERROR)
        self._sim = sim

    def emit(self, record: logging.LogRecord) -> None:
        """Report it."""
        self._sim.broken("hooks", record.getMessage())


def simulate(
    seed: int | str,
    workload: Workload | None = None,
    *,
    workflows: Iterable[AnyWorkflow] = (),
    options: SimOptions | None = None,
    kept: int = 200,
) -> SimReport:
    """Run one simulation; a plain function, for plain tests.

    Args:
        seed: what everything is drawn from.
        workload: what happens in it; default: random programs, which use every feature.
        workflows: what the workload starts.
        options: what it is like; default: drawn from the seed, and a workload of one's own meets
            no database that loses what was acknowledged (`Fault.LOST_COMMITS`), and no queue.
        kept: lines of the trace that a failure shows.

    Raises:
        SimulationFailed: a promise was broken, or the workload failed.
        ModuleNotFoundError: there is to be a queue, and the extra `redis` is not installed.

    """
    given = tuple(workflows)
    line = replay_line(seed, workload, given, options)
    options = options or SimOptions.drawn(seed, own=workload is not None)
    if options.queue:
        import_module("aiki_actors.queue.redis")  # so that it fails here, naming the extra
    sim = Simulation(seed, options, given if workload is not None else (program,))
    sim.trace = sim.disk.trace = Trace(kept)
    seconds = 0.0

    async def main() -> None:
        nonlocal seconds
        await sim.run(workload or random_workload)
        seconds = trio.current_time()

    hooks = logging.getLogger(HOOKS_LOGGER)
    told = _HookErrors(sim)
    hooks.addHandler(told)
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with deterministic(str(seed), options.deferral):
            run(main)
        if not sim.problems:
            sim.problems += sim.replay_problems()
    except Exception as error:  # noqa: BLE001  (whatever fails in a simulation is its verdict)
        sim.problems.append(("error", "".join(traceback.format_exception(error))))
    finally:
        hooks.removeHandler(told)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    if sim.problems:
        raise SimulationFailed(seed, options, sim.problems, sim.trace.lines, line)
    return sim.report(seconds)


def replay_line(
    seed: int | str,
    workload: Workload | None,
    workflows: Sequence[AnyWorkflow],
    options: SimOptions | None,
) -> str:
    """Return one line that shows a simulation again: a command, or a call where it takes one."""
    if workload is None and options is None and isinstance(seed, int):
        return f"python -m aiki_trio.testing.sim --seeds 1 --seed {seed}"
    given = [repr(seed)]
    if workload is not None:
        given.append(getattr(workload, "__qualname__", repr(workload)))
        names = ", ".join(workflow.__name__ for workflow in workflows)
        given.append(f"workflows=[{names}]")
    if options is not None:
        given.append(f"options={options.as_code()}")
    return f"simulate({', '.join(given)})"
