"""The outermost scope: one tree of actors, its names, its dead letters, its failures.

    async with open_system("app", root, rng=Random(0)) as system:
        ...

Invariant: when `open_system` is left, no task of the tree is running any more.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from aiki_actors.kernel._dead_letters import DeadLetters
from aiki_actors.kernel._errors import NotRegistered, SpecError
from aiki_actors.kernel._failures import ChildFailure, simplest
from aiki_actors.kernel._registry import Registry
from aiki_actors.kernel._supervisor import Supervisor
from aiki_actors.kernel._supervisor_node import SupervisorNode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from random import Random

    from aiki_actors.kernel._specs import SupervisorSpec
    from aiki_actors.kernel._tree import TreeNode

logger = logging.getLogger("aiki_actors.kernel")


@define(eq=False)
class ActorSystem:
    """One running tree of actors."""

    name: str
    rng: Random
    _on_child_failure: Callable[[ChildFailure], None] | None = None
    registry: Registry = field(factory=Registry, init=False)
    dead_letters: DeadLetters = field(factory=DeadLetters, init=False)
    failures: int = field(default=0, init=False)
    """How many failures of actors and supervisors there were."""
    _root: SupervisorNode | None = field(default=None, init=False)

    @property
    def root(self) -> Supervisor:
        """The root supervisor."""
        return self.root_node.handle

    @property
    def root_node(self) -> SupervisorNode:
        """The kernel's side of the root; not for users."""
        assert self._root is not None, "the root is made with the system"
        return self._root

    def supervisor(self, path: str) -> Supervisor:
        """Return a supervisor by its ids under the root: `"runs"` or `"worker/executors"`.

        Raises:
            NotRegistered: There is no such supervisor.
        """
        node = self.root_node
        for child_id in path.strip("/").split("/"):
            child = node.children.get(child_id)
            if not isinstance(child, SupervisorNode) or child.closed:
                raise NotRegistered(f"there is no supervisor {path!r} under {self.name!r}")
            node = child
        return node.handle

    def tree(self) -> TreeNode:
        """Return a picture of the live tree."""
        return self.root_node.snapshot()

    def report(self, path: str, error: BaseException) -> None:
        """Count, log and show one failure; every failure in the tree passes here."""
        self.failures += 1
        logger.error("%s failed: %r", path, error, exc_info=error)
        if self._on_child_failure is not None:
            try:
                self._on_child_failure(ChildFailure(path, error))
            except Exception:
                logger.exception("on_child_failure failed on the failure of %s", path)

    def warn_late(self, path: str, shutdown_s: float) -> None:
        """Log that a node was cut off because it did not stop in time."""
        logger.warning("%s did not stop within %g s and was cancelled", path, shutdown_s)

    def make_root(self, spec: SupervisorSpec) -> SupervisorNode:
        """Make the tree's root; once."""
        assert self._root is None, "a system has one root"
        self._root = SupervisorNode(
            self.name, f"/{self.name}", spec.restart, spec.shutdown_s, None, self, spec
        )
        return self._root


@asynccontextmanager
async def open_system(
    name: str,
    root: SupervisorSpec,
    *,
    rng: Random,
    on_child_failure: Callable[[ChildFailure], None] | None = None,
) -> AsyncGenerator[ActorSystem, None]:
    """Run a tree of actors for as long as the body runs; then stop it in order.

    The body begins when the static children have started, or failed to for the first time.

    Cancellation from outside reaches every actor at once; their `stopping` hooks still run,
    shielded, each within its own `shutdown_s`.

    Args:
        name: The first part of every path.
        root: The root supervisor; its own `id` and `restart` are not used.
        rng: Where the jitter of restart delays comes from.
        on_child_failure: Called with every failure; must be quick and must not block.

    Raises:
        SupervisorFailed: The root gave up; the body was cancelled.
        BaseException: What the body raised, or what left an actor and is not an `Exception`.
            One exception leaves as itself, several as a group.
    """
    if not name or "/" in name:
        raise SpecError(f"the system's name is {name!r}; it must be non-empty and without '/'")
    system = ActorSystem(name, rng, on_child_failure)
    node = system.make_root(root)
    problem: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            node.launch(nursery)
            body_error: BaseException | None = None
            try:
                await node.ready.wait()
                yield system
            except GeneratorExit:
                raise
            except BaseException as exc:  # noqa: BLE001 - raised again after the orderly stop
                body_error = exc
            await _stop_after(node, body_error)
    except BaseException as exc:  # noqa: BLE001 - raised again below, simplified
        problem = simplest(exc)
    if problem is not None:
        raise problem


async def _stop_after(root: SupervisorNode, body_error: BaseException | None) -> None:
    """Stop the tree in order, then raise what the body raised.

    If the stop is cancelled, `Cancelled` must not replace the body's error: both go on.
    """
    root.stop()
    try:
        await root.wait_stopped()
    except trio.Cancelled as cancelled:
        if body_error is None or isinstance(body_error, trio.Cancelled):
            raise
        raise BaseExceptionGroup(
            f"the body of {root.path} failed, and its stop was cancelled", [body_error, cancelled]
        ) from None
    if body_error is not None:
        raise body_error
