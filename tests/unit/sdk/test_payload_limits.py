"""Size limits, at -1, 0 and +1; and codecs that encrypt or compress."""

import logging
import zlib
from typing import Any

import pytest
from attrs import frozen

from aiki_sdk import JsonValue, PayloadError, PayloadTooLarge, encode_payload, input_hash
from aiki_sdk.payload import (
    PAYLOAD_BYTES_MAX,
    PAYLOAD_BYTES_WARN,
    check_payload_size,
    seal,
    unseal,
)


class Zip:
    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise ValueError(str(error)) from error


@frozen
class Order:
    id: str


def text_of(size_bytes: int) -> str:
    """Return a string whose JSON has that many bytes."""
    return "x" * (size_bytes - 2)


@pytest.mark.parametrize("size", [PAYLOAD_BYTES_MAX - 1, PAYLOAD_BYTES_MAX])
def test_a_payload_up_to_the_limit_is_accepted(size: int) -> None:
    assert encode_payload(text_of(size), str) == text_of(size)


def test_a_payload_over_the_limit_names_size_and_limit() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        encode_payload(text_of(PAYLOAD_BYTES_MAX + 1), str, what="the result of task 'x'")
    assert caught.value.size_bytes == PAYLOAD_BYTES_MAX + 1
    assert caught.value.limit_bytes == PAYLOAD_BYTES_MAX
    assert str(caught.value).startswith("the result of task 'x' is 2,097,153 bytes")


def test_the_limit_is_a_parameter() -> None:
    with pytest.raises(PayloadTooLarge):
        encode_payload("abc", str, limit_bytes=4)
    assert encode_payload("abc", str, limit_bytes=5) == "abc"


def test_a_large_payload_is_logged_before_it_is_too_large(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "aiki.payload"):
        check_payload_size(PAYLOAD_BYTES_WARN - 1)
        assert not caplog.records
        check_payload_size(PAYLOAD_BYTES_WARN, what="the input of task 'x'")
    assert "the input of task 'x' is 262144 bytes" in caplog.text


@pytest.mark.parametrize("value", [True, False, None, 1, "x", [1], {"a": 1}])
def test_encoding_checks_what_json_cannot_hold(value: Any) -> None:
    assert encode_payload(value) == value
    with pytest.raises(PayloadError, match="NUL"):
        encode_payload([value, "\x00"])


def test_a_payload_that_nests_too_deep_is_refused() -> None:
    value: JsonValue = 1
    for _ in range(64):
        value = [value]
    assert encode_payload(value) == value
    with pytest.raises(PayloadError, match="nested deeper than 64 levels"):
        encode_payload([value])
    with pytest.raises(PayloadError, match="nested deeper than 64 levels"):
        input_hash([value])


@pytest.mark.parametrize("json", [None, 1, "x", [1, {"a": None}], {"$sealed": 1, "b": 2}])
def test_what_was_sealed_is_opened_again(json: JsonValue) -> None:
    sealed = seal(json, Zip())
    assert isinstance(sealed, dict)
    assert sealed.keys() == {"$sealed"}
    assert unseal(sealed, Zip()) == json


def test_without_a_codec_nothing_changes() -> None:
    assert seal({"a": 1}, None) == {"a": 1}
    assert unseal({"a": 1}, Zip()) == {"a": 1}
    assert unseal({"a": 1}, None) == {"a": 1}


def test_a_sealed_payload_needs_its_codec() -> None:
    with pytest.raises(PayloadError, match="pass the same codec"):
        unseal(seal(1, Zip()), None)
    with pytest.raises(PayloadError, match="cannot open"):
        unseal({"$sealed": "AAAA"}, Zip())
