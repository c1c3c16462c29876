"""What a ready run needs and what a worker serves: the keys that both sides are matched by.

Invariant: namespaces never mix; a worker of one namespace is never given a run of another, even if
it knows a workflow of the same name and version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from attrs import frozen

from aiki_actors.storage import ReadyRun


class QueueKey(NamedTuple):
    """What a worker must serve to be given a run."""

    namespace: str
    workflow: str
    version: str
    pool: str

    @property
    def fairness(self) -> FairnessKey:
        """Among whom capacity is shared: the workflows of each namespace, versions together."""
        return FairnessKey(self.namespace, self.workflow)


class FairnessKey(NamedTuple):
    """One party of the round robin."""

    namespace: str
    workflow: str


def key_of(run: ReadyRun) -> QueueKey:
    """Return what a worker must serve to be given `run`."""
    return QueueKey(run.namespace, run.workflow, run.version, run.pool)


@frozen(cache_hash=True)
class Served:
    """What one worker, and every worker like it, can be given.

    Attributes:
        workflows: pairs of workflow name and version that it has the code of.
        pools: the pools that it works for.

    """

    namespace: str
    workflows: frozenset[tuple[str, str]]
    pools: frozenset[str]
    fairness: tuple[FairnessKey, ...]

    @classmethod
    def of(
        cls,
        workflows: Iterable[tuple[str, str]],
        *,
        pools: Iterable[str] = ("default",),
        namespace: str = "default",
    ) -> Served:
        """Make it from pairs of workflow name and version, in any order."""
        pairs = frozenset(workflows)
        names = sorted({name for name, _ in pairs})
        parties = tuple(FairnessKey(namespace, name) for name in names)
        return cls(namespace, pairs, frozenset(pools), parties)

    def serves(self, key: QueueKey) -> bool:
        """Tell whether a run with this key can be given to such a worker."""
        return (
            key.namespace == self.namespace
            and key.pool in self.pools
            and (key.workflow, key.version) in self.workflows
        )

    def queue_keys(self) -> list[QueueKey]:
        """List every key it serves, in a fixed order."""
        return [
            QueueKey(self.namespace, name, version, pool)
            for name, version in sorted(self.workflows)
            for pool in sorted(self.pools)
        ]
