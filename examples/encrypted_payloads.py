"""Payloads that only workers and clients can read: AES-GCM, with keys that can be changed.

Run it with ``python -m examples.encrypted_payloads``. It needs the package `cryptography`.

The database gets ciphertext alone. Every payload names the key that sealed it, so that a new key
can take over while payloads of the old one are still read: give both, the new one first, and drop
the old one when no run of its time is kept any more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from attrs import frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import aiki_trio
from aiki_sdk import Run, task, workflow

NONCE_BYTES = 12


class KeyRing:
    """A `PayloadCodec` of AES-256-GCM: seals with the first key, opens with any.

    What is sealed: one byte with the length of the key's name, the name, the nonce, the ciphertext.
    The name is authenticated with it. A key may seal about 2**32 payloads, for nonces are random.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take keys of 32 bytes by name, the newest first."""
        self._ciphers = {name.encode(): AESGCM(key) for name, key in keys.items()}
        self._newest = next(iter(self._ciphers))

    def encode(self, data: bytes) -> bytes:
        """Seal with the newest key."""
        name, nonce = self._newest, os.urandom(NONCE_BYTES)
        sealed = self._ciphers[name].encrypt(nonce, data, name)
        return bytes([len(name)]) + name + nonce + sealed

    def decode(self, data: bytes) -> bytes:
        """Open with the key that the payload names; a ValueError says that this cannot be."""
        start = 1 + data[0]
        name, nonce = data[1:start], data[start : start + NONCE_BYTES]
        cipher = self._ciphers.get(name)
        if cipher is None:
            message = f"it was sealed with key {name.decode(errors='replace')!r}, which is not here"
            raise ValueError(message)
        try:
            return cipher.decrypt(nonce, data[start + NONCE_BYTES :], name)
        except InvalidTag as error:
            message = f"it was changed, or key {name.decode()!r} is another one now"
            raise ValueError(message) from error


@frozen
class Patient:
    name: str
    diagnosis: str


@task
async def write_letter(patient: Patient) -> str:
    return f"Dear {patient.name}, about your {patient.diagnosis}: …"


@workflow(name="inform-patient", version="1.0.0")
async def inform_patient(run: Run, patient: Patient) -> str:
    letter = await write_letter(patient)
    await run.sleep("day-of-grace", seconds=0.2)
    return letter


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


async def main() -> None:
    """Start a run under one key, and finish it under the next."""
    march, april = AESGCM.generate_key(256), AESGCM.generate_key(256)
    with TemporaryDirectory() as folder:
        database = Path(folder) / "runs.db"
        url = f"sqlite:///{database}"
        async with aiki_trio.open_runtime(
            url, workflows=[inform_patient], codec=KeyRing({"march": march})
        ) as runtime:
            handle = await runtime.client.start(inform_patient, Patient("Ada", "sore throat"))
            await handle.wait("sleeping")

        async with aiki_trio.open_runtime(
            url, workflows=[inform_patient], codec=KeyRing({"april": april, "march": march})
        ) as runtime:
            handle = await runtime.client.get(handle.id, workflow=inform_patient)
            print("the client reads:", await handle.result())

        print("the database holds the diagnosis:", b"sore throat" in everything_in(Path(folder)))


if __name__ == "__main__":
    trio.run(main)
