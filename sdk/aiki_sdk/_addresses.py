"""Addresses: how a durable operation is found again in its journal.

An address is kind, name and, where there is input, the hash of its canonical form. Operations
with equal addresses are told apart by their branch path, then by call order. Both are part of the
storage format: these texts never change.
"""

from typing import TypeAlias

BranchPath: TypeAlias = tuple[int, ...]
"""Which child of which nursery, in start order: `0.2.1`. The root is `()`, written as no text."""

ROOT_BRANCH: BranchPath = ()


def task_address(name: str, input_hash: str) -> str:
    """Return the address of a task call."""
    return f"task:{name}:{input_hash}"


def child_address(workflow: str, version: str, reference_or_hash: str) -> str:
    """Return the address of a child run: its reference id, else the hash of its input."""
    return f"child:{workflow}:{version}:{reference_or_hash}"


def local_address(name: str, input_hash: str) -> str:
    """Return the address of a recorded local function (`run.local`)."""
    return f"local:{name}:{input_hash}"


def sleep_address(name: str) -> str:
    """Return the address of a durable sleep."""
    return f"sleep:{name}"


def event_address(name: str) -> str:
    """Return the address of a wait for an event."""
    return f"event:{name}"


def child_wait_address(child_id: str) -> str:
    """Return the address of a wait for a child's end."""
    return f"child-wait:{child_id}"


def timeout_address(name: str) -> str:
    """Return the address of a durable timeout scope."""
    return f"timeout:{name}"


def race_address(name: str) -> str:
    """Return the address of the record of which one finished first."""
    return f"race:{name}"


def question_address(name: str) -> str:
    """Return the address of the questions of one kind."""
    return f"question:{name}"


def send_address(run_id: str, event: str, input_hash: str) -> str:
    """Return the address of an event sent to another run."""
    return f"send:{run_id}:{event}:{input_hash}"


def publish_address(key: str, input_hash: str) -> str:
    """Return the address of a published value."""
    return f"publish:{key}:{input_hash}"


def command_address(command: str, run_id: str) -> str:
    """Return the address of a control call on another run (`cancel`, `pause`, ...)."""
    return f"command:{command}:{run_id}"


def branch_text(path: BranchPath) -> str:
    """Write a branch path: `(0, 2, 1)` as `0.2.1`, the root as an empty string."""
    return ".".join(map(str, path))


def branch_from_text(text: str) -> BranchPath:
    """Read a branch path.

    Raises:
        ValueError: if the text is not numbers joined by dots.
    """
    return tuple(map(int, text.split("."))) if text else ROOT_BRANCH
