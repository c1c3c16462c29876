"""The public handle on a supervisor: start, find and stop its children.

Invariant: one handle per supervisor, the same across its restarts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Never, TypeVar

import trio
from attrs import define

from aiki_actors.kernel._errors import NotRegistered

if TYPE_CHECKING:
    from aiki_actors.kernel._refs import ActorRef
    from aiki_actors.kernel._specs import ChildSpec, SupervisorSpec
    from aiki_actors.kernel._supervisor_node import SupervisorNode

M_contra = TypeVar("M_contra", contravariant=True)


@define(eq=False, repr=False)
class Supervisor:
    """A stable handle on one supervisor."""

    _node: SupervisorNode

    def __repr__(self) -> str:
        return f"<Supervisor {self.path}>"

    @property
    def name(self) -> str:
        """Its id among its siblings."""
        return self._node.id

    @property
    def path(self) -> str:
        """Where it is in the tree."""
        return self._node.path

    @property
    def alive(self) -> bool:
        """Whether it takes children; true while it is being restarted."""
        return not (self._node.closed or self._node.stopping)

    def start_child(self, spec: ChildSpec[M_contra]) -> ActorRef[M_contra]:
        """Start a dynamic child soon; messages may be told at once and wait in its mailbox.

        If a child of this id is ending (it passivated, or was asked to stop), the new one begins
        when that one has ended. A dynamic child ends for good with its supervisor's incarnation.

        Raises:
            NameTaken: A child of this id lives.
            ActorStopped: The supervisor is stopping or has ended.
        """
        return self._node.start_cell(spec).ref

    def start_supervisor(self, spec: SupervisorSpec) -> Supervisor:
        """Start a supervisor as a dynamic child; raises what `start_child` raises."""
        return self._node.start_supervisor(spec).handle

    def child(self, child_id: str) -> ActorRef[Never] | None:
        """Return the living actor of that id, or `None`; ids of supervisors give `None`."""
        found = self._living(child_id)
        return None if isinstance(found, Supervisor) else found

    def ref_of(self, spec: ChildSpec[M_contra]) -> ActorRef[M_contra]:
        """Return the living actor that was started from this very `spec`, with its type.

        Raises:
            NotRegistered: No living child was started from it.
        """
        cell = self._node.cell_of(spec)
        if cell is None or cell.closed:
            raise NotRegistered(f"{self.path} has no living child from the spec {spec.id!r}")
        return cell.ref

    def supervisor(self, child_id: str) -> Supervisor | None:
        """Return the living supervisor of that id among the children, or `None`."""
        found = self._living(child_id)
        return found if isinstance(found, Supervisor) else None

    def children(self) -> list[ActorRef[Never] | Supervisor]:
        """Return the living children, oldest first."""
        return [node.face() for node in self._node.children.values() if not node.closed]

    def _living(self, child_id: str) -> ActorRef[Never] | Supervisor | None:
        node = self._node.children.get(child_id)
        return None if node is None or node.closed else node.face()

    async def stop_child(self, child_id: str) -> None:
        """Stop a child for good, in order, and wait until it has ended; no child, no wait."""
        node = self._node.children.get(child_id) or self._node.leaving.get(child_id)
        if node is None:
            await trio.lowlevel.checkpoint()
            return
        node.stop()
        await node.wait_stopped()

    def stop(self) -> None:
        """Ask the supervisor and all under it to end for good, in order; returns at once."""
        self._node.stop()

    def kill(self) -> None:
        """Cancel the supervisor and all under it."""
        self._node.kill()

    async def wait_stopped(self) -> None:
        """Wait until the supervisor and all under it have ended for good."""
        await self._node.wait_stopped()
