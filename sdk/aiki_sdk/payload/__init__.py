"""Payload conversion: between Python values and the JSON that is stored and sent."""

from aiki_sdk.payload._codec import Codec as Codec, Kind as Kind, Misfit as Misfit
from aiki_sdk.payload._converter import CONVERTER as CONVERTER, PayloadConverter as PayloadConverter
from aiki_sdk.payload._encode import (
    PAYLOAD_BYTES_MAX as PAYLOAD_BYTES_MAX,
    PAYLOAD_BYTES_WARN as PAYLOAD_BYTES_WARN,
    PayloadCodec as PayloadCodec,
    check_payload_size as check_payload_size,
    encode_payload as encode_payload,
)
from aiki_sdk.payload._seal import (
    is_sealed as is_sealed,
    seal as seal,
    seal_error as seal_error,
    unseal as unseal,
    unseal_error as unseal_error,
    unseal_within as unseal_within,
)

__all__ = [
    "CONVERTER",
    "PAYLOAD_BYTES_MAX",
    "PAYLOAD_BYTES_WARN",
    "Codec",
    "Kind",
    "Misfit",
    "PayloadCodec",
    "PayloadConverter",
    "check_payload_size",
    "encode_payload",
    "is_sealed",
    "seal",
    "seal_error",
    "unseal",
    "unseal_error",
    "unseal_within",
]
