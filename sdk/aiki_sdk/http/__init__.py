"""The server as its clients see it over HTTP, on httpx."""

from aiki_sdk.http._exchange import (
    AsyncExchange as AsyncExchange,
    Exchange as Exchange,
    SyncExchange as SyncExchange,
)
from aiki_sdk.http._port import HttpPort as HttpPort
from aiki_sdk.http._settings import HttpSettings as HttpSettings

__all__ = ["AsyncExchange", "Exchange", "HttpPort", "HttpSettings", "SyncExchange"]
