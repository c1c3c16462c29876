"""`aiki tree`: the live actors of a server or a runtime, who supervises whom, and how each is."""

from __future__ import annotations

from collections.abc import Iterator

from aiki_sdk import Unavailable
from aiki_sdk.http import HttpPort
from aiki_sdk.protocol import TreeNode, to_wire

from ._command import Command
from ._control_port import ControlPort, is_served
from ._control_server import control_path
from ._exit import ExitCode
from ._settings import CliSettings


async def show_tree(command: Command) -> ExitCode:
    """Print the tree.

    Raises:
        Unavailable: nobody answers.
    """
    root = await _tree_of(command.settings)
    if command.output.json:
        command.output.document(to_wire(root))
        return ExitCode.OK
    for head, node in lines_of(root):
        facts = [] if node.state == "running" else [node.state]
        if node.mailbox_depth:
            facts.append(f"{node.mailbox_depth} messages wait")
        if node.restarts:
            facts.append(f"{node.restarts} restarts")
        if node.describe:
            facts.append(node.describe)
        command.output.line(f"{head}{node.name}  {command.output.dim('; '.join(facts))}".rstrip())
    return ExitCode.OK


async def _tree_of(settings: CliSettings) -> TreeNode:
    if settings.url is not None:
        port = HttpPort.to(settings.url, namespace=settings.namespace, api_key=settings.api_key)
        try:
            return await port.tree()
        finally:
            await port.aclose()
    path = control_path(settings.database_path)
    if not await is_served(path):
        message = (
            f"no runtime that takes commands has {settings.database_url} open; start `aiki dev`, "
            "or name a server with --url"
        )
        raise Unavailable(message)
    return await ControlPort(path, settings.namespace).tree()


def lines_of(node: TreeNode, before: str = "", branch: str = "") -> Iterator[tuple[str, TreeNode]]:
    """Give each node with the lines that lead to it, from the root down."""
    yield before + branch, node
    inside = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for child in node.children:
        last = child is node.children[-1]
        yield from lines_of(child, inside, "└─ " if last else "├─ ")
