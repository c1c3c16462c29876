"""What an actor can do to itself, given to its `started` hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Never, TypeVar, TypeVarTuple

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiki_actors.kernel._cell import Cell
    from aiki_actors.kernel._refs import ActorRef
    from aiki_actors.kernel._supervisor import Supervisor
    from aiki_actors.kernel._system import ActorSystem

M_contra = TypeVar("M_contra", contravariant=True)
Args = TypeVarTuple("Args")


@define(eq=False)
class ActorContext(Generic[M_contra]):
    """An actor's view of itself; valid for as long as the actor lives, restarts included."""

    _cell: Cell[M_contra]

    @property
    def ref(self) -> ActorRef[M_contra]:
        """The actor's own reference."""
        return self._cell.ref

    @property
    def name(self) -> str:
        """The actor's id among its siblings."""
        return self._cell.id

    @property
    def path(self) -> str:
        """Where the actor is in the tree."""
        return self._cell.path

    @property
    def system(self) -> ActorSystem:
        """The system the actor is in."""
        return self._cell.system

    @property
    def supervisor(self) -> Supervisor:
        """The actor's supervisor, for starting siblings."""
        return self._cell.supervisor.handle

    def watch(self, ref: ActorRef[Never]) -> None:
        """Have `watched` called when `ref` has ended for good; at once if it has already.

        A restart of the watching actor ends its watches: watch again in `started`.
        """
        self._cell.watch(ref.cell)

    def unwatch(self, ref: ActorRef[Never]) -> None:
        """Take `watch` back; a notice that is already on its way is dropped."""
        self._cell.unwatch(ref.cell)

    def stop_self(self) -> None:
        """End after the current handler returns.

        Unless the actor is permanent (then it is restarted) its mailbox closes now, and what waits
        in it becomes dead letters.
        """
        self._cell.finish()

    def passivate(self) -> bool:
        """End if, and only if, no message waits; say whether it does.

        If the mailbox is empty it closes now, so no message can slip in between: whoever tells
        from now on gets `ActorStopped` and may start a successor under the same id, which begins
        when this one has ended. If messages wait, nothing happens.

        Raises:
            SpecError: The actor is permanent, and would be restarted at once.
        """
        return self._cell.passivate()

    def start_soon(self, async_fn: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Run `async_fn(*args)` beside the handler, until it returns or this incarnation ends.

        Its failure is the actor's failure. It is cancelled, and waited for, before `stopping`.
        """
        self._cell.start_soon(async_fn, *args)
