"""The worker's actors: subscriber, executors, task actors, and replay.

Start reading at `_execution.py` and `_sequencer.py` (replay), then `_executor.py` and `_worker.py`.
"""

from ._attempt import idempotency_key as idempotency_key
from ._attempts import (
    THREADS_MAX as THREADS_MAX,
    Attempts as Attempts,
)
from ._branches import Branch as Branch, BranchTracker as BranchTracker
from ._execution import Execution as Execution
from ._executor import Executor as Executor
from ._hooks import Invoke as Invoke, Proceed as Proceed, WorkerHooks as WorkerHooks
from ._port import (
    Assignment as Assignment,
    ServerPort as ServerPort,
    WorkerInbox as WorkerInbox,
)
from ._remote import RemoteServer as RemoteServer
from ._remote_identity import WorkerIdentity as WorkerIdentity, host_name as host_name
from ._remote_session import Dial as Dial, RemoteSession as RemoteSession
from ._remote_websocket import dial_websocket as dial_websocket
from ._replica import Record as Record, Replica as Replica
from ._sealed import OpeningInbox as OpeningInbox, Seal as Seal, SealedServer as SealedServer
from ._sequencer import Sequencer as Sequencer
from ._slots import RunEvicted as RunEvicted, Slot as Slot
from ._subscriber import (
    Subscriber as Subscriber,
    WorkerSettings as WorkerSettings,
    executors_spec as executors_spec,
)
