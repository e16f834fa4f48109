"""SOPS files on disk, and the private keys of the host.

The private keys of the host: make a key, and list recipients.

SOPS files on disk: encrypt, edit and rotate them.

Plain text is in memory, and for an editor in a file of mode 0600 on a tmpfs. Encrypted files are
replaced atomically.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controller.broker.secrets.key_files import KEYS, key_path, read_key
from controller.cli.output.terminal import ended_by
from controller.core.secrets import sealing
from controller.core.secrets.formats import SOURCE_MAX, SopsForm, form_of, unsupported
from controller.core.secrets.sops import Identities, SopsDocument, open_document, parse_identities
from controller.core.secrets.sops_metadata import KEY_BYTES, NONCE_BYTES, EncryptionRule, Recipient
from controller.model.errors import SecretError, StateError, UsageError
from controller.model.names import NAMESPACE_MAX, is_dns_label
from controller.system.durable_files import fsync_folder, write_atomic

_ENDING = ".age"


@dataclass(frozen=True, slots=True)
class NamespaceKey:
    """A key file of a namespace."""

    namespace: str
    recipients: tuple[str, ...]
    #: Why the key can't be used; '' if it can.
    problem: str = ""


def check_namespace(namespace: str) -> str:
    """Return a valid namespace.

    Raises:
        UsageError: not a valid name.
    """
    if not is_dns_label(namespace, length=NAMESPACE_MAX):
        raise UsageError(
            "secret.namespace",
            f"{namespace[:100]!r} is not a valid namespace",
            remedy=f"lower-case letters, digits and - inside, at most {NAMESPACE_MAX} characters",
        )
    return namespace


def make_key(namespace: str, *, now: float, folder: Path = KEYS) -> str:
    """Make a namespace's key, and return its recipient. Never replaces a key.

    Raises:
        UsageError: there is a key, or the namespace isn't valid.
        StateError: the file can't be written.
    """
    from pyrage import x25519

    path = key_path(check_namespace(namespace), folder)
    identity = x25519.Identity.generate()
    recipient = str(identity.to_public())
    created = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    text = f"# created: {created}\n# public key: {recipient}\n{identity}\n"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            os.fchmod(handle, 0o600)
            file.write(text)
            file.flush()
            os.fsync(handle)
        fsync_folder(folder)
    except FileExistsError:
        raise UsageError(
            "secret.key-exists",
            f"{path} is there already",
            remedy="keep it: Secrets of the namespace are encrypted for it; to change keys, move it "
            "away, make another, and `trimtab secret rotate` each file",
        ) from None
    except OSError as error:
        raise StateError(
            "secret.key-unwritable", f"{path}: {error.strerror}", remedy="run it as root"
        ) from None
    return recipient


def list_keys(folder: Path = KEYS) -> list[NamespaceKey]:
    """Return the keys of this host.

    Raises:
        StateError: the folder can't be read.
    """
    try:
        names = sorted(path.stem for path in folder.glob(f"*{_ENDING}"))
    except OSError as error:
        raise StateError(
            "secret.keys-unreadable", f"{folder}: {error.strerror}", remedy="run it as root"
        ) from None
    return [_listed(name, folder) for name in names]


def _listed(namespace: str, folder: Path) -> NamespaceKey:
    try:
        return NamespaceKey(namespace, identities_of(namespace, folder).recipients)
    except SecretError as error:
        return NamespaceKey(namespace, (), error.message)


def identities_of(namespace: str, folder: Path = KEYS) -> Identities:
    """Return the identities of a namespace.

    Raises:
        SecretError: no key, or a key that can't be used.
    """
    key = read_key(check_namespace(namespace), folder)
    return parse_identities(key.text, key.place)


#: Memory, never a disk.
PLAIN_FOLDERS = (Path("/dev/shm"), Path("/run"))  # noqa: S108 — mkdtemp makes a closed folder there
_OTHER_KEYS = ("pgp", "kms", "gcp_kms", "hckms", "azure_kv", "hc_vault", "key_groups")
_SOPS_ENDING = (signal.SIGTERM, signal.SIGHUP)
#: The type of the program that edits a file.
Editor = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class SopsFile:
    """A file with its format."""

    path: Path
    source: bytes
    form: SopsForm

    def open(self, identities: Identities) -> SopsDocument:
        """Decrypt and verify the file."""
        return open_document(self.source, self.form, identities)

    def replace(self, content: bytes) -> None:
        """Replace the file atomically, with its mode and, by root, with its owner.

        Raises:
            StateError: the file can't be written, or has changed meanwhile.
        """
        try:
            if self.path.read_bytes() != self.source:
                raise StateError(
                    "secret.file-changed",
                    f"{self.path} was changed by somebody else meanwhile, and stays as it is now",
                    remedy="run the command again",
                )
            status = self.path.stat()
            write_atomic(
                self.path,
                content,
                mode=status.st_mode & 0o777,
                owner=(status.st_uid, status.st_gid),
                folder_sync_required=False,
            )
        except OSError as error:
            raise StateError(
                "secret.unwritable", f"{self.path}: {error.strerror}", remedy="check its folder"
            ) from None


def read_file(path: Path) -> SopsFile:
    """Read a file.

    Raises:
        UsageError: the file can't be read.
        SecretError: too large, or of a format that trimtab doesn't read.
    """
    try:
        with path.open("rb") as file:
            source = file.read(SOURCE_MAX + 1)
    except OSError as error:
        raise UsageError("secret.unreadable", f"{path}: {error.strerror}") from None
    return SopsFile(path, source, form_of(path.name))


def encrypt(
    plain: SopsFile, recipients: Sequence[str], rule: EncryptionRule, *, now: float
) -> bytes:
    """Return a plain file as a SOPS document for *recipients*.

    Raises:
        SecretError: no valid recipient, or a file that can't be encrypted.
    """
    data_key = os.urandom(KEY_BYTES)
    metadata = sealing.new_metadata(_sealed_keys(data_key, recipients), rule)
    return _seal(plain, plain.source, metadata, data_key, now)


def edit(file: SopsFile, identities: Identities, editor: Editor, *, now: float) -> bytes | None:
    """Return the document after the editor; None if nothing changed. The data key stays.

    Raises:
        SecretError: the file can't be decrypted, or the result can't be encrypted.
        StateError: there is no tmpfs for the plain file, or the editor failed.
    """
    document = file.open(identities)
    before = sealing.reveal(file.source, file.form, document)
    after = _edited(before, file.path.name, editor)
    if after == before:
        return None
    metadata = sealing.read_raw_metadata(file.source, file.form)
    return _seal(file, after, metadata, document.data_key, now)


def rotate(
    file: SopsFile,
    identities: Identities,
    *,
    added: Sequence[str],
    removed: Sequence[str],
    now: float,
) -> bytes:
    """Return the document under a new data key, for its recipients without *removed*, with *added*.

    Raises:
        SecretError: the file can't be decrypted, or has keys that trimtab can't renew.
    """
    document = file.open(identities)
    metadata = sealing.read_raw_metadata(file.source, file.form)
    others = [kind for kind in _OTHER_KEYS if metadata.get(kind)]
    if others or sealing.has_sealed_comments(file.source):
        what = f"keys of {others[0]}" if others else "encrypted comments"
        raise unsupported(f"the file has {what}", "rotate it with `sops rotate --in-place FILE`")
    present = [each.recipient for each in document.metadata.recipients]
    wanted = [each for each in dict.fromkeys((*present, *added)) if each not in removed]
    data_key = os.urandom(KEY_BYTES)
    keys = _sealed_keys(data_key, wanted)
    metadata["age"] = [{"recipient": each.recipient, "enc": each.enc} for each in keys]
    plain = sealing.reveal(file.source, file.form, document)
    return _seal(file, plain, metadata, data_key, now)


def _seal(
    file: SopsFile, plain: bytes, metadata: sealing.RawMetadata, data_key: bytes, now: float
) -> bytes:
    return sealing.seal(
        plain,
        file.form,
        metadata=metadata,
        data_key=data_key,
        now=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        nonce=lambda: os.urandom(NONCE_BYTES),
    )


def _sealed_keys(data_key: bytes, recipients: Sequence[str]) -> list[Recipient]:
    """Return the data key encrypted for each recipient."""
    import pyrage

    if not recipients:
        raise SecretError(
            "secret.no-recipient", "there is no recipient left", remedy="name one with --recipient"
        )
    sealed = []
    for recipient in recipients:
        try:
            key = pyrage.x25519.Recipient.from_str(recipient)
        except pyrage.RecipientError:
            raise SecretError(
                "secret.recipient",
                f"{recipient[:80]!r} is not an age recipient",
                remedy="write a public key, which begins with age1",
            ) from None
        enc = pyrage.encrypt(data_key, [key], armored=True).decode()
        sealed.append(Recipient(recipient, enc))
    return sealed


def run_editor(path: Path) -> None:
    """Run the user's editor ($VISUAL, $EDITOR, else vi) on a file.

    Raises:
        StateError: the editor can't be started, or failed.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(command), str(path)], check=False)
    except (OSError, ValueError) as error:
        raise StateError(
            "secret.editor", f"{command}: {error}", remedy="name an editor in $EDITOR"
        ) from None
    if done.returncode != 0:
        raise StateError(
            "secret.editor", f"{command} ended with {done.returncode}: nothing was changed"
        )


def _edited(plain: bytes, name: str, editor: Editor) -> bytes:
    """Return what the editor makes of a text, in a closed folder of a tmpfs."""
    folder = next((each for each in PLAIN_FOLDERS if _is_memory(each)), None)
    if folder is None:
        raise StateError(
            "secret.no-tmpfs",
            "there is no tmpfs at /dev/shm for the plain text",
            remedy="mount one: mount -t tmpfs tmpfs /dev/shm",
        )
    with (
        ended_by(_SOPS_ENDING),
        tempfile.TemporaryDirectory(dir=folder, prefix="trimtab-secret-") as closed,
    ):
        path = Path(closed) / name
        path.touch(mode=0o600)
        path.write_bytes(plain)
        editor(path)
        return path.read_bytes()


def _is_memory(folder: Path) -> bool:
    """Return True if a folder lies on a tmpfs that this user can write to."""
    if not os.access(folder, os.W_OK):
        return False
    best = max(
        (
            (mount, kind)
            for mount, kind in (
                line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()
            )
            if folder == Path(mount) or Path(mount) in folder.parents
        ),
        key=lambda pair: len(pair[0]),
        default=("", ""),
    )
    return best[1] in {"tmpfs", "ramfs"}
