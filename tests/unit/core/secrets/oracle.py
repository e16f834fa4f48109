"""The program sops, which writes the format: what trimtab reads and writes is compared with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pyrage

from controller.core.secrets.sops import Identities, parse_identities

SOPS = Path(sys.executable).parent / "sops"


class Keys:
    """A key pair of age."""

    def __init__(self, private: str = "") -> None:
        self.private = private or str(pyrage.x25519.Identity.generate())
        self.identities: Identities = parse_identities(self.private, "the key")

    @property
    def recipient(self) -> str:
        """The public key."""
        return self.identities.recipients[0]

    def sealed(self, data: bytes) -> str:
        """Return an armored age file for this key."""
        recipient = pyrage.x25519.Recipient.from_str(self.recipient)
        return str(pyrage.encrypt(data, [recipient], armored=True), "ascii")


def encrypt(name: str, plain: bytes, keys: Keys, *, rules: str = "") -> bytes:
    """Return a file as sops encrypts it; *rules* are lines of a creation rule."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(plain)
        config = Path(folder) / "config.yaml"
        config.write_text(f"creation_rules:\n  - age: {keys.recipient}\n{rules}")
        return _run("--config", str(config), "encrypt", str(path), keys=keys)


def decrypt(name: str, source: bytes, keys: Keys, *, output: str = "") -> bytes:
    """Return a file as sops decrypts it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(source)
        form = ("--output-type", output) if output else ()
        return _run("decrypt", *form, str(path), keys=keys)


def _run(*arguments: str, keys: Keys) -> bytes:
    environment = {"SOPS_AGE_KEY": keys.private, "HOME": "/nonexistent"}
    run = subprocess.run(
        [str(SOPS), *arguments], env=environment, capture_output=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout
