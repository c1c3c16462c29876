"""Addresses: their texts are a storage format and never change."""

import pytest
from hypothesis import given, strategies as st

from aiki_sdk import _addresses as addresses


def test_the_texts_never_change() -> None:
    assert addresses.task_address("charge-card", "ab12") == "task:charge-card:ab12"
    assert addresses.child_address("order", "1.0.0", "ref-1") == "child:order:1.0.0:ref-1"
    assert addresses.local_address("pick", "ab12") == "local:pick:ab12"
    assert addresses.sleep_address("cool-off") == "sleep:cool-off"
    assert addresses.event_address("paid") == "event:paid"
    assert addresses.child_wait_address("run_1") == "child-wait:run_1"
    assert addresses.timeout_address("late") == "timeout:late"
    assert addresses.race_address("first") == "race:first"
    assert addresses.question_address("quote") == "question:quote"
    assert addresses.send_address("run_1", "paid", "ab12") == "send:run_1:paid:ab12"
    assert addresses.publish_address("progress", "ab12") == "publish:progress:ab12"
    assert addresses.command_address("cancel", "run_1") == "command:cancel:run_1"


def test_the_root_branch_is_written_as_no_text() -> None:
    assert addresses.branch_text(()) == ""
    assert addresses.branch_text((0, 2, 1)) == "0.2.1"


@given(st.lists(st.integers(0, 10**6)).map(tuple))
def test_a_branch_path_reads_back_the_same(path: tuple[int, ...]) -> None:
    assert addresses.branch_from_text(addresses.branch_text(path)) == path


def test_a_damaged_branch_path_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        addresses.branch_from_text("0..1")
