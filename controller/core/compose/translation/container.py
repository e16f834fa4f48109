"""The program of a service and its surroundings: image, command, environment, health, limits.

Requests for GPUs as CDI names: ``gpus``, and ``devices`` among the reservations of ``deploy``.

Docker Compose leaves the choice to a driver of the engine. Here the policy grants each device by
name. The names are the names of ``nvidia-ctk cdi generate``: by index, by UUID, or all.

Builds of a project's services: the context, the Dockerfile, and the name of the image.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from controller.core.builds import dockerfile
from controller.core.compose.attributes import FIELD_ROWS
from controller.core.compose.project import SERVICE, TreePath
from controller.core.compose.translation.scope import (
    USUAL_CAPABILITIES,
    ContextRequest,
    Draft,
    FoundContext,
    TranslationScope,
    Tree,
    items,
    mapping,
    texts,
    whole_number,
)
from controller.core.compose.values import byte_text
from controller.core.encoding.identifiers import parse_reference
from controller.model.desired.spec.container import OTHER_DOCKERFILE, identity_of
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.quantities import format_duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterator


_KIND: Final = "nvidia.com/gpu"
#: The most devices that a count can name.
COUNT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """A request for GPUs: the CDI names, or why there are none."""

    path: TreePath  # in the service
    names: tuple[str, ...] = ()
    fault: str = ""


def gpu_requests(service: Tree) -> Iterator[GpuRequest]:
    """Yield the requests of a service."""
    reservations = mapping(
        mapping(mapping(service.get("deploy")).get("resources")).get("reservations")
    )
    places: tuple[tuple[TreePath, object], ...] = (
        (("gpus",), service.get("gpus")),
        (("deploy", "resources", "reservations", "devices"), reservations.get("devices")),
    )
    for path, requests in places:
        for index, request in enumerate(items(requests)):
            terms = mapping(request)
            if fault := _fault(terms):
                yield GpuRequest((*path, index), fault=fault)
            else:
                yield GpuRequest((*path, index), names=_names(terms))


def _fault(request: Tree) -> str:
    """Return why a request has no CDI names, '' if it has."""
    driver, count = str(request.get("driver") or ""), request.get("count")
    capabilities = texts(request.get("capabilities"))
    if driver not in ("", "nvidia", "cdi"):
        return f"a device of the driver {driver} has no known name"
    if driver != "cdi" and capabilities and "gpu" not in capabilities:
        return f"a device with the capabilities {', '.join(capabilities)} has no known name"
    if driver == "cdi" and not texts(request.get("device_ids")):
        return "the driver cdi needs the names of devices in device_ids"
    if request.get("options"):
        return "options of a device driver are not supported"
    if isinstance(count, int) and count > COUNT_MAX:
        return f"{count} devices are more than {COUNT_MAX}"
    return ""


def _names(request: Tree) -> tuple[str, ...]:
    ids = texts(request.get("device_ids"))
    if str(request.get("driver") or "") == "cdi":
        return tuple(ids)
    if ids:
        return tuple(f"{_KIND}={each}" for each in ids)
    count = request.get("count")
    if isinstance(count, int) and count >= 0:
        return tuple(f"{_KIND}={index}" for index in range(count))
    return (f"{_KIND}=all",)


_RETRIES_MAX: Final = 10
#: Drivers that keep a copy here, with the engine's options.
_SENT_LOGS: Final = ("journald", "syslog", "fluentd", "gelf")
_START_PERIOD_MS: Final = 30_000
_INTERVAL_MS: Final = 30_000
_PULL: Final = {
    "always": "Always",
    "never": "Never",
    "missing": "IfNotPresent",
    "if_not_present": "IfNotPresent",
}
#: Attributes about namespaces, with the words that ask for what every container has.
_PRIVATE: Final = {
    "ipc": ("private",),
    "pid": (),
    "uts": (),
    "cgroup": ("private",),
}
#: The member of ``spec.shares`` for each attribute of a namespace that services can share.
SHARED: Final = {"network_mode": "network", "ipc": "ipc", "pid": "pid"}


class Workload:
    """A service of the project, with the service's document and problems."""

    def __init__(self, scope: TranslationScope, name: str) -> None:
        self.scope = scope
        self.name = name
        self.tree: Tree = mapping(scope.services[name])
        self.key: Key = scope.key_of(name)
        self.draft = Draft(self.key.kind, self.key.name, ("services", name))

    @property
    def is_job(self) -> bool:
        """True if the service runs to completion."""
        return self.key.kind == "Job"

    @property
    def is_observer(self) -> bool:
        """True if the policy has an exception for the service as an observer of the host."""
        return f"{self.key.namespace}/{self.key.name}" in self.scope.settings.observers

    def refuse(
        self, path: TreePath, message: str, remedy: str, code: str = "compose.refused"
    ) -> None:
        """Add an error at an attribute."""
        where = ("services", self.name, *path)
        self.scope.error(where, code, message, remedy, self.key)

    def warn(
        self, path: TreePath, message: str, remedy: str, code: str = "compose.by-policy"
    ) -> None:
        """Add a warning at an attribute."""
        self.scope.warn(("services", self.name, *path), code, message, remedy, self.key)


def put_container(work: Workload) -> None:
    """Translate the attributes of a service for its own containers."""
    put_fields(work)
    for part in (_image, _program, _environment, _disk, _devices, _gpus):
        part(work)
    for part in (_security, _namespaces, _logging):
        part(work)
    if not work.is_job:
        _healthcheck(work)
    elif work.tree.get("healthcheck"):
        work.warn(("healthcheck",), "a Job has no health check: its exit code counts", "remove it")


def put_fields(work: Workload) -> None:
    """Translate the attributes that are fields of a Service, by the table."""
    for path, row in FIELD_ROWS:
        value: object = work.tree
        for part in path:
            value = mapping(value).get(part)
        written = row.form.write(value) if row.form is not None and value is not None else None
        if written is None:
            continue
        work.draft.put(f"spec.{row.field}", written, path)
        for name in mapping(value):
            work.draft.trace(("spec", *row.field.split("."), name), (*path, name))


def is_built(work: Workload) -> bool:
    """Return True if the image of a service is built: always without a name, else by the policy."""
    named = bool(work.tree.get("image"))
    return work.tree.get("build") is not None and (work.scope.settings.builds or not named)


def _image(work: Workload) -> None:
    if is_built(work):
        return  # ``builds`` names the image
    image = work.tree.get("image")
    if image:
        work.draft.put("spec.image", image, "image")
        if work.tree.get("build") is not None:
            message = (
                "build has no effect: the policy grants no builds, and the image is run as it is"
            )
            remedy = "build the image in CI, and push it under the name in image"
            work.warn(("build",), message, remedy)
    elif not work.tree.get("provider"):
        work.refuse((), "the service has no image", "write image: NAME")
    word = work.tree.get("pull_policy")
    if word is None:
        return
    if word == "build":
        work.refuse(
            ("pull_policy",), f"pull_policy {word} is not supported", "write missing or always"
        )
        return
    work.draft.put("spec.pullPolicy", _PULL.get(str(word), "Always"), "pull_policy")
    if word not in _PULL:
        message = (
            f"pull_policy {word}: the tag is looked up for each new revision, not by the clock"
        )
        name = work.draft.name
        remedy = (
            f"write always; `trimtab restart {name}` looks it up at any time, also from a timer"
        )
        work.warn(("pull_policy",), message, remedy)


def _program(work: Workload) -> None:
    for name in ("entrypoint", "command"):
        value = work.tree.get(name)
        if value is None:
            continue
        words = texts(value)
        if words:
            work.draft.put(f"spec.{name}", words, name)
        elif name == "entrypoint" or "entrypoint" not in work.draft.spec:
            message = f"an empty {name} can't remove the image's own"
            work.refuse((name,), message, "write the whole command line as entrypoint")


def _environment(work: Workload) -> None:
    written: dict[str, str] = {}
    for name, value in mapping(work.tree.get("environment")).items():
        work.draft.trace(("spec", "env", name), ("environment", name))
        if value is None:
            message = f"{name} has no value, and is not set: trimtab's own environment never counts"
            remedy = f"write {name}: VALUE, or set {name} in .env and write {name}: ${{{name}}}"
            work.warn(("environment", name), message, remedy, "compose.no-value")
        else:
            written[name] = _text(value)
    if written:
        work.draft.put("spec.env", written, "environment")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _disk(work: Workload) -> None:
    for name, value in mapping(work.tree.get("storage_opt")).items():
        if name == "size":
            work.draft.put("spec.resources.disk", byte_text(value) or value, "storage_opt")
        else:
            message = f"storage_opt {name} is not supported"
            work.refuse(("storage_opt", name), message, "remove it")


def _devices(work: Workload) -> None:
    for index, device in enumerate(items(work.tree.get("devices"))):
        terms = mapping(device)
        source, target = str(terms.get("source") or ""), str(terms.get("target") or "")
        entry: dict[str, object] = {"cdi": source} if "=" in source else {"path": source}
        if "=" not in source:
            if target not in ("", source):
                entry["target"] = target
            permissions = str(terms.get("permissions") or "rwm")
            entry["permissions"] = "".join(each for each in "rwm" if each in permissions)
        work.draft.add("devices", entry, ("devices", index))


def _gpus(work: Workload) -> None:
    named: set[str] = set()
    for request in gpu_requests(work.tree):
        if request.fault:
            remedy = (
                "write devices: [VENDOR/CLASS=NAME], with a name of the driver's CDI specification"
            )
            work.refuse(request.path, request.fault, remedy)
        for name in request.names:
            if name not in named:
                named.add(name)
                work.draft.add("devices", {"cdi": name}, request.path)


def _security(work: Workload) -> None:
    asked = [name.upper().removeprefix("CAP_") for name in texts(work.tree.get("cap_add"))]
    dropped = {name.upper().removeprefix("CAP_") for name in texts(work.tree.get("cap_drop"))}
    usual = [] if "ALL" in dropped else usual_capabilities(work.scope, work.tree.get("user"))
    kept = [name for name in usual if name not in dropped]
    if "ALL" in asked:
        remedy = "list the capabilities that the program needs"
        work.refuse(("cap_add",), "cap_add: ALL makes the container root on the host", remedy)
        return
    if names := [*dict.fromkeys([*asked, *kept])]:
        work.draft.put("spec.security.capAdd", names, "cap_add")
    for index, option in enumerate(texts(work.tree.get("security_opt"))):
        if option.replace("=", ":") not in ("no-new-privileges", "no-new-privileges:true"):
            message = (
                f"security_opt {option} is not supported: the engine's own profiles are in force"
            )
            work.refuse(("security_opt", index), message, "remove it")


def usual_capabilities(scope: TranslationScope, user: object) -> list[str]:
    """Return the capabilities of a container that asks for none and drops none.

    A numeric user other than root has no use for any.
    """
    number = str(user or "").partition(":")[0]
    if number.isascii() and number.isdecimal() and number.strip("0"):
        return []
    return [name for name in scope.settings.capabilities if name in USUAL_CAPABILITIES]


def _namespaces(work: Workload) -> None:
    put_shares(work)
    for name, words in _PRIVATE.items():
        word = str(work.tree.get(name) or "")
        if word in ("", *words) or (name in SHARED and word.startswith(SERVICE)):
            continue
        if name == "ipc" and word in ("shareable", "none"):
            # Without a service that joins, shareable is private.
            if word == "none" or work.name in _joined_ipc(work.scope):
                work.draft.put("spec.ipc", word, name)
        elif (name, word) == ("pid", "host") and work.is_observer:
            work.draft.put("spec.observe.pid", True, name)
        else:
            refuse_namespace(work, name, word)


def _joined_ipc(scope: TranslationScope) -> set[str]:
    """Return the services whose IPC others of the project join."""
    modes = (str(mapping(tree).get("ipc") or "") for tree in scope.services.values())
    return {mode.removeprefix(SERVICE) for mode in modes if mode.startswith(SERVICE)}


def refuse_namespace(work: Workload, name: str, word: str) -> None:
    """Refuse a mode of a namespace."""
    if word.startswith("container:"):
        message = f"{name}: {word} is not supported: a project shares with its own services alone"
        work.refuse((name,), message, f"write {name}: service:NAME")
    elif word.startswith(SERVICE):
        message = f"{name}: {word} is not supported: each container has its own"
        work.refuse((name,), message, "remove it")
    else:
        message = f"{name}: {word} is not supported: a namespace of the host is never shared"
        work.refuse((name,), message, "remove it")


def put_shares(work: Workload) -> None:
    """Translate the namespaces of another service: the service becomes a sidecar."""
    modes = {name: str(work.tree.get(name) or "") for name in SHARED}
    named = {name: mode for name, mode in modes.items() if mode.startswith(SERVICE)}
    if not named:
        return
    first, mode = next(iter(named.items()))
    service = mode.removeprefix(SERVICE)
    if other := next((name for name in named if named[name] != mode), None):
        message = f"{other}: {named[other]} is not supported beside {first}: {mode}"
        work.refuse((other,), message, "share the namespaces of one service")
    elif work.is_job or service in work.scope.jobs:
        message = f"{first}: {mode} is not supported: a Job has no slot to share with"
        work.refuse((first,), message, "remove it")
    else:
        work.draft.put("spec.shares.service", work.scope.name_of(service), first)
        for name in named:
            work.draft.put(f"spec.shares.{SHARED[name]}", True, name)


def _logging(work: Workload) -> None:
    logging = mapping(work.tree.get("logging"))
    driver = logging.get("driver")
    if driver not in (None, "", "json-file", "local", *_SENT_LOGS):
        message = f"logging driver {driver} is not supported"
        remedy = f"write json-file, local, or what the policy grants of {', '.join(_SENT_LOGS)}"
        work.refuse(("logging", "driver"), message, remedy)
        return
    copied = driver in _SENT_LOGS
    if driver:
        work.draft.put("spec.logs.driver", driver, ("logging", "driver"))
    for name, value in mapping(logging.get("options")).items():
        origin: TreePath = ("logging", "options", name)
        match name.removeprefix("cache-") if copied else name:
            case "max-size":
                work.draft.put("spec.logs.maxSize", byte_text(value) or str(value), origin)
            case "max-file":
                work.draft.put("spec.logs.maxFiles", whole_number(value) or value, origin)
            case "compress":
                work.draft.put("spec.logs.compress", str(value).lower() == "true", origin)
            case _ if copied:
                work.draft.put(
                    f"spec.logs.options.{name}", "" if value is None else str(value), origin
                )
            case _:
                work.refuse(origin, f"logging option {name} is not supported", "remove it")


def _healthcheck(work: Workload) -> None:
    check = mapping(work.tree.get("healthcheck"))
    written = check.get("test")
    test = ["CMD-SHELL", written] if isinstance(written, str) else texts(written)
    if test[:1] == ["NONE"]:
        message = "healthcheck.test NONE: a check of the image itself stays in force"
        work.warn(("healthcheck", "test"), message, "see docs/compose.md")
    if not check or check.get("disable") or test[:1] == ["NONE"]:
        return
    if not test:
        message = "the health check has no test: the image's own check can't be changed in part"
        work.refuse(("healthcheck",), message, "write the test too, as the image has it")
        return
    command = test[1:] if test[0] in ("CMD", "CMD-SHELL") else test
    if test[0] == "CMD-SHELL":
        command = ["/bin/sh", "-c", " ".join(command)]
    work.draft.put("spec.healthcheck.exec", command, ("healthcheck", "test"))
    for name, field in (
        ("interval", "interval"),
        ("timeout", "timeout"),
        ("start_period", "startPeriod"),
        ("start_interval", "startInterval"),
    ):
        value = check.get(name)
        # Docker Compose takes 0 for the default, which is none for start_period alone.
        if isinstance(value, int) and (name == "start_period" or value):
            text = format_duration_ms(value)
            work.draft.put(f"spec.healthcheck.{field}", text, ("healthcheck", name))
    _retries(work, check)


def _retries(work: Workload, check: Tree) -> None:
    retries = check.get("retries")
    if not isinstance(retries, int) or retries == 0:
        return
    if retries <= _RETRIES_MAX:
        work.draft.put("spec.healthcheck.retries", retries, ("healthcheck", "retries"))
        return
    interval = cast("int", check.get("interval") or _INTERVAL_MS)
    start = cast("int", check.get("start_period") or _START_PERIOD_MS)
    longer = format_duration_ms(start + (retries - _RETRIES_MAX) * interval)
    work.draft.put("spec.healthcheck.retries", _RETRIES_MAX, ("healthcheck", "retries"))
    work.draft.put("spec.healthcheck.startPeriod", longer, ("healthcheck", "retries"))
    message = (
        f"{retries} retries are more than {_RETRIES_MAX}: a container gets {longer} to start instead, "
        f"and is unhealthy after {_RETRIES_MAX} failures in a row from then on"
    )
    work.warn(
        ("healthcheck", "retries"),
        message,
        f"write retries: {_RETRIES_MAX} and start_period: {longer}",
    )


_REMOTE: Final = re.compile(r"[a-z+]+://|git@|github\.com/|service:")
_TAG_MAX: Final = 128
#: Networks of a build, by the words of Compose.
_NETWORKS: Final = {"none": "none", "default": "default"}
#: Values of ``pull_policy`` that say nothing about an image that is built.
_USUAL: Final = frozenset({"", "build", "missing", "if_not_present", "always"})


def put_build(work: Workload) -> None:
    """Translate ``build``. A tag with a digest of the build names the image, and the image is never pulled."""
    build = mapping(work.tree.get("build"))
    _check_words(work, build)
    request = _request(work, build)
    if request is None:
        return
    found = work.scope.read_context(request)
    if found.fault is not None:
        work.refuse(("build", "context"), *found.fault, code="build.context")
        return
    for index, platform in enumerate(texts(build.get("platforms"))):
        if dockerfile.normal_platform(platform) != found.platform:
            message = f"a build for {platform}: this engine is {found.platform}"
            work.refuse(("build", "platforms", index), message, "remove the platform")
    read = _dockerfile(work, build, request, found)
    if read is None:
        return
    spec: dict[str, object] = {
        "context": found.name,
        "digest": found.digest,
        "dockerfile": posixpath.normpath(request.dockerfile)
        if found.is_inside
        else OTHER_DOCKERFILE,
    }
    if not found.is_inside:
        spec["dockerfileInline"] = found.dockerfile
    optional: dict[str, object] = {
        "bases": [base.image for base in read.bases],
        "args": _arguments(build),
        "target": build.get("target"),
        "labels": {name: str(value) for name, value in mapping(build.get("labels")).items()},
        "network": build.get("network"),
        "shm": byte_text(build["shm_size"]) if build.get("shm_size") else None,
        "pull": bool(build.get("pull")) or None,
    }
    spec |= {name: value for name, value in optional.items() if value not in (None, "", {}, [])}
    work.draft.put("spec.build", spec, "build")
    image = _built_image(work, identity_of(spec))
    work.draft.put("spec.image", image, "image" if work.tree.get("image") else "build")


def _check_words(work: Workload, build: Tree) -> None:
    """Refuse values that a build of trimtab can't have. Whole attributes are refused by the table."""
    network = str(build.get("network") or "")
    if network and network not in _NETWORKS:
        work.refuse(
            ("build", "network"),
            f"a build can't join the network {network}",
            "write none, or remove it: the policy says which network a build has",
        )
    word = str(work.tree.get("pull_policy") or "")
    if word not in _USUAL:
        work.refuse(
            ("pull_policy",), f"an image that is built can't have pull_policy {word}", "remove it"
        )


def _request(work: Workload, build: Tree) -> ContextRequest | None:
    context = str(build.get("context") or work.scope.project.folder)
    if _REMOTE.match(context) or context.startswith("/"):
        work.refuse(
            ("build", "context"),
            f"the context {context} is no folder of the project",
            "copy the files into a folder beside the Compose file, and name it",
        )
        return None
    inline = build.get("dockerfile_inline")
    return ContextRequest(
        posixpath.normpath(context),
        str(build.get("dockerfile") or "Dockerfile"),
        None if inline is None else str(inline),
    )


def _dockerfile(
    work: Workload, build: Tree, request: ContextRequest, found: FoundContext
) -> dockerfile.Dockerfile | None:
    """Return the understood Dockerfile; None, with problems, if it can't be built."""
    target = build.get("target")
    read = dockerfile.read(
        found.dockerfile,
        args=_arguments(build),
        target=None if target is None else str(target),
        platform=found.platform,
    )
    if isinstance(read, dockerfile.Dockerfile):
        return read
    name = posixpath.normpath(f"{request.context}/{request.dockerfile}")
    for problem in read:
        _add(work, problem, name if request.inline is None else "")
    return None


def _add(work: Workload, problem: Problem, name: str) -> None:
    place = f"{name}:{problem.line}: " if name and problem.line else f"{name}: " if name else ""
    inline = f"line {problem.line} of dockerfile_inline: " if not name and problem.line else ""
    attribute = (
        "target"
        if problem.code == "build.target"
        else "dockerfile"
        if name
        else "dockerfile_inline"
    )
    work.refuse(
        ("build", attribute), f"{place}{inline}{problem.message}", problem.remedy, code=problem.code
    )


def _built_image(work: Workload, identity: str) -> str:
    """Return the reference of the image: the name that Compose gives, with the digest of the build in its tag."""
    project = work.scope.project.name
    written = str(work.tree.get("image") or f"{project}-{work.name}".lower())
    try:
        reference = parse_reference(written)
    except ValueError as error:
        work.refuse(("image",), f"{written}: {error}", "write a name such as myapp:1.0")
        return written
    if reference.digest:
        message = f"{written} names the digest of an image that is still to be built"
        work.refuse(("image",), message, "write a name and a tag, without a digest")
        return written
    repository = written.rpartition(":")[0] if ":" in written.rpartition("/")[2] else written
    tag = "" if reference.tag == "latest" else f"{reference.tag}-"
    return f"{repository}:{tag[: _TAG_MAX - len(identity)]}{identity}"


def _arguments(build: Tree) -> dict[str, str]:
    return {n: str(v) for n, v in mapping(build.get("args")).items() if v is not None}
