"""How it is reached: the HTTP interface, worker sessions, live streams and the dashboard."""

from aiki_gateway._engine import Engine as Engine

__all__ = ["Engine"]
