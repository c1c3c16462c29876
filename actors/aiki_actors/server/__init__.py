"""The server's actors: runs, timers, hub, queue, storage and the keeper."""

from ._catalogue import WorkflowCatalogue as WorkflowCatalogue
from ._client_port import ServerClientPort as ServerClientPort
from ._dispatcher import Dispatcher as Dispatcher, Inbox as Inbox, Session as Session
from ._feed import Feed as Feed
from ._hub import BUFFER as BUFFER, Hub as Hub, HubActor as HubActor
from ._keeper import Keeper as Keeper, KeeperSettings as KeeperSettings
from ._namespace_updates import (
    NamespaceUpdates as NamespaceUpdates,
    SnapshotOf as SnapshotOf,
    Told as Told,
)
from ._queue_actor import QueueActor as QueueActor
from ._run_actor import RunActor as RunActor
from ._runs import Runs as Runs
from ._services import Do as Do, RunMessage as RunMessage, Services as Services
from ._sessions import (
    ConnectedWorker as ConnectedWorker,
    Sessions as Sessions,
    sessions_spec as sessions_spec,
)
from ._storage_actor import StorageActor as StorageActor, Write as Write
from ._subscription import (
    SubscriberTooSlow as SubscriberTooSlow,
    Subscription as Subscription,
    UpdateFilter as UpdateFilter,
)
from ._timers import Timers as Timers, TimersActor as TimersActor, TimerSettings as TimerSettings
