"""How type checkers see what `Client.start` takes: a workflow, by its number of arguments.

`Workflow[P, R]` says it all, but a function that takes `*args: P.args, **kwargs: P.kwargs` can have
no keyword parameters of its own, and `start` has many. So `start` has overloads by number of
positional arguments, and these protocols tell a workflow's parameters and result apart: its call
takes the parameters, `decode_output` gives the result. A parameter with a default may be left out.

Nothing here exists at run time for any other reason.
"""

from typing import Protocol, TypeVar

from aiki_sdk._json import JsonValue

A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Returns(Protocol[R_co]):
    """Something whose runs return `R_co`."""

    def decode_output(self, json: JsonValue) -> R_co:
        """Return a recorded result."""
        ...


class Startable0(Returns[R_co], Protocol[R_co]):
    """A workflow that can be started without arguments."""

    def __call__(self) -> object: ...


class Startable1(Returns[R_co], Protocol[A_contra, R_co]):
    """A workflow that can be started with one argument."""

    def __call__(self, a: A_contra, /) -> object: ...


class Startable2(Returns[R_co], Protocol[A_contra, B_contra, R_co]):
    """A workflow that can be started with two arguments."""

    def __call__(self, a: A_contra, b: B_contra, /) -> object: ...


class Startable3(Returns[R_co], Protocol[A_contra, B_contra, C_contra, R_co]):
    """A workflow that can be started with three arguments."""

    def __call__(self, a: A_contra, b: B_contra, c: C_contra, /) -> object: ...


class Startable4(Returns[R_co], Protocol[A_contra, B_contra, C_contra, D_contra, R_co]):
    """A workflow that can be started with four arguments."""

    def __call__(self, a: A_contra, b: B_contra, c: C_contra, d: D_contra, /) -> object: ...
