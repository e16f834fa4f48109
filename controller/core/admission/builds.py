"""Admission of builds: the parameters, the Dockerfile, and the images that a build starts from."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from controller.core.builds.dockerfile import Dockerfile
from controller.core.effective import is_reserved
from controller.core.encoding import json_values
from controller.core.encoding.identifiers import matches, parse_reference
from controller.core.encoding.text import quote
from controller.core.engine_api.requests import Finding
from controller.core.policy.grants import with_grants
from controller.core.rules.context import requested_place
from controller.core.rules.identity import judge_owner
from controller.core.rules.images import judge_platform, judge_reference
from controller.model import names
from controller.model.errors import Problem
from controller.model.inventory import TrustedImage
from controller.model.policy.document import Policy
from controller.model.policy.sections import BuildRules
from controller.model.quantities import format_bytes
from controller.model.records import Actor, Role

#: Images that one build may start from.
BASES_MAX = 32
#: The period of a CPU quota, in microseconds.
_PERIOD = 100_000
_PLACE = (names.OWNER, names.NAMESPACE, names.SERVICE)
_TEXTS_MAX = 8192


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A build as it is asked for, with typed parameters."""

    rules: BuildRules
    #: The canonical reference of the result.
    reference: str
    owner: str
    #: An operator vouches for the result. The owner proves nothing: documents name theirs freely.
    by_operator: bool
    namespace: str
    #: The document; '' for none.
    service: str
    #: The name of the Dockerfile in the context.
    dockerfile: str
    #: Build arguments. Their values can be secret.
    args: Mapping[str, str] = field(repr=False)
    #: None for the last stage.
    target: str | None
    labels: Mapping[str, str]
    memory: int
    #: Bytes of /dev/shm; 0 for the engine's default.
    shm: int
    network: str
    #: Pull bases that are here, too.
    pull: bool
    quiet: bool

    @property
    def environment(self) -> tuple[str, ...]:
        """The arguments as ``NAME=value``, in the form that redaction knows."""
        return tuple(f"{name}={value}" for name, value in sorted(self.args.items()))

    @property
    def query(self) -> dict[str, str]:
        """The parameters for the engine. Every limit is the policy's, or a smaller one."""
        cpus = self.rules.cpus * _PERIOD // 1_000_000_000
        return {
            "version": "1",
            "dockerfile": self.dockerfile,
            "buildargs": json.dumps(dict(self.args)),
            "labels": json.dumps(dict(self.labels)),
            "networkmode": self.network,
            "memory": str(self.memory),
            "memswap": str(self.memory),
            "cpuperiod": str(_PERIOD),
            "cpuquota": str(max(1000, cpus)),
            **({"shmsize": str(self.shm)} if self.shm else {}),
            # No layer of another build is used, and no container stays.
            "nocache": "1",
            "rm": "1",
            "forcerm": "1",
        }


def read_build(
    query: Mapping[str, str],
    *,
    actor: Actor,
    policy: Policy,
    host: str,
) -> BuildRequest | tuple[Finding, ...]:
    """Return the request, or why it is refused by its parameters.

    *host* is the engine's platform, '' if unknown.
    """
    rules = policy.images.build
    if rules is None:
        reason = "this policy grants no builds"
        remedy = "build elsewhere and pull the image, or let root add `build: {}` to images"
        return (Finding("build.denied", "build", reason, remedy),)
    findings: list[Finding] = []
    labels = _texts(query, "labels", findings)
    args = _texts(query, "buildargs", findings)
    place = requested_place(labels, actor, policy)
    findings += _judge_place(place.owner, place.namespace, actor, policy, rules)
    findings += _judge_fixed(query, rules)
    findings += judge_platform(query.get("platform", ""), host, policy) if host else ()
    own = {
        key: value
        for key, value in labels.items()
        if not (actor.role is Role.CONTROLLER and key in _PLACE)
    }
    for key in filter(is_reserved, own):
        reason = f"the label {quote(key)} is the gate's own"
        findings.append(Finding("build.label", "labels", reason, "choose another label"))
    reference = query.get("t", "")
    if not reference:
        remedy = "name the image: docker build -t NAME:TAG"
        findings.append(Finding("build.tag", "t", "the result has no name", remedy))
    elif "@" in reference:
        findings.append(Finding("build.tag", "t", "a name has no digest", "write NAME:TAG"))
    else:
        findings += judge_reference(reference, policy, path="t")
    dockerfile = posixpath.normpath(query.get("dockerfile") or "Dockerfile")
    if dockerfile.startswith(("/", "..")) or len(dockerfile) > names.CONTAINER_NAME_MAX * 8:
        reason = f"{quote(dockerfile)} isn't in the context"
        findings.append(Finding("build.dockerfile", "dockerfile", reason, "name a file below it"))
    memory = _number(query, "memory", findings)
    if findings:
        return with_grants(findings, policy)
    return BuildRequest(
        rules=rules,
        reference=parse_reference(reference).canonical,
        owner=place.owner,
        by_operator=actor.role is Role.OPERATOR,
        namespace=place.namespace,
        service=place.service,
        dockerfile=dockerfile,
        args=args,
        target=query.get("target") or None,
        labels=own,
        memory=memory or rules.memory,
        shm=_number(query, "shmsize", findings),
        network="none" if query.get("networkmode") == "none" else rules.network,
        pull=query.get("pull") == "1",
        quiet=query.get("q") == "1",
    )


def _texts(query: Mapping[str, str], name: str, findings: list[Finding]) -> dict[str, str]:
    """Return a JSON object of texts; a name without a value is left out."""
    text = query.get(name, "")
    value: object = {}
    if text and text != "null":
        try:
            value = json_values.parse_strict(text.encode(), bytes_max=_TEXTS_MAX)
        except json_values.InvalidJson:
            value = None
    if not isinstance(value, dict) or not all(
        isinstance(each, str | None) for each in value.values()
    ):
        findings.append(Finding("query.invalid", name, "expected a JSON object of texts"))
        return {}
    return {key: each for key, each in value.items() if each is not None}


def _number(query: Mapping[str, str], name: str, findings: list[Finding]) -> int:
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        findings.append(Finding("query.invalid", name, "expected a number of bytes"))
        return 0
    return int(text)


def _judge_place(
    owner: str, namespace: str, actor: Actor, policy: Policy, rules: BuildRules
) -> Iterable[Finding]:
    """Yield why an owner's documents may not build, or not in a namespace."""
    yield from judge_owner(policy, actor.role, owner, namespace)
    if actor.role is Role.OPERATOR:
        return
    if rules.owners is not None and owner not in rules.owners:
        reason = f"{quote(owner)} isn't an owner whose documents may build"
        yield Finding("build.owner", "labels", reason, "let root add it to images.build.owners")
    if policy.signed_source(namespace) is not None:
        reason = f"the namespace {quote(namespace)} requires signed sources, and no build is signed"
        yield Finding("build.signed", "labels", reason, "build elsewhere, and name the digest")


#: Limits of a build by the member of a create that its kernel must keep.
_KEPT = (("Memory", "memory"), ("MemorySwap", "swap"), ("CpuQuota", "cpus"))


def _judge_fixed(query: Mapping[str, str], rules: BuildRules) -> Iterable[Finding]:
    """Yield the parameters that the policy or the gate fixes, with other values."""
    if query.get("version", "") not in {"", "1"}:
        reason = "BuildKit can't hold the policy's limits of memory, CPUs and network"
        yield Finding("build.builder", "version", reason, "set DOCKER_BUILDKIT=0")
    if query.get("remote"):
        reason = "the context would be fetched by the engine"
        yield Finding("build.remote", "remote", reason, "send the files: docker build DIR")
    network = query.get("networkmode", "")
    if network not in {"", "default", "none"} and network != rules.network:
        reason = f"a build has the network {rules.network} or none, not {quote(network)}"
        yield Finding("build.network", "networkmode", reason, "leave it out")
    for name in ("cpusetcpus", "cpusetmems"):
        if query.get(name):
            reason = "a build isn't bound to processors"
            yield Finding("build.limit", name, reason, "leave it out")
    for name, most in (("memory", rules.memory), ("shmsize", rules.memory)):
        text = query.get(name) or "0"
        if text.isdecimal() and int(text[:16]) > most:
            reason = f"more than the policy's {format_bytes(most)}"
            yield Finding("build.limit", name, reason, "ask for less, or leave it out")


def judge_kernel(policy: Policy, ignores: Collection[str]) -> Iterable[Finding]:
    """Yield the limits of a build that the engine's kernel can't keep, and the policy demands."""
    for member, limit in _KEPT:
        if member in ignores and limit not in policy.engine.ignores:
            reason = f"the engine can't keep the limit of {limit}, so no build would be bounded"
            remedy = f"enable it in the kernel, or let root add {limit} to engine.ignores"
            yield Finding("build.limit", limit, reason, remedy)


def judge_dockerfile(
    read: Dockerfile | tuple[Problem, ...], name: str, policy: Policy, archives: Collection[str]
) -> tuple[Finding, ...]:
    """Return why a Dockerfile is refused, by its problems or the images that it starts from.

    *archives* are the files of the context that an engine's ADD would unpack.
    """
    if not isinstance(read, Dockerfile):
        return tuple(
            Finding(each.code, f"{name}:{each.line}", each.message, each.remedy) for each in read
        )
    found: list[Finding] = list(_judge_archives(read, name, archives))
    if len(read.bases) > BASES_MAX:
        reason = f"more than {BASES_MAX} images"
        found.append(Finding("build.from", name, reason, "build it in parts"))
    for base in read.bases[:BASES_MAX]:
        found += judge_base(base.image, f"{name}:{base.line}", policy)
    return tuple(found)


def judge_base(image: str, path: str, policy: Policy) -> tuple[Finding, ...]:
    """Return why a build may not start from an image; *path* is the place that names it."""
    if judged := list(judge_reference(image, policy, path=path)):
        return tuple(with_grants(judged, policy))
    rules = policy.images.build
    allowed = None if rules is None else rules.base
    if allowed is None or matches(parse_reference(image), allowed):
        return ()
    reason = f"{quote(image)} is not under an admitted base ({', '.join(allowed)})"
    return (Finding("build.base", path, reason, "start from one of them"),)


def _judge_archives(
    dockerfile: Dockerfile, name: str, archives: Collection[str]
) -> Iterable[Finding]:
    """Refuse each ADD of an archive: the size of the unpacked files is unknown before the build."""
    instructions = (each for _, listed in dockerfile.stages for each in listed)
    for each in instructions if archives else ():
        sources = {posixpath.normpath(f"/{source}") for source in each.added}
        is_open = any(mark in source for source in each.added for mark in "*?$[\\{'\"")
        hit = next((archive for archive in archives if f"/{archive}" in sources), "")
        if hit or is_open:
            reason = f"ADD unpacks nothing here, and may name {hit or 'an archive of the context'}"
            remedy = "write COPY, and unpack it by RUN"
            yield Finding("build.add-archive", f"{name}:{each.line}", reason, remedy)


def judge_tag(
    reference: str, owner: str, present: str, trusted: TrustedImage | None
) -> Iterable[Finding]:
    """Yield why a build of documents of *owner* can't have a name: another image has it.

    *present* is the id of the image with that name, '' for none. *trusted* is the ledger's entry.
    """
    if not present and trusted is None:
        return
    if trusted is not None and trusted.owner == owner and present in {"", trusted.id}:
        return
    reason = f"{reference} is the name of an image that {quote(owner)} didn't build here"
    remedy = "choose another name, or let root remove that image or its name (docker rmi)"
    yield Finding("build.tag-taken", "t", reason, remedy)
