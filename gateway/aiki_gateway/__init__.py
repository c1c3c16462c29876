"""How it is reached: the HTTP interface, worker sessions, live streams and the dashboard."""

from ._engine import (
    Engine as Engine,
    LiveStream as LiveStream,
    Positioned as Positioned,
    RunUpdates as RunUpdates,
    Snapshot as Snapshot,
    StreamFilter as StreamFilter,
    StreamStart as StreamStart,
    WorkerInfo as WorkerInfo,
)
from ._settings import (
    HOST as HOST,
    PORT as PORT,
    GatewaySettings as GatewaySettings,
    key_hash as key_hash,
)
from ._start import Bound as Bound, start_gateway as start_gateway

__all__ = [
    "HOST",
    "PORT",
    "Bound",
    "Engine",
    "GatewaySettings",
    "LiveStream",
    "Positioned",
    "RunUpdates",
    "Snapshot",
    "StreamFilter",
    "StreamStart",
    "WorkerInfo",
    "key_hash",
    "start_gateway",
]
