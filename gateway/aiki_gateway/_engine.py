"""The engine as the gateway sees it: all that HTTP, websockets and the dashboard may ask for.

The gateway talks to the engine through this one protocol and through nothing else: it imports no
actor, no storage and no queue, so that it can be tested against a fake of a few lines and put in
front of a remote engine later. Everything that passes is a wire value of `aiki_sdk.protocol`; what
a client asks over HTTP is done by the same `ClientPort` that a client in the same process uses.

Invariant: nothing here decides anything about a run. Authentication, limits on requests and the
translation of errors to HTTP are the gateway's own business and happen before and after.
"""

from typing import Protocol

from aiki_sdk.protocol import ClientPort, Health, TreeNode


class Engine(Protocol):
    """A running engine, on this node."""

    def client_port(self, namespace: str) -> ClientPort:
        """Return the port of one namespace's clients; asking again is cheap.

        Closing the port closes nothing but the port.

        Raises:
            InvalidRequest: if the name of the namespace is not valid.
        """
        ...

    def tree(self) -> TreeNode:
        """Return a picture of the live actor tree, taken now, from the root down."""
        ...

    async def health(self) -> Health:
        """Return how this node is, with all its components.

        Answers within a second also while something hangs: what does not answer is a problem.
        """
        ...
