"""The rows of the attributes table outside services: the project, networks, volumes and files.

A row has the path, a word and a text. The words: ``=`` as compose, ``~`` by policy, ``~!`` by policy
with a warning, ``!`` refused with a reason, and the remedy behind an arrow. A path with ``.**`` is also
for everything below.
"""

from __future__ import annotations

from typing import Final

#: Rows of path, word and text.
TOP_ROWS: Final[tuple[tuple[str, str, str], ...]] = (
    ("version", "=", "obsolete, no effect"),
    ("name", "=", "the namespace of the project's resources, as a DNS label of 20 characters"),
    ("services", "=", "each is a Service, or a Job if others wait for its completion"),
    ("include.**", "=", "local files are read into the project; remote ones are refused"),
    ("models.**", "~", "a service that uses one is refused"),
    ("networks", "=", "each is a Network that the services which list it share"),
    ("networks.*.name", "~!", "the engine's name is NAMESPACE.NETWORK"),
    (
        "networks.*.driver",
        "~",
        "a bridge; macvlan by a grant of the policy; another driver is refused",
    ),
    (
        "networks.*.driver_opts",
        "~",
        "parent of macvlan; others can open ways around the gate and are refused",
    ),
    ("networks.*.ipam", "~", "subnets within the policy's ranges"),
    (
        "networks.*.ipam.config.**",
        "~!",
        (
            "the subnet counts where a service has an ipv4_address there, or with enable_ipv6; else the engine "
            "chooses one"
        ),
    ),
    ("networks.*.ipam.driver", "!", "the engine's own address management is used → remove it"),
    ("networks.*.ipam.options", "!", "the engine's own address management is used → remove it"),
    (
        "networks.*.external",
        "~",
        "the network of that name, once an operator adopted it: trimtab network adopt NAME --as NAMESPACE/NETWORK",
    ),
    ("networks.*.external.name", "~", "the engine's name of the network"),
    ("networks.*.internal", "=", "no way out of the network"),
    ("networks.*.enable_ipv4", "~!", "networks have IPv4 addresses"),
    (
        "networks.*.enable_ipv6",
        "~!",
        "with an IPv6 subnet in ipam, by a grant of the policy (networks.ipv6)",
    ),
    ("networks.*.attachable", "=", "of Swarm, no effect on one host"),
    ("networks.*.labels", "~", "kept in the document's metadata, not on the engine's network"),
    ("volumes", "=", "each is a Volume, kept after its removal from the file"),
    ("volumes.*.name", "~!", "the engine's name is NAMESPACE.VOLUME"),
    ("volumes.*.driver", "~", "local; another driver is refused"),
    (
        "volumes.*.driver_opts",
        "~",
        "size, where the policy's volumeMax allows one; nfs and cifs by a grant (mounts.remote); others are refused",
    ),
    (
        "volumes.*.external",
        "~",
        "the volume of that name, once an operator adopted it: trimtab volume adopt NAME --as NAMESPACE/VOLUME",
    ),
    ("volumes.*.external.name", "~", "the engine's name of the volume"),
    ("volumes.*.labels", "~", "kept in the document's metadata, not on the engine's volume"),
    ("secrets", "=", "each is a Secret"),
    ("secrets.*.name", "~", "a Secret has the name of its key in the file"),
    (
        "secrets.*.environment",
        "!",
        (
            "a value of .env is plain text in the project → write file: NAME, and put the value below "
            "/etc/trimtab/secrets"
        ),
    ),
    (
        "secrets.*.file",
        "~",
        (
            "plain text isn't read from the project: the broker reads the file of that name in "
            "/etc/trimtab/secrets/NAMESPACE"
        ),
    ),
    ("secrets.*.external", "=", "the document of kind Secret with that name in the namespace"),
    ("secrets.*.external.name", "=", "the name of the document of kind Secret"),
    ("secrets.*.labels", "~", "kept in the document's metadata"),
    ("secrets.*.driver", "!", "of Swarm → write file: NAME"),
    ("secrets.*.driver_opts", "!", "of Swarm → write file: NAME"),
    ("secrets.*.template_driver", "!", "of Swarm → write the finished file"),
    ("configs", "=", "each is a Config; a changed content replaces the containers"),
    ("configs.*.name", "~", "a Config has the name of its key in the file"),
    ("configs.*.content", "=", "the text of the file"),
    (
        "configs.*.environment",
        "=",
        "the value of the variable in .env: trimtab's own environment never counts",
    ),
    ("configs.*.file", "=", "the content of the file in the project"),
    ("configs.*.external", "=", "the document of kind Config with that name in the namespace"),
    ("configs.*.external.name", "=", "the name of the document of kind Config"),
    ("configs.*.labels", "~", "kept in the document's metadata"),
    ("configs.*.template_driver", "!", "of Swarm → write the finished file"),
    ("x-trimtab.**", "=", "owner, profiles, files, volumes, networks and suspend of the project"),
)
