"""How many requests an address may make: a token bucket for each, bounded in number."""

from __future__ import annotations

from collections import OrderedDict

import trio
from attrs import define, field


@define
class _Bucket:
    tokens: float
    at: float


@define(eq=False)
class RateLimiter:
    """Gives every address `rate_per_s` requests a second on average, and `burst` at once.

    The address that was idle longest is forgotten first, which can only be to its advantage.
    """

    rate_per_s: float
    burst: int
    addresses_max: int
    refused: int = field(default=0, init=False)
    _buckets: OrderedDict[str, _Bucket] = field(
        factory=lambda: OrderedDict[str, _Bucket](), init=False
    )

    def take(self, address: str) -> float:
        """Count a request; return 0.0, or the seconds after which it would be let through."""
        now = trio.current_time()
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = _Bucket(float(self.burst), now)
            if len(self._buckets) > self.addresses_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(address)
            earned = (now - bucket.at) * self.rate_per_s
            bucket.tokens = min(float(self.burst), bucket.tokens + earned)
            bucket.at = now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        self.refused += 1
        return (1.0 - bucket.tokens) / self.rate_per_s
