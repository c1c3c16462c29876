"""The client: start runs, find them, wait for them, talk to them."""

from aiki_sdk.client._all_updates import AllUpdates as AllUpdates
from aiki_sdk.client._client import Client as Client
from aiki_sdk.client._handle import RunHandle as RunHandle
from aiki_sdk.client._many_runs import BulkOutcome as BulkOutcome
from aiki_sdk.client._options import (
    StartKwargs as StartKwargs,
    StartOptions as StartOptions,
    StartSpec as StartSpec,
)
from aiki_sdk.client._run_list import RunFilters as RunFilters, RunList as RunList
from aiki_sdk.client._starter import Starter as Starter
from aiki_sdk.client._starting import StartItem as StartItem
from aiki_sdk.client._sync_client import SyncClient as SyncClient, SyncStarter as SyncStarter
from aiki_sdk.client._sync_handle import SyncRunHandle as SyncRunHandle
from aiki_sdk.client._sync_streams import (
    SyncRunList as SyncRunList,
    SyncStream as SyncStream,
    SyncUpdates as SyncUpdates,
    SyncValueWatch as SyncValueWatch,
)
from aiki_sdk.client._updates import Updates as Updates
from aiki_sdk.client._watching import ValueWatch as ValueWatch

__all__ = [
    "AllUpdates",
    "BulkOutcome",
    "Client",
    "RunFilters",
    "RunHandle",
    "RunList",
    "StartItem",
    "StartKwargs",
    "StartOptions",
    "StartSpec",
    "Starter",
    "SyncClient",
    "SyncRunHandle",
    "SyncRunList",
    "SyncStarter",
    "SyncStream",
    "SyncUpdates",
    "SyncValueWatch",
    "Updates",
    "ValueWatch",
]
