"""Builds of a project's services: the context, the Dockerfile, and the name of the image."""

from __future__ import annotations

import posixpath
import re
from typing import Final

from controller.core.builds import dockerfile, platforms
from controller.core.compose.forms.values import byte_text
from controller.core.compose.translation.container import Workload
from controller.core.compose.translation.scope import (
    ContextRequest,
    FoundContext,
    Tree,
    mapping,
    texts,
)
from controller.core.encoding.image_reference import parse_reference
from controller.model.desired.spec.build import OTHER_DOCKERFILE, identity_of
from controller.model.errors import Problem

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
        if platforms.normal(platform) != found.platform:
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
    image = _image(work, identity_of(spec))
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


def _image(work: Workload, identity: str) -> str:
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
