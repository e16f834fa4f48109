"""Verification of signatures of commits and tags: SSH by ssh-keygen(1), OpenPGP by sqv(1).

An SSH key must be valid when the commit arrives, not at the time that the commit claims: the
holder of an expired key can write any time into a commit. sqv judges an OpenPGP key by the time of
the signature; a key that must no longer sign has to be revoked, or removed from the folder.

The keys of a source are a folder of root's with these files: ``allowed_signers`` (ssh-keygen(1), ALLOWED SIGNERS), ``revoked_keys`` (a key revocation list or
public keys), and OpenPGP certificates as ``*.asc`` or ``*.pgp``.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from controller.core.git.commit_objects import DetachedSignature
from controller.model.errors import SourceError
from controller.model.sources import CommitSignature
from controller.system.child_programs import Bounds, Finished, run_program

#: The namespace of Git's SSH signatures (gitformat-signature(5)).
NAMESPACE = "git"
PRINCIPALS_MAX = 16
_BOUNDS = Bounds(time_s=20.0, output_max=64 * 1024)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent"}
#: The type of the key ends in -CERT for a certificate.
_SSH_KEY = re.compile(r"with (\S+ key SHA256:[A-Za-z0-9+/]{43})")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}", re.ASCII)
_ADVICE = "commit with a key of the source's folder of keys, or add the key there"


class Verifier:
    """Checks signatures against one folder of keys, at one time.

    Args:
        keys: the trusted keys.
        now: seconds since the epoch, at which an SSH key must be valid.
        monotonic: the clock of the time bound.
    """

    def __init__(self, keys: TrustedKeys, *, now: float, monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._at = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d%H%M%SZ")
        self._monotonic = monotonic

    def verify(self, signature: DetachedSignature | None) -> CommitSignature:
        """Return who signed.

        Raises:
            SourceError: nobody signed, or the signature isn't good; the code says why.
        """
        if signature is None:
            raise SourceError("source.unsigned", "it has no signature", remedy=_ADVICE)
        with TemporaryDirectory(prefix="trimtab-verify-") as name:
            folder = Path(name)
            (folder / "signature").write_bytes(signature.armored)
            match signature.format:
                case "ssh" if self._keys.allowed_signers is not None:
                    return self._verify_ssh(signature, folder, self._keys.allowed_signers)
                case "openpgp" if self._keys.certificates:
                    return self._verify_openpgp(signature, folder)
                case other:
                    raise SourceError(
                        "source.signature-format",
                        f"its signature has the format {other}, and {self._keys.folder} has no key "
                        "of that format",
                        remedy=_ADVICE,
                    )

    def _verify_ssh(
        self, signature: DetachedSignature, folder: Path, allowed: Path
    ) -> CommitSignature:
        signed = ("-n", NAMESPACE, "-s", str(folder / "signature"))
        checked = self._run(("ssh-keygen", "-Y", "check-novalidate", *signed), signature.payload)
        found = _SSH_KEY.search(checked.output.decode("utf-8", "replace"))
        if not checked.is_success or found is None:
            raise _bad_signature(checked)
        key = found[1]
        at = f"-Overify-time={self._at}"
        known = self._run(
            ("ssh-keygen", "-Y", "find-principals", *signed[2:], "-f", str(allowed), at), b""
        )
        if not known.is_success:
            raise _unknown_key(key, known)
        revoked = ("-r", str(self._keys.revoked_keys)) if self._keys.revoked_keys else ()
        for principal in _principals(known):
            check = ("ssh-keygen", "-Y", "verify", *signed, "-f", str(allowed), "-I", principal, at)
            if not self._run(check, signature.payload).is_success:
                continue
            if revoked and not self._run((*check, *revoked), signature.payload).is_success:
                raise SourceError(
                    "source.key-revoked",
                    f"its key {key} ({principal}) is revoked by {self._keys.revoked_keys}",
                    remedy="sign the commit again with another key",
                )
            return CommitSignature("ssh", principal, key.rpartition(" ")[2])
        raise _unknown_key(key, known)

    def _verify_openpgp(self, signature: DetachedSignature, folder: Path) -> CommitSignature:
        (folder / "payload").write_bytes(signature.payload)
        keyrings = [part for path in self._keys.certificates for part in ("--keyring", str(path))]
        files = ("--signature-file", str(folder / "signature"), str(folder / "payload"))
        checked = self._run(("sqv", *keyrings, *files), b"")
        lines = checked.output.decode("utf-8", "replace").split()
        if checked.is_success and lines and _FINGERPRINT.fullmatch(lines[0]):
            return CommitSignature("openpgp", lines[0], lines[0])
        text = checked.errors.lower()
        if "in keyring" in text or "parse keyring" in text:
            raise _unusable(
                self._keys.folder, f"has a file that sqv refuses: {_first_line(checked)}"
            )
        if "no key to verify" in text or "missing key" in text or "can't be found" in text:
            raise _unknown_key(_first_line(checked), checked)
        if "revoked" in text:
            raise SourceError(
                "source.key-revoked", f"its key is revoked: {_first_line(checked)}", remedy=_ADVICE
            )
        if "expired" in text or "not live" in text:
            raise SourceError(
                "source.key-expired", f"its key isn't valid: {_first_line(checked)}", remedy=_ADVICE
            )
        raise _bad_signature(checked)

    def _run(self, argv: tuple[str, ...], given: bytes) -> Finished:
        try:
            finished = run_program(
                argv,
                environment=_ENVIRONMENT,
                bounds=_BOUNDS,
                monotonic=self._monotonic,
                given=given,
            )
        except OSError as error:
            raise SourceError(
                "source.verifier",
                f"{argv[0]} can't be run: {error.strerror}",
                remedy="install openssh-client for SSH signatures, sqv for OpenPGP signatures",
            ) from error
        if finished.exceeded:
            raise SourceError(
                "source.verifier", f"{argv[0]} went beyond its bound of {finished.exceeded}"
            )
        return finished


def _principals(known: Finished) -> list[str]:
    """Return the names of the lines that match a key; a line can have several, with commas."""
    lines = known.output.decode("utf-8", "replace").splitlines()
    names = [name for line in lines for name in line.split(",") if name and name[0] not in "!-"]
    return names[:PRINCIPALS_MAX]


def _bad_signature(checked: Finished) -> SourceError:
    return SourceError(
        "source.signature",
        f"its signature isn't good: {_first_line(checked)}",
        remedy="the commit was changed after it was signed; fetch it from a repository you trust",
    )


def _unknown_key(key: str, checked: Finished) -> SourceError:
    if "expired" in checked.errors or "not yet valid" in checked.errors:
        return SourceError(
            "source.key-expired",
            f"its key {key} isn't valid now: {_first_line(checked)}",
            remedy="sign with a valid key, or extend the validity in allowed_signers",
        )
    if "-CERT key" in key and "no valid principals" in checked.errors:
        return SourceError(
            "source.key-expired",
            f"its certificate ({key}) isn't valid now, or names nobody who may sign",
            remedy="sign with a new certificate of the authority in allowed_signers",
        )
    return SourceError(
        "source.key-unknown", f"nobody who may sign has its key {key}", remedy=_ADVICE
    )


def _first_line(checked: Finished) -> str:
    """Return the first line of stderr, without the folder of the key file."""
    lines = [line.strip() for line in checked.errors.splitlines() if line.strip()]
    return (lines[0] if lines else "no reason was given")[:200]


#: The folder of the folders of keys.
KEYS = Path("/etc/trimtab/keys")
ALLOWED_SIGNERS = "allowed_signers"
REVOKED_KEYS = "revoked_keys"
CERTIFICATES_MAX = 64


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The files of keys. A format without a file isn't accepted."""

    folder: Path
    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    certificates: tuple[Path, ...] = ()


def read_keys(folder: Path, *, owners: Iterable[int]) -> TrustedKeys:
    """Return the key files of a folder.

    *owners* are the uids that may own the folder and its files: root, or who runs trimtab.

    Raises:
        SourceError: the folder is missing, holds no key, or another user can change it.
    """
    trusted = frozenset(owners)
    try:
        _raise_if_foreign(folder, trusted)
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        for name in names:
            _raise_if_foreign(folder / name, trusted)
    except OSError as error:
        raise _unusable(folder, error.strerror or type(error).__name__) from error
    certificates = tuple(folder / name for name in names if name.endswith((".asc", ".pgp")))
    keys = TrustedKeys(
        folder,
        allowed_signers=folder / ALLOWED_SIGNERS if ALLOWED_SIGNERS in names else None,
        revoked_keys=folder / REVOKED_KEYS if REVOKED_KEYS in names else None,
        certificates=certificates[:CERTIFICATES_MAX],
    )
    if keys.allowed_signers is None and not keys.certificates:
        raise _unusable(folder, f"has neither {ALLOWED_SIGNERS} nor a certificate (*.asc, *.pgp)")
    return keys


def _raise_if_foreign(path: Path, owners: frozenset[int]) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _unusable(path, "is a link")
    if status.st_uid not in owners:
        raise _unusable(path, f"belongs to uid {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(path, f"has mode {stat.S_IMODE(status.st_mode):04o}: others can change it")


def _unusable(path: Path, why: str) -> SourceError:
    return SourceError(
        "source.keys",
        f"the keys can't be used: {path} {why}",
        remedy="put public keys there, owned by root and writable by nobody else (docs/git.md)",
    )
