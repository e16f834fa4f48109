"""Mounts of a service, and the spec of a Volume."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.desired.spec import fields
from controller.model.desired.spec.files import FileMount


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
