"""A picture of the live tree, taken at one moment: plain values, safe to keep and to send."""

from attrs import frozen


@frozen
class TreeNode:
    """One actor or supervisor as it was when the picture was taken."""

    name: str
    kind: str
    path: str
    state: str
    mailbox_depth: int
    restarts: int
    describe: str
    children: "tuple[TreeNode, ...]" = ()


def render_tree(node: TreeNode) -> str:
    """Return the tree as indented lines, one per node."""
    lines = [_line(node)]
    _render_children(node, "", lines)
    return "\n".join(lines)


def _render_children(node: TreeNode, indent: str, lines: list[str]) -> None:
    for position, child in enumerate(node.children, 1):
        last = position == len(node.children)
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_line(child)}")
        _render_children(child, indent + ("   " if last else "│  "), lines)


def _line(node: TreeNode) -> str:
    parts = [node.name, f"[{node.kind}]" if node.kind else "", node.state]
    if node.mailbox_depth:
        parts.append(f"mailbox={node.mailbox_depth}")
    if node.restarts:
        parts.append(f"restarts={node.restarts}")
    if node.describe:
        parts.append(f"· {node.describe}")
    return " ".join(part for part in parts if part)
