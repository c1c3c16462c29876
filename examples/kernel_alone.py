"""The actor kernel without workflows: a bank with one actor per account.

Accounts are started when they are first needed and passivate when nobody talks to them. A ledger
writes the postings of all accounts, many in one call, and fails now and then: its supervisor starts
it again, and whoever was waiting is told. Run it with `python -m examples.kernel_alone`.
"""

from __future__ import annotations

from functools import partial
from random import Random

import trio
from attrs import frozen
from typing_extensions import override

from aiki_actors.kernel import (
    Actor,
    ActorContext,
    ActorFailed,
    ActorRef,
    BatchActor,
    ChildSpec,
    Reply,
    Restart,
    Supervisor,
    SupervisorSpec,
    open_system,
    render_tree,
)


@frozen(eq=False)
class Post:
    """Write one posting; the answer says how many there are in the ledger."""

    account: str
    cents: int
    reply: Reply[int]


@frozen(eq=False)
class Deposit:
    """Add to the balance; the answer is the new balance, once it is in the ledger."""

    cents: int
    reply: Reply[int]


class Ledger(BatchActor[Post]):
    """Write everything that waits, in one go."""

    kind = "ledger"

    def __init__(self, disk: list[tuple[str, int]]) -> None:
        self.disk = disk

    @override
    async def handle_batch(self, messages: list[Post]) -> None:
        await trio.sleep(0.01)  # One write to the disk for all of them.
        if any(message.cents == 13 for message in messages):
            raise OSError("the disk does not like that number")
        for message in messages:
            self.disk.append((message.account, message.cents))
            message.reply.send(len(self.disk))

    @override
    def describe(self) -> str:
        return f"{len(self.disk)} postings"


class Account(Actor[Deposit]):
    """One balance, restored from the ledger's disk when the actor starts."""

    kind = "account"

    def __init__(self, ledger: ActorRef[Post], disk: list[tuple[str, int]]) -> None:
        self.ledger = ledger
        self.disk = disk
        self.balance = 0
        self.context: ActorContext[Deposit]

    @override
    async def started(self, context: ActorContext[Deposit]) -> None:
        self.context = context
        self.balance = sum(cents for account, cents in self.disk if account == context.name)

    @override
    async def handle(self, message: Deposit) -> None:
        try:
            await self.ledger.ask(partial(Post, self.context.name, message.cents), deadline_s=5)
        except ActorFailed as error:
            message.reply.fail(error)
            return
        self.balance += message.cents
        message.reply.send(self.balance)
        self.context.passivate()

    @override
    def describe(self) -> str:
        return f"{self.balance / 100:.2f}"


@frozen
class Bank:
    """The directory of accounts: finds a living one or starts it."""

    accounts: Supervisor
    ledger: ActorRef[Post]
    disk: list[tuple[str, int]]
    living: dict[str, ActorRef[Deposit]]

    def account(self, name: str) -> ActorRef[Deposit]:
        """Return the account's actor; there is no await, so nothing can slip in between."""
        ref = self.living.get(name)
        if ref is None or not ref.alive:
            start = partial(Account, self.ledger, self.disk)
            ref = self.accounts.start_child(ChildSpec(name, start, Restart.TEMPORARY))
            self.living[name] = ref
        return ref

    async def deposit(self, name: str, cents: int) -> str:
        """Deposit, and return how it went."""
        try:
            balance = await self.account(name).ask(partial(Deposit, cents), deadline_s=5)
        except ActorFailed as error:
            return f"{name}: {cents} cents refused, {error.__cause__}"
        return f"{name}: {balance} cents"


async def bank() -> list[tuple[str, int]]:
    """Open a bank, use it, and return what is in the ledger."""
    disk: list[tuple[str, int]] = []
    ledger = ChildSpec("ledger", partial(Ledger, disk))
    tree = SupervisorSpec(children=(ledger, SupervisorSpec(id="accounts")))
    async with open_system("bank", tree, rng=Random(1)) as system:
        accounts = system.supervisor("accounts")
        directory = Bank(accounts, system.root.ref_of(ledger), disk, {})
        said: list[str] = []

        async def first_deposit(name: str) -> None:
            said.append(await directory.deposit(name, 500))

        async with trio.open_nursery() as nursery:
            for name in ("ada", "ben", "cem"):
                nursery.start_soon(first_deposit, name)
        print(*sorted(said), sep="\n")
        print(await directory.deposit("ada", 13))
        print(await directory.deposit("ada", 250))
        print(render_tree(system.tree()))
        print(f"failures: {system.failures}, dead letters: {system.dead_letters.count}")
    return disk


def main() -> None:
    """Run the example."""
    trio.run(bank)


if __name__ == "__main__":
    main()
