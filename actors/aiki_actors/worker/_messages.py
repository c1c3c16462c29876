"""The executor's side of `RunMessages`: values, events and answers that a run's code gives out.

Each is said once: its call is looked up like any other, and what is recorded is not said again.
They are *free* calls: unlike tasks they may happen although recorded results are left over.

What a question's validator rejected is recorded under a call of its own, so that a replay passes
over the same questions without asking the validator again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_sdk import Ask, JsonValue, Question, Workflow, encode_payload, input_hash
from aiki_sdk._addresses import event_address, publish_address, question_address, send_address

from ._branches import Branch
from ._execution import Execution
from ._slots import RunEvicted, Slot

A = TypeVar("A")
D = TypeVar("D")

VALIDATOR: Final = "validator:"
"""Before a question's name: the address of what its validator rejected. Part of the format."""

Say = Callable[[e.Call, e.ClaimRef], e.WorkerCommand]
"""How a thing is said, once its call is named."""


class MessageOperations(ABC):
    """The messages of one run's code. Implements the SDK's `MessagePort` and `AnswerPort`."""

    _execution: Execution
    _workflow: Workflow[..., Any]
    _spec: e.RunCreated

    @abstractmethod
    def _branch(self, what: str) -> Branch: ...

    async def _say(self, what: str, address: str, say: Say) -> None:
        """Say one thing, unless it is recorded that it was said."""
        execution = self._execution
        call = self._branch(what).next_call(address)

        async def start(slot: Slot) -> None:
            await execution.submit(lambda claim: say(slot.call, claim))

        await execution.perform(call, start, free=True)

    async def publish(self, key: str, value: object) -> None:
        """Publish a value."""
        json = encode_payload(value, what=f"value {key!r}")
        await self._say(
            "run.publish",
            publish_address(key, input_hash(json)),
            lambda call, claim: e.PublishValue(call, key, json, claim=claim),
        )

    async def send(self, run_id: str, event: str, data: JsonValue) -> None:
        """Send an event to another run."""
        await self._say(
            "run.send",
            send_address(run_id, event, input_hash(data)),
            lambda call, claim: e.SendEvent(call, run_id, event, data, claim=claim),
        )

    # -- questions --------------------------------------------------------------------------

    async def take_item(
        self, what: str, mailbox: str, timeout: e.Micros | None
    ) -> e.EventConsumed | None:
        """Take the next unread item of a mailbox; None when it did not come in time."""
        execution = self._execution
        call = self._branch(what).next_call(event_address(mailbox))

        async def start(slot: Slot) -> None:
            if slot.open_wait:
                await execution.begin_wait(slot, None)
                return
            await execution.begin_wait(
                slot, lambda claim: e.AwaitEvent(slot.call, mailbox, timeout, claim=claim)
            )

        body = (await execution.perform(call, start, free=True)).resolution
        if isinstance(body, e.WaitTimedOut):
            return None
        assert isinstance(body, e.EventConsumed), f"event wait {call} ended with {body!r}"
        return body

    async def next_ask(self, question: Question[D, A]) -> Ask[D, A]:
        """Take the next question that its type and its validator let pass."""
        while True:
            taken = await self.take_item("run.answer", question.mailbox, None)
            assert taken is not None, "a wait without a timeout does not time out"
            json = self._execution.replica.items[taken.item].data
            refusal = self._refusal(question, taken.item, json)
            if refusal is None:
                return Ask(question, taken.item, question.decode_data(json), self)
            await self._answer(f"{VALIDATOR}{question.name}", taken.item, None, refusal)

    def _refusal(self, question: Question[Any, Any], item: int, json: JsonValue) -> str | None:
        """Return why the code must not see a question; what is recorded is not judged again."""
        answered = self._execution.replica.answers.get(item)
        if answered is None:
            return question.refusal(json)
        return answered.rejection if answered.call.address.startswith(VALIDATOR) else None

    async def answer(self, question: Question[Any, Any], item: int, answer: object) -> None:
        """Answer a question."""
        json = question.encode_answer(answer)
        await self._answer(question_address(question.name), item, json, None)

    async def reject(self, question: Question[Any, Any], item: int, reason: str) -> None:
        """Reject a question."""
        await self._answer(question_address(question.name), item, None, reason)

    async def _answer(
        self, address: str, item: int, answer: JsonValue, rejection: str | None
    ) -> None:
        await self._say(
            "ask.answer",
            address,
            lambda call, claim: e.AnswerQuestion(call, item, answer, rejection, claim=claim),
        )

    # -- the end that is a beginning --------------------------------------------------------

    async def continue_as_new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        """End the code at once; the executor then says what the run continues with."""
        execution = self._execution
        self._branch("run.continue_as_new")
        data, digest = self._workflow.encode_input(args, kwargs)
        await trio.lowlevel.checkpoint_if_cancelled()
        if not execution.evicted:
            execution.continued = self._continued(data, digest)
            for slot in execution.slots:
                record = slot.record
                # What another branch waits for, or was about to get, is for the next run.
                if record is not None and (record.waiting or record.resolution is not None):
                    execution.give_up(record.call)
            execution.evict()
        raise RunEvicted

    def _continued(self, data: JsonValue, digest: str) -> e.RunCreated:
        """Return what the next run is created with: what held for this one, but for the input."""
        spec = self._spec
        parent = spec.parent
        if parent is not None and parent.child_id is None:
            parent = evolve(parent, child_id=self._execution.run_id)
        return evolve(
            spec,
            input=data,
            input_hash=digest,
            parent=parent,
            start_at=None,
            continued_from=self._execution.run_id,
            forked_from=None,
        )
