"""Names for actors: unique, typed by key, forgotten when the actor ends for good."""

from typing import Generic, Never, TypeVar, cast

from attrs import define, field, frozen

from aiki_actors.kernel._errors import ActorStopped, NameTaken, NotRegistered
from aiki_actors.kernel._refs import ActorRef

M_contra = TypeVar("M_contra", contravariant=True)


@frozen
class Key(Generic[M_contra]):
    """A name together with the type of the messages its actor takes: `Key[MyMessage]("hub")`.

    Two keys with one name are one entry; use one constant per name, so that the types agree.
    """

    name: str


@define(eq=False)
class Registry:
    """The system's names."""

    _refs: dict[str, ActorRef[Never]] = field(
        factory=lambda: dict[str, ActorRef[Never]](), init=False
    )
    _names: dict[ActorRef[Never], list[str]] = field(
        factory=lambda: dict[ActorRef[Never], list[str]](), init=False
    )

    def register(self, key: Key[M_contra], ref: ActorRef[M_contra]) -> None:
        """Give `ref` a name until it ends for good or the name is taken back.

        Raises:
            NameTaken: Another actor has it.
            ActorStopped: `ref` has ended.
        """
        holder = self._refs.get(key.name)
        if holder is ref:
            return
        if holder is not None:
            raise NameTaken(f"the name {key.name!r} is taken by {holder.path}; choose another")
        if not ref.alive:
            raise ActorStopped(ref.path)
        self._refs[key.name] = ref
        self._names.setdefault(ref, []).append(key.name)

    def unregister(self, key: Key[Never]) -> None:
        """Free a name; does nothing if it is free."""
        ref = self._refs.pop(key.name, None)
        if ref is not None:
            self._names[ref].remove(key.name)

    def lookup(self, key: Key[M_contra]) -> ActorRef[M_contra] | None:
        """Return the actor of that name, or `None`."""
        return cast("ActorRef[M_contra] | None", self._refs.get(key.name))

    def require(self, key: Key[M_contra]) -> ActorRef[M_contra]:
        """Return the actor of that name.

        Raises:
            NotRegistered: There is none.
        """
        ref = self.lookup(key)
        if ref is None:
            raise NotRegistered(f"no live actor is registered as {key.name!r}")
        return ref

    def forget(self, ref: ActorRef[Never]) -> None:
        """Free all names of an actor that ended."""
        for name in self._names.pop(ref, ()):
            del self._refs[name]
