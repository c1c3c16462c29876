"""Hypothesis strategies for what storage keeps: every kind of entry, notices, and JSON.

Bodies are drawn from the annotations of the entry classes, so that a new kind or field is covered
without a line here; an annotation that is not known is a KeyError.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs
from hypothesis import strategies as st

from aiki_actors.engine import ENTRY_KINDS, Body, Call, Entry, Micros, Notice
from aiki_actors.storage._codec import NOTICE_KINDS
from aiki_sdk import ErrorInfo

TIME_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""
DURATION_MAX: Final = 2**32 * 1_000_000 - 1

texts: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12
)
big_ints: Final = st.integers(min_value=-(2**80), max_value=2**80)
scalars: Final = st.one_of(
    st.none(), st.booleans(), big_ints, st.floats(allow_nan=False, allow_infinity=False), texts
)
json_values: Final = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
times: Final = st.integers(-62_135_596_800_000_000, TIME_MAX).map(Micros)
durations: Final = st.integers(-DURATION_MAX, DURATION_MAX).map(Micros)
calls: Final = st.builds(Call, texts, texts, st.integers(0, 2**63 - 1))
errors: Final = st.builds(
    ErrorInfo,
    type=texts.filter(bool),
    message=texts,
    traceback=st.none() | texts,
    cause=st.none() | st.builds(ErrorInfo, texts.filter(bool), texts),
    code=st.none() | texts,
    retryable=st.booleans(),
    details=json_values,
)

_FIELDS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "Call": calls,
    "ErrorInfo": errors,
    "JsonValue": json_values,
    "Mapping[str, str]": st.dictionaries(texts, texts, max_size=3),
    "bool": st.booleans(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "str": texts,
    "tuple[str, ...]": st.lists(texts, max_size=3).map(tuple),
}


def made(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Draw an instance of an attrs class by its annotations."""
    fields = {
        attribute.name: _field(cls, attribute.name, cls.__annotations__[attribute.name])
        for attribute in attrs.fields(cls)
    }
    return st.builds(cls, **fields)


def _field(cls: type[Any], name: str, annotation: str) -> st.SearchStrategy[Any]:
    if annotation.endswith(" | None"):
        return st.none() | _field(cls, name, annotation.removesuffix(" | None"))
    if annotation == "Micros":
        return times if name.endswith("_at") or name == "deadline" else durations
    if annotation == "tuple[Body, ...]":
        some = st.sampled_from(("task-succeeded", "sleep-started", "run-parked"))
        return st.lists(some.flatmap(bodies), max_size=3).map(tuple)
    if annotation in _FIELDS:
        return _FIELDS[annotation]
    named = vars(sys.modules[cls.__module__])[annotation]
    return st.sampled_from(named) if issubclass(named, Enum) else made(named)


def bodies(kind: str) -> st.SearchStrategy[Body]:
    """Draw the body of an entry of one kind."""
    return made(ENTRY_KINDS[kind])


def entries(kind: str) -> st.SearchStrategy[Entry]:
    """Draw an entry of one kind."""
    return st.builds(Entry, st.integers(1, 2**63 - 1), times, bodies(kind))


def notices(kind: str) -> st.SearchStrategy[Notice]:
    """Draw a notice of one kind."""
    return st.builds(Notice, texts, texts, texts, made(NOTICE_KINDS[kind]))
