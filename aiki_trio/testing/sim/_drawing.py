"""Draws random programs (see `_programs.py`) from a generator of chance."""

from __future__ import annotations

import random
from typing import Any, Final

from ._programs import Step

COMMON: Final = ("task", "task", "task", "nap", "nap", "take", "take")
RARE: Final = (
    "strict",
    "once",
    "beat",
    "answer",
    "local",
    "chance",
    "publish",
    "tell",
    "tell",
    "kid",
    "kid",
    "map",
)
NESTED: Final = ("gather", "race", "race", "nursery", "patience", "must", "guard", "saga")


def draw_program(rng: random.Random) -> list[Step]:
    """Return a program of one to about twenty steps."""
    steps = _body(rng, depth=rng.choice([0, 1, 1, 2]), most=4)
    ending = rng.random()
    if ending < 0.1:
        steps.append(["fail", rng.randrange(100)])
    elif ending < 0.2:
        steps.append(["again", _body(rng, depth=0, most=3)])
    return steps


def _body(rng: random.Random, depth: int, most: int = 3) -> list[Step]:
    return [_step(rng, depth) for _ in range(rng.randint(1, most))]


def _step(rng: random.Random, depth: int) -> Step:
    if depth and rng.random() < 0.4:
        return _nested(rng, rng.choice(NESTED), depth - 1)
    return _leaf(rng, rng.choice(COMMON if rng.random() < 0.6 else RARE), depth)


def _nested(rng: random.Random, kind: str, depth: int) -> Step:
    match kind:
        case "gather" | "race" | "nursery":
            return [kind, *(_body(rng, depth) for _ in range(rng.randint(2, 3)))]
        case "patience" | "must":
            return [kind, rng.randint(0, 12), _body(rng, depth)]
        case _:
            return [kind, rng.randrange(3), _body(rng, depth)]


def _leaf(rng: random.Random, kind: str, depth: int) -> Step:
    n, ticks = rng.randrange(3), rng.randint(0, 6)
    drawn: dict[str, list[Any]] = {
        "task": [
            rng.choice(["work", "slow"]),
            n,
            ticks,
            rng.choice([0, 0, 0, 1, 2, 5]),
            rng.random() < 0.85,
        ],
        "strict": [n, rng.choice([1, 2, 5])],
        "once": [n, ticks],
        "beat": [n, rng.randint(1, 8)],
        "nap": [rng.choice(["a", "b"]), rng.choice([-1, 0, 1, 5, 20, 100, 600])],
        "take": [rng.choice(["go", "stop"]), rng.choice([None, 0, 2, 10, 50])],
        "answer": [rng.choice([0, 3, 20])],
        "local": [n],
        "chance": [],
        "publish": [rng.choice(["p", "q"]), rng.randrange(100)],
        "tell": [rng.choice(["go", "stop"]), rng.randrange(100)],
        "map": [rng.randint(0, 4), rng.choice([None, 1, 2]), ticks],
    }
    if kind == "kid":
        how = rng.choice(["call", "wait", "cancel", "forget"])
        reference = rng.choice([None, None, "a", "b"])
        timeout = rng.choice([None, None, 2, 30])
        return [kind, _body(rng, min(depth, 1), most=2), how, reference, timeout]
    return [kind, *drawn[kind]]
