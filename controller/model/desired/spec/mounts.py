"""Mounts of a service, and the spec of a Volume.

Mounts of files, and the spec of a Config.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from controller.model.delivery import FILES_MAX, ID_MAX, NO_REACTION, RESTART, is_key
from controller.model.desired.spec import fields
from controller.model.desired.spec.fields import CleanPath, Model, SignalName, satisfying

_READABLE = 0o444
_MODE = re.compile(r"0[0-7]{3}", re.ASCII)


def _mode(text: str) -> str:
    if not _MODE.fullmatch(text) or not int(text, 8) & _READABLE:
        raise ValueError(
            'expected four octal digits in quotes, such as "0400", with a right to read'
        )
    return text


FileKey = Annotated[
    str, satisfying(is_key, "expected a relative path of at most 8 names, without '.' and '..'")
]
Id = Annotated[int, Field(ge=0, le=ID_MAX)]


class SignalOnChange(Model):
    """A changed content is put in place, then the container gets a signal."""

    signal: SignalName


def _form(value: object) -> str:
    return "mapping" if isinstance(value, dict | SignalOnChange) else "word"


OnChange = Annotated[
    Annotated[Literal["Restart", "None"], Tag("word")] | Annotated[SignalOnChange, Tag("mapping")],
    Discriminator(_form),
]


class FileMount(Model):
    """Files of a Config or a Secret of the namespace, mounted read-only."""

    #: A Config or a Secret.
    type: Literal["config", "secret"]
    #: The name of the Config or Secret.
    source: str
    #: The folder in the container, or with key the file.
    target: CleanPath
    #: The files to mount. Unset: all.
    keys: Annotated[tuple[FileKey, ...], Field(min_length=1, max_length=FILES_MAX)] | None = None
    #: The one file to mount as the target.
    key: FileKey | None = None
    #: The owner of the files. Unset: the service's numeric user, else 0.
    uid: Id | None = None
    #: The group of the files.
    gid: Id | None = None
    #: Permissions in four octal digits, such as "0400".
    mode: Annotated[str, AfterValidator(_mode)] | None = None
    #: Restart replaces the containers; a signal, or None, changes the files in place.
    on_change: OnChange = "Restart"

    @model_validator(mode="after")
    def _is_one(self) -> FileMount:
        if self.key is not None and self.keys is not None:
            raise ValueError("expected key or keys, not both")
        if self.key is not None and self.on_change != RESTART:
            raise ValueError("expected onChange: Restart with key: only a folder can change")
        return self

    @property
    def reaction(self) -> str:
        """``Restart``, ``None`` or the name of a signal (``Delivery.on_change``)."""
        change = self.on_change
        if isinstance(change, SignalOnChange):
            return change.signal
        return RESTART if change == RESTART else NO_REACTION


class SecretVariable(Model):
    """A variable of the environment with the value of a Secret's file."""

    #: The name of a Secret of the namespace.
    secret: Annotated[str, Field(min_length=1, max_length=63)]
    #: The file of the Secret with the value.
    key: FileKey


def _variable_form(value: object) -> str:
    return "secret" if isinstance(value, dict | SecretVariable) else "text"


#: A text, or a reference to a Secret.
Variable = Annotated[
    Annotated[str, Tag("text")] | Annotated[SecretVariable, Tag("secret")],
    Discriminator(_variable_form),
]


class GeneratedValue(Model):
    """A value that the broker makes once: letters and digits."""

    length: Annotated[int, Field(ge=8, le=1024)] = 32


class SecretSpec(Model):
    """The spec of a Secret: one of four sources."""

    sops: str | None = None
    age: Annotated[dict[FileKey, str], Field(min_length=1, max_length=256)] | None = None
    file: Annotated[dict[FileKey, FileKey], Field(min_length=1, max_length=256)] | None = None
    generate: (
        Annotated[dict[FileKey, GeneratedValue], Field(min_length=1, max_length=256)] | None
    ) = None

    @model_validator(mode="after")
    def _is_one(self) -> SecretSpec:
        given = [self.sops, self.age, self.file, self.generate]
        if sum(each is not None for each in given) != 1:
            raise ValueError("expected one of sops, age, file and generate")
        return self


class ConfigSpec(Model):
    """The spec of a Config: files as texts, or as files beside the document."""

    data: Annotated[dict[FileKey, str], Field(max_length=FILES_MAX)] = Field(default_factory=dict)
    files: Annotated[dict[FileKey, str], Field(max_length=FILES_MAX)] = Field(default_factory=dict)


class BindMount(fields.Model):
    """A folder or file of the host."""

    #: The kind of the mount.
    type: Literal["bind"]
    #: The path on the host, which the policy allows.
    source: fields.HostSource
    #: The path in the container.
    target: fields.CleanPath
    #: True: the container cannot write.
    read_only: bool = False


class VolumeMount(fields.Model):
    """A named volume of the namespace.

    A writable volume is exclusive to its service unless ``shared``.
    """

    #: The kind of the mount.
    type: Literal["volume"]
    #: The name of the volume.
    source: str
    #: The path in the container.
    target: fields.CleanPath
    #: True: the container cannot write.
    read_only: bool = False
    #: True: several containers can write at a time.
    shared: bool = False
    #: The mounted folder inside the volume, as a relative path.
    subpath: fields.RelativePath | None = None
    #: Leaves an empty volume empty: the engine copies nothing of the image into it.
    no_copy: bool = False


class TmpfsMount(fields.Model):
    """A filesystem in memory, of limited size."""

    #: The kind of the mount.
    type: Literal["tmpfs"]
    #: The path in the container.
    target: fields.CleanPath
    #: The largest size.
    size: fields.Size
    #: Permission bits of the folder in octal digits, such as ``1777``.
    mode: fields.FileMode | None = None
    #: Files in it can be executed, if the policy allows it.
    exec: bool = False


Mount = Annotated[BindMount | VolumeMount | TmpfsMount | FileMount, Field(discriminator="type")]


class RemoteFolder(fields.Model):
    """A folder of another machine, which the engine mounts."""

    #: The protocol.
    type: Literal["nfs", "cifs"]
    #: The name or address of the machine.
    server: Annotated[str, Field(min_length=1, max_length=253)]
    #: The exported folder; of cifs the share, with a slash before it.
    path: fields.CleanPath
    #: Options of the mount, such as vers=4.1, ro and soft.
    options: Annotated[tuple[str, ...], Field(max_length=32)] = ()


class VolumeSpec(fields.Model):
    """The spec of a Volume."""

    #: The largest size, where the engine's storage can hold it; fixed when the volume is created.
    size: fields.Size | None = None
    #: A folder of another machine. Unset: a folder of the engine.
    remote: RemoteFolder | None = None
    #: False: an operator's approval removes the volume, after a dump, once its document is gone.
    retain: bool = True
    #: The engine's name of an existing volume, which an operator adopted.
    engine_name: fields.EngineName | None = None
