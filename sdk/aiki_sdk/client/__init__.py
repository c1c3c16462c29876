"""The client: start runs, find them, wait for them, talk to them."""

from aiki_sdk.client._client import Client as Client, StartItem as StartItem
from aiki_sdk.client._handle import RunHandle as RunHandle
from aiki_sdk.client._many_runs import BulkOutcome as BulkOutcome
from aiki_sdk.client._options import (
    StartKwargs as StartKwargs,
    StartOptions as StartOptions,
    StartSpec as StartSpec,
)
from aiki_sdk.client._run_list import RunFilters as RunFilters, RunList as RunList
from aiki_sdk.client._starter import Starter as Starter
from aiki_sdk.client._updates import Updates as Updates
from aiki_sdk.client._watching import ValueWatch as ValueWatch

__all__ = [
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
    "Updates",
    "ValueWatch",
]
