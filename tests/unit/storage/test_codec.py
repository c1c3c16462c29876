"""The form of journal entries and notices: read back as written, and never to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
from hypothesis import given, strategies as st

from aiki_actors.engine import (
    ENTRY_KINDS,
    FORMAT,
    Call,
    CancelRequested,
    ChildStarted,
    CreateRun,
    Entry,
    Micros,
    Notice,
    RunClaimed,
    RunCompleted,
    RunCreated,
    SleepStarted,
    TaskFailed,
    TaskSucceeded,
)
from aiki_actors.storage import entry_to_json
from aiki_actors.storage._codec import (
    NOTICE_KINDS,
    decode_entry,
    decode_notice,
    encode_entry,
    encode_notice,
)
from aiki_sdk import (
    ErrorInfo,
    JournalVersionError,
    JsonValue,
    PayloadError,
    StorageCorrupt,
    dumps,
    loads,
)
from aiki_sdk.protocol import OnParentEnd
from tests.unit.storage.strategies import entries, notices

GOLDEN = Path(__file__).parent / "golden" / "entries-v1.json"
CALL = Call("task:charge:9f")
NOW = Micros(1_790_000_000_123_456)


def read_back(entry: Entry) -> Entry:
    seq, at, kind, body = encode_entry(entry)
    return decode_entry("run_0", seq, at, kind, FORMAT, body)


@pytest.mark.parametrize("kind", sorted(ENTRY_KINDS))
@given(data=st.data())
def test_every_kind_of_entry_is_read_back_as_it_was_written(kind: str, data: st.DataObject) -> None:
    entry = data.draw(entries(kind))
    assert read_back(entry) == entry
    assert json.loads(encode_entry(entry)[3]) is not None


@pytest.mark.parametrize("kind", sorted(NOTICE_KINDS))
@given(data=st.data())
def test_every_kind_of_notice_is_read_back_as_it_was_written(
    kind: str, data: st.DataObject
) -> None:
    notice = data.draw(notices(kind))
    written, body = encode_notice(notice)
    assert written == kind
    read = decode_notice(notice.id, notice.source_id, notice.target_id, kind, FORMAT, body)
    assert read == notice


@pytest.mark.parametrize("kind", sorted(ENTRY_KINDS))
def test_what_the_first_release_wrote_is_still_read_and_still_written_so(kind: str) -> None:
    """The golden file is never changed for a kind that is in it; new kinds are added."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    samples = golden[kind]
    assert len(samples) >= 2 or not attrs.fields(cast("Any", ENTRY_KINDS[kind]))
    for sample in samples:
        data = dumps(sample["body"])
        entry = decode_entry("run_0", sample["seq"], NOW, kind, golden["format"], data)
        assert entry_to_json(entry) == {**sample, "kind": kind}


@pytest.mark.parametrize("kind", sorted(NOTICE_KINDS))
def test_notices_of_the_first_release_are_still_read_and_still_written_so(kind: str) -> None:
    golden = json.loads((GOLDEN.parent / "notices-v1.json").read_text(encoding="utf-8"))
    for sample in golden[kind]:
        notice = decode_notice("n", "a", "b", kind, golden["format"], dumps(sample))
        assert json.loads(encode_notice(notice)[1]) == sample
    assert len(golden[kind]) == 2


def test_absent_and_default_fields_are_left_out() -> None:
    assert encode_entry(Entry(1, NOW, RunCompleted(None)))[3] == b"{}"
    created = RunCreated("default", "w", "1", None, "00")
    assert loads(encode_entry(Entry(1, NOW, created))[3]) == {
        "namespace": "default",
        "workflow": "w",
        "version": "1",
        "input_hash": "00",
    }
    slept = SleepStarted(CALL, Micros(60_000_000), NOW)
    assert loads(encode_entry(Entry(1, NOW, slept))[3]) == {
        "call": {"address": "task:charge:9f"},
        "duration": 60,
        "due_at": "2026-09-21T14:13:20.123456Z",
    }


def test_a_field_that_a_newer_release_added_is_ignored() -> None:
    body = dumps({"worker_id": "w", "epoch": 1, "claim_id": "c", "zone": "eu"})
    entry = decode_entry("run_0", 3, NOW, "run-claimed", FORMAT, body)
    assert entry == Entry(3, NOW, RunClaimed("w", 1, "c"))


@pytest.mark.parametrize(("kind", "form"), [("run-claimed", FORMAT + 1), ("run-sublimated", 1)])
def test_an_entry_of_a_newer_release_is_refused_by_name(kind: str, form: int) -> None:
    with pytest.raises(JournalVersionError) as caught:
        decode_entry("run_7", 3, NOW, kind, form, b"{}")
    for word in ("run_7", "entry 3", kind, f"format {form}", f"up to {FORMAT}"):
        assert word in caught.value.message
    assert ("run-created" in caught.value.message) == (kind not in ENTRY_KINDS)


def test_a_notice_of_a_newer_release_is_refused_by_name() -> None:
    with pytest.raises(JournalVersionError, match=r"notice run_7:3:0 .*'adopt-run'.*end-child"):
        decode_notice("run_7:3:0", "run_7", "run_8", "adopt-run", 1, b"{}")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"worker_id":1,"epoch":1,"claim_id":"c"}', b"\xff"]
)
def test_a_damaged_body_is_told_from_a_new_one(body: bytes) -> None:
    with pytest.raises(StorageCorrupt, match=r"entry 3 of run run_7 \(run-claimed\)"):
        decode_entry("run_7", 3, NOW, "run-claimed", FORMAT, body)


@pytest.mark.parametrize("field", ["call", "due_at", "duration"])
@pytest.mark.parametrize("value", [None, 5, "soon", [], {}])
def test_a_damaged_field_is_told_from_a_new_one(field: str, value: JsonValue) -> None:
    if (field, value) == ("duration", 5):
        return
    good = loads(encode_entry(Entry(1, NOW, SleepStarted(CALL, Micros(1), NOW)))[3])
    assert isinstance(good, dict)
    with pytest.raises(StorageCorrupt, match="entry 1 of run run_7"):
        decode_entry("run_7", 1, NOW, "sleep-started", FORMAT, dumps({**good, field: value}))


def deep(levels: int) -> JsonValue:
    value: JsonValue = None
    for _ in range(levels):
        value = [value]
    return value


def test_a_payload_may_nest_as_deep_as_payloads_may_whatever_it_is_wrapped_in() -> None:
    payload = deep(64)
    spec = RunCreated("default", "w", "1", payload, "00")
    for body in (
        TaskSucceeded(CALL, 1, payload),
        TaskFailed(CALL, 1, ErrorInfo("E", "no", details=cast("Any", deep(60)))),
        ChildStarted(CALL, "run_1", "w", "1", OnParentEnd.CANCEL, spec),
    ):
        entry = Entry(1, NOW, body)
        assert read_back(entry) == entry
    _, data = encode_notice(Notice("n", "a", "b", CreateRun(spec)))
    assert decode_notice("n", "a", "b", "create-run", FORMAT, data).command == CreateRun(spec)


def test_what_cannot_be_json_is_refused_before_it_is_written() -> None:
    with pytest.raises(PayloadError):
        encode_entry(Entry(1, NOW, TaskSucceeded(CALL, 1, float("nan"))))
    with pytest.raises(PayloadError):
        encode_entry(Entry(1, NOW, RunClaimed("\x00", 1, "c")))
    with pytest.raises(ValueError, match="years 1 to 9999"):
        encode_entry(Entry(1, NOW, CancelRequested(None, Micros(2**60))))


def test_a_history_view_shows_times_as_iso() -> None:
    view = entry_to_json(Entry(4, NOW, RunClaimed("w", 2, "c")))
    assert view == {
        "seq": 4,
        "at": "2026-09-21T14:13:20.123456Z",
        "kind": "run-claimed",
        "body": {"worker_id": "w", "epoch": 2, "claim_id": "c"},
    }
