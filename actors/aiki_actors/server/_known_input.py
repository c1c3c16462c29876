"""What a start is checked against: the workflow's code if it is here, else what was announced."""

from __future__ import annotations

from aiki_sdk import AnyWorkflow, JsonValue
from aiki_sdk._canonical import input_hash
from aiki_sdk._question import mailbox_of_question
from aiki_sdk.payload import is_sealed
from aiki_sdk.protocol import WorkflowDefinition


def checked_input(
    code: AnyWorkflow | None, known: WorkflowDefinition, data: JsonValue, digest: str
) -> tuple[JsonValue, str]:
    """Check an input that is not sealed; return it and its hash with the defaults filled in.

    A client without the code left defaults out; the run is to be the same as with it. Where the
    code is not here either, what was announced of its parameters has to do.
    """
    if is_sealed(data):
        return data, digest
    if code is None:
        filled, more = known.fill_in(data)
        return filled, input_hash(filled) if more else digest
    args, kwargs = code.decode_input(data)
    return code.encode_input(args, kwargs)


def mailboxes(known: WorkflowDefinition) -> tuple[str, ...]:
    """Return the names of what a workflow's runs accept, as `Workflow.mailboxes` does."""
    return (*known.events, *(mailbox_of_question(name) for name in known.questions))
