"""What the SDK costs per task call, in microseconds: run it with `python tests/bench/sdk_micro.py`.

Prints one JSON object per measurement: the median, least and most of seven rounds, each of as many
calls as fit into about a twentieth of a second. Every workload checks its own result first. Figures
of two runs compare only on the same machine.
"""

import json
import platform
import statistics
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

from attrs import field, frozen

from aiki_sdk import CONVERTER, ErrorInfo, JsonValue, SystemIds, dumps, input_hash, loads, task
from aiki_sdk.payload import encode_payload

ROUNDS = 7
ROUND_S = 0.05


@frozen
class Item:
    sku: str
    price: int
    quantity: int = 1


@frozen
class Order:
    id: str
    amount: int
    placed_at: datetime | None = None
    items: list[Item] = field(factory=list)


@task
def add(n: int) -> int:
    return n + 1


@task
def render(order: Order, charge_id: str = "none") -> Order:
    return order


SMALL = Order("o-1", 500)
LARGE = Order(
    "o-2",
    99_900,
    datetime(2026, 1, 2, tzinfo=UTC),
    [Item(f"sku-{number}", number) for number in range(20)],
)
LARGE_JSON = CONVERTER.to_json(LARGE, Order)
FLOATS: JsonValue = {"x": [0.1 * number for number in range(20)], "y": 1.0}
ERROR = ErrorInfo("ValueError", "no such card", "  File ...", ErrorInfo("KeyError", "'x'"))
IDS = SystemIds()

WORKLOADS: dict[str, tuple[Callable[[], object], object]] = {
    "encode input, one int, and hash": (lambda: add.encode_input((5,))[0], {"n": 5}),
    "encode input, one int by keyword": (lambda: add.encode_input((), {"n": 5})[0], {"n": 5}),
    "decode input, one int": (lambda: add.decode_input({"n": 5}), ((5,), {})),
    "encode output, int": (lambda: add.encode_output(6), 6),
    "decode output, int": (lambda: add.decode_output(6), 6),
    "encode input, small attrs and str, and hash": (
        lambda: render.encode_input((SMALL, "c"))[0]["charge_id"],
        "c",
    ),
    "encode input, 20 items, and hash": (
        lambda: render.encode_input((LARGE, "c"))[0]["order"],
        LARGE_JSON,
    ),
    "decode output, 20 items": (lambda: render.decode_output(LARGE_JSON), LARGE),
    "converter, int": (lambda: CONVERTER.to_json(5, int), 5),
    "converter, str": (lambda: CONVERTER.to_json("x", str), "x"),
    "converter, attrs of two fields": (
        lambda: CONVERTER.to_json(LARGE.items[0], Item),
        {"sku": "sku-0", "price": 0, "quantity": 1},
    ),
    "converter, attrs of two fields, back": (
        lambda: CONVERTER.from_json({"sku": "a", "price": 1}, Item),
        Item("a", 1),
    ),
    "encode payload, small dict, untyped": (lambda: encode_payload({"a": 1}), {"a": 1}),
    "hash, floats (exact way)": (lambda: len(input_hash(FLOATS)), 64),
    "dumps and loads, 20 items": (lambda: loads(dumps(LARGE_JSON)), LARGE_JSON),
    "error info to JSON and back": (lambda: ErrorInfo.from_json(ERROR.to_json()), ERROR),
    "run id": (lambda: len(IDS.run_id()), 30),
}


def measure(workload: Callable[[], object]) -> list[float]:
    """Return the microseconds per call of each round."""
    timer = timeit.Timer(workload)
    calls, took_s = timer.autorange()
    calls = max(1, round(calls * ROUND_S / took_s))
    return [timer.timeit(calls) / calls * 1e6 for _ in range(ROUNDS)]


def main() -> None:
    """Check, measure and print every workload."""
    versions = {name: version(name) for name in ("attrs", "cattrs", "orjson")}
    versions["python"] = platform.python_version()
    for name, (workload, expected) in WORKLOADS.items():
        found = workload()
        if found != expected:
            message = f"{name}: expected {expected!r}, got {found!r}"
            raise SystemExit(message)
        rounds = measure(workload)
        figures = {
            "median_us": round(statistics.median(rounds), 3),
            "min_us": round(min(rounds), 3),
            "max_us": round(max(rounds), 3),
        }
        print(json.dumps({"name": name, **figures, "versions": versions}))


if __name__ == "__main__":
    main()
