"""The registry, the tree view, refs as values."""

from __future__ import annotations

from functools import partial

import pytest
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from aiki_actors.kernel import (
    ActorStopped,
    ChildSpec,
    Key,
    NameTaken,
    NotRegistered,
    SupervisorSpec,
    render_tree,
)
from tests.unit.kernel.probes import Do, Hooks, Probe, child, probe, seen, system

HUB = Key[object]("hub")


async def test_a_registered_actor_is_found_until_it_ends() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        app.registry.register(HUB, ref)
        app.registry.register(HUB, ref)
        assert app.registry.lookup(HUB) is ref
        assert app.registry.require(HUB) is ref
        ref.tell(ValueError())
        await wait_all_tasks_blocked()
        assert app.registry.lookup(HUB) is ref
        await app.root.stop_child("a")
        assert app.registry.lookup(HUB) is None
        with pytest.raises(NotRegistered, match="'hub'"):
            app.registry.require(HUB)


async def test_a_name_has_one_holder() -> None:
    async with system(probe([]), probe([], "b")) as app:
        app.registry.register(HUB, child(app))
        with pytest.raises(NameTaken, match="'hub' is taken by /app/a"):
            app.registry.register(HUB, child(app, "b"))
        app.registry.unregister(HUB)
        app.registry.unregister(HUB)
        app.registry.register(HUB, child(app, "b"))
        await app.root.stop_child("a")
        assert app.registry.require(HUB).name == "b"


async def test_an_ended_actor_cannot_be_registered() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        await app.root.stop_child("a")
        with pytest.raises(ActorStopped):
            app.registry.register(HUB, ref)


async def test_the_tree_shows_what_lives() -> None:
    nested = SupervisorSpec(id="runs", children=(probe([], "x"), probe([], "y")))
    async with system(probe([]), nested) as app:
        child(app).tell(1)
        await seen(child(app))
        x = app.supervisor("runs").child("x")
        assert x is not None
        x.suspend()
        x.tell(1)  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        assert render_tree(app.tree()).splitlines() == [
            "app [supervisor] running · one for one",
            "├─ a [probe] running · 1 seen",
            "└─ runs [supervisor] running · one for one",
            "   ├─ x [probe] suspended mailbox=1 · 0 seen",
            "   └─ y [probe] running · 0 seen",
        ]


async def test_the_tree_survives_a_describe_that_fails() -> None:
    class Shy(Probe):
        kind = ""

        @override
        def describe(self) -> str:
            raise ValueError("no")

    async with system(ChildSpec("s", lambda: Shy([], "s", Hooks()))) as app:
        (node,) = app.tree().children
        assert node.kind == "Shy"
        assert node.describe == "describe() failed: ValueError('no')"


async def test_the_tree_shows_an_actor_that_is_asked_to_stop() -> None:
    async def look(p: Probe) -> None:
        p.context.ref.stop()
        assert p.context.system.tree().children[0].state == "stopping"

    async with system(probe([])) as app:
        await child(app).ask(partial(Do, look), deadline_s=None)
        assert app.failures == 0


async def test_supervisors_are_found_by_path() -> None:
    deep = SupervisorSpec(id="deep", children=(probe([]),))
    async with system(SupervisorSpec(id="mid", children=(deep,)), probe([])) as app:
        assert app.supervisor("mid/deep").path == "/app/mid/deep"
        mid = app.root.supervisor("mid")
        assert mid is not None
        assert (mid.name, repr(mid)) == ("mid", "<Supervisor /app/mid>")
        assert app.root.child("mid") is None
        for wrong in ("none", "a", "mid/none"):
            with pytest.raises(NotRegistered, match=wrong):
                app.supervisor(wrong)


async def test_an_actor_knows_itself() -> None:
    async def look(p: Probe) -> None:
        context = p.context
        assert (context.name, context.path) == ("a", "/app/a")
        assert context.system.root is context.supervisor
        assert repr(context.ref) == "<ActorRef /app/a>"
        assert {context.ref: 1}[context.ref] == 1

    async with system(probe([])) as app:
        await child(app).ask(partial(Do, look), deadline_s=None)
