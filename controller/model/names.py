"""Names and labels of resources and of their containers, networks and volumes.

A name is never an identity. Ownership follows from the instance label together with the broker's
inventory, and DNS from the network alias.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

#: The kinds that have containers.
WORKLOADS = ("Service", "Job")
API_VERSION = "trimtab/v1"
#: The kinds of documents, in the order of tables.
KINDS = (
    "Service",
    "Job",
    "Network",
    "Volume",
    "Config",
    "Secret",
    "Release",
    "Source",
    "Notification",
)

PREFIX = "io.trimtab."
MANAGED = PREFIX + "managed"
INSTANCE = PREFIX + "instance"
INTENT = PREFIX + "intent"
ORIGIN = PREFIX + "origin"
OWNER = PREFIX + "owner"
SERVICE = PREFIX + "service"
NAMESPACE = PREFIX + "namespace"
SLOT = PREFIX + "slot"
REVISION = PREFIX + "revision"
IMAGE = PREFIX + "image"
#: Why a job's run was made, such as ``change``; on runs only.
OCCASION = PREFIX + "occasion"
#: On runs of a job with ``completions`` above 1: ``COMPLETIONS/PARALLELISM``, such as ``3/2``.
COMPLETIONS = PREFIX + "completions"

#: The hooks of a container, as JSON; on containers of documents with hooks only.
HOOKS = PREFIX + "hooks"
#: Shown on an adopted container, whose labels the broker adds to what the engine shows.
ADOPTED = PREFIX + "adopted"

#: The broker overwrites these labels in every request.
BROKER_LABELS = (MANAGED, INSTANCE, INTENT, ORIGIN)
#: Accepted from the controller only; written empty on a client's container.
CONTROLLER_LABELS = (NAMESPACE, SLOT, REVISION, IMAGE)
#: Accepted from the controller only, on the runs of jobs.
RUN_LABELS = (OCCASION, COMPLETIONS)
#: A client can set these; the owner must be its own.
CLIENT_LABELS = (OWNER, SERVICE)

DEFAULT_NAMESPACE = "default"
SERVICE_NAME_MAX = 27
NAMESPACE_MAX = 20
CONTAINER_NAME_MAX = 63
REPLICAS_MAX = 999
#: A job's name leaves room for the number of a run, of at most eight digits.
JOB_NAME_MAX = 20
REVISION_DIGITS = 8
#: Runs of a job that must succeed for an occasion, and runs at a time.
COMPLETIONS_MAX = 50
PARALLELISM_MAX = 10

#: The id of a commit, of SHA-1 or SHA-256.
COMMIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_INSTANCE = re.compile(r"[0-9a-f]{16}", re.ASCII)
_REVISION = re.compile(r"v2:[0-9a-f]{64}", re.ASCII)
_COMPLETIONS = re.compile(r"([1-9][0-9]?)/([1-9][0-9]?)", re.ASCII)
_RUN_SLOT = re.compile(r"run-([1-9][0-9]{0,7})", re.ASCII)
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)


def is_dns_label(text: str, *, length: int) -> bool:
    """Return True if *text* is a DNS label (RFC 1123) of at most *length* characters."""
    return 0 < len(text) <= length and _DNS_LABEL.fullmatch(text) is not None


def spelled(alias: str) -> str:
    """Return a name of a Compose file, with ``_`` or capitals, as the name of its service."""
    return alias.lower().replace("_", "-")


def is_revision(text: str) -> bool:
    """Return True for a revision with all its digits."""
    return _REVISION.fullmatch(text) is not None


def is_instance(text: str) -> bool:
    """Return True if *text* is the id of an instance: 16 hex digits."""
    return _INSTANCE.fullmatch(text) is not None


class Key(NamedTuple):
    """The key of a resource, printed as ``kind/namespace/name``.

    A tuple, because keys are hashed and compared in every loop over thousands of resources.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Parse the text that ``str`` returns for a key.

        Raises:
            ValueError: *text* does not have three parts.
        """
        kind, namespace, name = text.split("/")
        return cls(kind, namespace, name)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        """Return the schema for pydantic: a key is text, also as the key of a mapping.

        Without the schema, pydantic writes a list, and can't read back the keys of a mapping.
        """
        # Some commands know names and need no pydantic, which takes long to import.
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls.parse,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )


#: One slot of a service: the key of the service and the number of the slot.
SlotKey = tuple[Key, int]


def service_key(namespace: str, name: str) -> Key:
    """Return the key of a Service."""
    return Key("Service", namespace, name)


def job_key(namespace: str, name: str) -> Key:
    """Return the key of a Job."""
    return Key("Job", namespace, name)


def run_slot(number: int) -> str:
    """Return the slot label of a job's run, for example ``run-7``."""
    return f"run-{number}"


def run_of_slot(label: str) -> int:
    """Return the number of the run in a slot label; 0 if the container is no run."""
    match = _RUN_SLOT.fullmatch(label)
    return int(match[1]) if match else 0


def number_of_slot(label: str) -> int:
    """Return the number of the slot or the run in a slot label; 0 for another text."""
    return run_of_slot(label) or (int(label) if label.isascii() and label.isdigit() else 0)


def completions_label(completions: int, parallelism: int) -> str:
    """Return the label of a run, such as ``3/2``; '' for a job with one completion."""
    return f"{completions}/{parallelism}" if completions > 1 else ""


def completions_of(label: str) -> tuple[int, int] | None:
    """Return the completions and the parallelism in a run's label; ``(1, 1)`` for ''.

    None for a text that ``completions_label`` doesn't make within the limits.
    """
    if not label:
        return 1, 1
    match = _COMPLETIONS.fullmatch(label)
    if match is None:
        return None
    completions, parallelism = int(match[1]), int(match[2])
    fits = 1 < completions <= COMPLETIONS_MAX
    fits &= parallelism <= min(completions, PARALLELISM_MAX)
    return (completions, parallelism) if fits else None


def workload_key(namespace: str, name: str, slot_label: str) -> Key:
    """Return the key of a container's Service or Job, by the container's labels."""
    return Key("Job" if run_of_slot(slot_label) else "Service", namespace, name)


#: The code of a container with a service's slot that nobody may change: unknown, or released.
FOREIGN = "container.foreign"


@dataclass(frozen=True, slots=True)
class ForeignContainer:
    """A container without supervision that holds a slot: nobody changes the container, and nothing starts beside it.

    Either an operator released it; or it carries the label of this instance, the inventory lacks it, and it
    runs or may run. Then its labels prove nothing.
    """

    id: str
    name: str
    #: As the labels say; '' without a label. Of a released one, as it was admitted.
    namespace: str = ""
    service: str = ""
    slot: str = ""
    #: The named volumes mounted writable, sorted; of a released one, all that it mounts.
    writes: tuple[str, ...] = ()
    released: bool = False
    #: The networks that a released one needs at its next start.
    networks: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The service or job that the labels name."""
        return workload_key(self.namespace, self.service, self.slot)

    @property
    def remedy(self) -> str:
        """What an operator can do."""
        end = f"docker stop {self.name} && docker rm {self.name}"
        how = f" {self.name} --as {self.namespace}/{self.service}" if self.released else ""
        return f"take it over with 'trimtab adopt{how}', or end it: {end}"

    @property
    def reason(self) -> str:
        """Why nobody changes it."""
        return "was released" if self.released else "isn't in this instance's inventory"


def qualified(namespace: str, name: str) -> str:
    """Return ``NAMESPACE.NAME``, or the bare name in the default namespace.

    A Volume and a declared Network have this name on the engine. Names of containers start with it.
    """
    return name if namespace == DEFAULT_NAMESPACE else f"{namespace}.{name}"


def namespaced_network(base: str, namespace: str) -> str:
    """Return the name of a namespace's implied network: ``BASE``, or ``BASE.NAMESPACE``."""
    return base if namespace == DEFAULT_NAMESPACE else f"{base}.{namespace}"


@dataclass(frozen=True, slots=True)
class NetworkNames:
    """The base names of the implied networks.

    The policy sets them, so two instances can share an engine.
    """

    isolated: str = "platform-network"
    ingress: str = "platform-ingress"
    bridge: str = "platform-bridge"
    #: A service with ``mode: bridge`` joins the isolated network, too.
    bridge_joins_isolated: bool = False


def revision_digits(revision: str) -> str:
    """Return the hex digits of a revision, without its version; '' for ''."""
    return revision.rpartition(":")[2]


def short_commit(commit: str) -> str:
    """Return the first digits of a commit's id, as people see them."""
    return commit[:12]


def container_name(
    namespace: str, service: str, *, slot: int, revision: str, attempt: int = 1
) -> str:
    """Return ``[NAMESPACE.]SERVICE.SLOT-REV``, with ``.2``, ``.3`` for later attempts.

    REV is the first 8 hex digits of the revision (``v2:HEX``). Names are final: a container is
    never renamed, except back to its own name. Example: ``shop.web.1-0a1b2c3d.2``.
    """
    digits = revision_digits(revision)[:REVISION_DIGITS]
    assert len(digits) == REVISION_DIGITS, f"not a revision: {revision!r}"
    stem = f"{qualified(namespace, service)}.{slot}-{digits}"
    name = stem if attempt == 1 else f"{stem}.{attempt}"
    assert len(name) <= CONTAINER_NAME_MAX, f"container name too long: {name}"
    return name


def run_name(namespace: str, job: str, *, number: int, revision: str) -> str:
    """Return ``[NAMESPACE.]JOB.run-N-REV``, the name of a job's run.

    A number is used once, so a run has no later attempts. Example: ``shop.migrate.run-7-0a1b2c3d``.
    """
    digits = revision_digits(revision)[:REVISION_DIGITS]
    assert len(digits) == REVISION_DIGITS, f"not a revision: {revision!r}"
    name = f"{qualified(namespace, job)}.{run_slot(number)}-{digits}"
    assert len(name) <= CONTAINER_NAME_MAX, f"container name too long: {name}"
    return name
