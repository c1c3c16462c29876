"""Connections cut and servers killed at any step: nothing is lost and nothing is repeated."""

from __future__ import annotations

import random

import trio
from attrs import define, field
from hypothesis import given, settings, strategies as st

from tests.integration.runtimes import kinds
from tests.session.clusters import chain, cluster, everything, log, pay

FAULTS = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from(["cut", "cut", "kill"])), max_size=5
)


@define(eq=False)
class AtStep(trio.abc.Instrument):
    """Sets an event when the loop has made so many steps."""

    left: int
    reached: trio.Event = field(factory=trio.Event)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()


async def _after_steps(count: int) -> None:
    """Wait for steps of the loop, or until nothing moves without the clock."""
    instrument = AtStep(count)
    trio.lowlevel.add_instrument(instrument)
    try:
        with trio.move_on_after(0.5):
            await instrument.reached.wait()
    finally:
        trio.lowlevel.remove_instrument(instrument)


@settings(max_examples=40)
@given(FAULTS, st.random_module(), st.integers(1, 3))
def test_whatever_breaks_each_task_takes_effect_once(
    faults: list[tuple[int, str]], module: random.Random, workers: int
) -> None:
    """Within the grace, that is: then no claim is lost."""

    async def main() -> None:
        log.clear()
        async with cluster() as c:
            for _ in range(workers):
                await c.start_worker()
            chains = [await c.start(chain, 6) for _ in range(6)]
            others = [await c.start(everything) for _ in range(2)]
            for steps, fault in faults:
                await _after_steps(steps)
                if fault == "cut":
                    c.net.cut()
                else:
                    c.kill_server()
                    await trio.sleep(0.1)
                    await c.start_server()
            for handle in [await c.get(one, everything) for one in others]:
                await handle.send(pay, "!", reference_id="once")
                assert await handle.result(timeout=60) == "ab01!"
            for handle in [await c.get(one, chain) for one in chains]:
                assert await handle.result(timeout=60) == "012345"
                history = await kinds(handle)
                assert history.count("task-succeeded") == 6
                assert "claim-lost" not in history
        counted = {word: log.count(word) for word in sorted(set(log))}
        assert counted == {**{str(n): 6 for n in range(6)}, "0": 8, "1": 8, "a": 2, "b": 3}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
