"""Handle ``POST /build``: judge a context, and build an image from it with the engine's classic builder.

The engine gets an archive and a Dockerfile that were written anew. Each base is an image id there, so
that nothing else can be meant. The result gets its name, and trust, once it is within its bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from hashlib import sha256
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from controller.broker.gate import redact
from controller.broker.gate.call import (
    Flow,
    GateRequest,
    engine_unavailable,
    parse_json,
    parse_list,
    read_engine,
)
from controller.broker.gate.commands import (
    BuildEnded,
    ContextReceived,
    ContextRefused,
    Forward,
    Lost,
    ReadEngine,
    ReceiveContext,
    RunBuild,
)
from controller.broker.gate.mutate import Change, perform
from controller.broker.gate.refusals import Answered, Denied, raise_if_denied
from controller.broker.gate.request_target import build_path
from controller.broker.gate.routes import BUILD_END_S
from controller.broker.gate.state import GateState, reserving
from controller.broker.handlers import image as images
from controller.broker.wire import JSON_TYPE, json_reply, refusal
from controller.core.admission import builds
from controller.core.admission.builds import BuildRequest
from controller.core.builds import dockerfile
from controller.core.builds.dockerfile import Dockerfile
from controller.core.encoding.identifiers import parse_reference
from controller.core.encoding.json_values import list_of, mapping_member, mapping_of
from controller.core.engine_api.requests import Finding
from controller.core.engine_api.translate import layers_size, timestamp_seconds
from controller.core.records.parts import BuildPart, ResultPart, TrustedImagePart
from controller.core.rules.verdict import deny, verdict_of
from controller.model.mutations import Mutation
from controller.model.records import Reply

#: Builds at a time: of one owner, and of all.
OF_OWNER_MAX, OF_ALL_MAX = 1, 2
#: How often, and with which delay, the broker looks whether the containers of an ended build are gone.
LOOKS, LOOK_S = 60, 0.5


def build(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Judge and run a build."""
    host = yield from images.host_platform()
    asked = builds.read_build(call.query, actor=call.actor, policy=call.policy, host=host)
    if not isinstance(asked, BuildRequest):
        raise _denied(asked, ())
    _refuse(builds.judge_kernel(call.policy, state.ignores), asked)
    ends_at = state.clock.monotonic() + asked.rules.time / 1000
    with _slot(state, call.id, asked.owner):
        before = yield from _refuse_taken_name(asked, state)
        context = yield from _receive(asked, ends_at - state.clock.monotonic())
        text, bases = yield from _judge_file(call, state, asked, context, host)
        yield from _refuse_taken_name(asked, state)
        within_s = max(1.0, ends_at - state.clock.monotonic())
        began_at = state.clock.now()

        def finish(reply: Reply, ended: BuildEnded) -> Flow[Reply]:
            layers = ended.layers
            if reply.status < 400:
                reply = yield from _name_result(asked, state, reply)
            else:
                layers += yield from _unnamed_results(state, ended)
            yield from _remove_layers(state, layers, began_at)
            return reply

        change = replace(
            _change(asked, context, bases, text, before=before, within_s=within_s), finish=finish
        )

        def learn(reply: Reply) -> Flow[ResultPart]:
            yield from ()
            owner = "" if asked.by_operator else asked.owner
            identifier = str(parse_json(reply).get("Id", ""))
            part = TrustedImagePart(reference=asked.reference, id=identifier, builder=owner)
            return ResultPart.read(part.members)

        reply = yield from perform(state, call.by, change, learn)
    if reply.status >= 400:
        return reply
    built = str(parse_json(reply).get("Id", ""))
    line = f"{built}\n" if asked.quiet else f"Successfully tagged {asked.reference}\n"
    return Reply(reply.status, json.dumps({"stream": line}).encode(), JSON_TYPE)


def _slot(state: GateState, identifier: str, owner: str) -> AbstractContextManager[None]:
    """Hold one of the few places of builds.

    Raises:
        Denied: ``build.busy``.
    """
    running = state.builds
    if list(running.values()).count(owner) >= OF_OWNER_MAX or len(running) >= OF_ALL_MAX:
        raise Denied(
            "build.busy",
            f"{len(running)} builds are in progress; at most {OF_OWNER_MAX} of an owner, "
            f"and {OF_ALL_MAX} in all",
            "try again after them",
            status=503,
            retry_after_s=10,
        )
    return reserving(running, {identifier: owner})


def _denied(findings: Iterable[Finding], environment: tuple[str, ...]) -> Denied:
    """Return the refusal for findings, without the values of build arguments."""
    secrets = {"Env": list(environment)}
    told = [
        replace(each, reason=redact.withhold_secrets(each.reason, secrets)) for each in findings
    ]
    try:
        raise_if_denied(deny(told))
    except Denied as denied:
        return denied
    raise AssertionError("a refusal without a reason")


def _refuse(findings: Iterable[Finding], asked: BuildRequest) -> None:
    """Raise Denied if there are findings."""
    if found := tuple(findings):
        raise _denied(found, asked.environment)


def _refuse_taken_name(asked: BuildRequest, state: GateState) -> Flow[str]:
    """Refuse a name that another image has. Return the id of the image with the name, '' for none."""
    present, taken = yield from _look_at_name(asked, state)
    _refuse(taken, asked)
    return present


def _look_at_name(asked: BuildRequest, state: GateState) -> Flow[tuple[str, tuple[Finding, ...]]]:
    """Return the id of the image with the name, '' for none, and why the build can't have the name."""
    inspect = yield from images.inspect_image(asked.reference)
    present = str((inspect or {}).get("Id", ""))
    trusted = state.inventory.ledger.get(asked.reference)
    if asked.by_operator:
        return present, ()
    return present, tuple(builds.judge_tag(asked.reference, asked.owner, present, trusted))


def _receive(asked: BuildRequest, within_s: float) -> Flow[ContextReceived]:
    limits = asked.rules.context
    received = yield ReceiveContext(limits.bytes, limits.files, asked.dockerfile, within_s)
    if isinstance(received, ContextRefused):
        raise Denied(received.code, received.reason, received.remedy, status=400)
    assert isinstance(received, ContextReceived), f"a context was answered by {received!r}"
    return received


def _judge_file(
    call: GateRequest, state: GateState, asked: BuildRequest, context: ContextReceived, host: str
) -> Flow[tuple[str, dict[str, str]]]:
    """Judge the Dockerfile. Return its text for the engine, and the ids of its bases by reference."""
    if context.dockerfile is None:
        reason = f"the context has no file {redact.text(asked.dockerfile)}"
        raise Denied("build.dockerfile", reason, "name it: docker build -f FILE", status=400)
    read = dockerfile.read(context.dockerfile, args=asked.args, target=asked.target, platform=host)
    name = asked.dockerfile
    _refuse(builds.judge_dockerfile(read, name, call.policy, context.archives), asked)
    assert isinstance(read, Dockerfile), "problems are findings"
    ids: dict[str, str] = {}
    for base in read.bases:
        inspect = yield from _find_base(call, state, asked, base.image)
        ids[base.image] = str(inspect.get("Id", ""))
        if list_of(mapping_member(inspect, "Config").get("OnBuild")):
            reason = f"{base.image} adds instructions of its own (ONBUILD), which nobody judged"
            finding = Finding("build.onbuild", f"{name}:{base.line}", reason, "use another base")
            _refuse([finding], asked)
    return dockerfile.pinned(read, ids), ids


def _find_base(
    call: GateRequest, state: GateState, asked: BuildRequest, image: str
) -> Flow[dict[str, Any]]:
    """Return the engine's inspect of an admitted base; pull a base that isn't here, or not trusted.

    Raises:
        Denied: ``image.untrusted``.
        Answered: the pull failed.
    """
    reference = parse_reference(image)
    name = reference.canonical
    inspect = yield from images.inspect_image(name)
    ledger = state.inventory.ledger
    is_built = name in ledger and bool(ledger[name].owner)
    usable = inspect is not None and images.is_trusted(inspect, name, call.policy, state.inventory)
    if (asked.pull and not is_built) or not usable:
        tag = reference.digest or reference.tag
        asks = {"fromImage": reference.repository, "tag": tag}
        reply = yield from images.pull(replace(call, id=state.new_id(), query=asks), state)
        if reply.status >= 400:
            raise Answered(reply)
        inspect = yield from images.inspect_image(name)
    entry = state.inventory.ledger.get(name)
    strange = entry is not None and entry.owner not in {"", asked.owner}
    if (
        inspect is None
        or strange
        or not images.is_trusted(inspect, name, call.policy, state.inventory)
    ):
        reason = f"{name} isn't an image that {asked.owner} may run"
        _refuse([Finding("image.untrusted", "Dockerfile", reason, "use another base")], asked)
    assert inspect is not None, "a missing image is refused"
    return dict(inspect)


def _change(
    asked: BuildRequest,
    context: ContextReceived,
    bases: Mapping[str, str],
    text: str,
    *,
    before: str,
    within_s: float,
) -> Change:
    """Return the change: the recorded request, the run, and the name of the result."""
    summary = BuildPart(
        reference=asked.reference,
        owner=asked.owner,
        namespace=asked.namespace,
        service=asked.service,
        before=before,
        context=context.digest,
        dockerfile=sha256((context.dockerfile or "").encode()).hexdigest(),
        bases=tuple(f"{image}={identifier}" for image, identifier in bases.items()),
        environment=tuple(sorted(asked.args)),
        size_bytes=context.size,
        file_count=context.entries,
    )
    return Change(
        mutation=Mutation.IMAGE_BUILD,
        subject=asked.reference,
        path="/build",
        summary=summary.members,
        verdict=verdict_of(()),
        body={"Env": list(asked.environment)},
        deadline_s=BUILD_END_S,
        instead=RunBuild(
            path=build_path("/build", asked.query),
            dockerfile=asked.dockerfile,
            text=text,
            within_s=within_s,
            bytes_max=asked.rules.result,
            pids_max=asked.rules.pids,
            quiet=asked.quiet,
        ),
        code_of=lambda error: error.partition(":")[0] if error.startswith("build.") else "",
    )


def _name_result(asked: BuildRequest, state: GateState, reply: Reply) -> Flow[Reply]:
    """Tag the built image with the requested name.

    An image that is larger than the policy admits stays without one, and so does an image whose name
    was taken while it was built. It isn't removed here: a build of nothing but FROM is its base.
    """
    identifier = str(parse_json(reply).get("Id", ""))
    history = yield from read_engine(f"/images/{identifier}/history")
    if history.status != HTTPStatus.OK:
        reason = "the engine doesn't tell the size of the image"
        return refusal(422, "build.size", reason, remedy="build it again")
    if (size := layers_size(parse_list(history))) > asked.rules.result:
        reason = f"the image has {size} bytes, at most {asked.rules.result}"
        return refusal(422, "build.size", reason, remedy="make the image smaller")
    _, taken = yield from _look_at_name(asked, state)
    if taken:
        return refusal(409, taken[0].rule, taken[0].reason, remedy=taken[0].remedy)
    named = parse_reference(asked.reference)
    query = {"repo": named.repository, "tag": named.tag}
    path = build_path(f"/images/{quote(identifier, safe=':')}/tag", query)
    answer = yield Forward("POST", path)
    if isinstance(answer, Lost):
        return engine_unavailable(answer)
    assert isinstance(answer, Reply), f"a tag was answered by {answer!r}"
    return answer if answer.status >= 400 else json_reply(200, {"Id": identifier})


def _unnamed_results(state: GateState, ended: BuildEnded) -> Flow[tuple[str, ...]]:
    """Return the ids of images that the engine made of an ended command, and that the log didn't name.

    The engine finishes a commit that it began, and removes the container after it. Whose such an image
    on a shared base is can't be told while another build runs: it stays then, as an image without a
    name.
    """
    looks = LOOKS
    for container in ended.containers:
        found: object = None
        while looks > 0 and not (isinstance(found, Reply) and found.status == HTTPStatus.NOT_FOUND):
            looks -= 1
            found = yield ReadEngine(f"/containers/{container}/json", after_s=LOOK_S)
    if not ended.containers or len(state.builds) > 1:
        return ()
    listed = yield ReadEngine("/images/json?all=1")
    rows: list[Any] = []
    with suppress(Answered):
        rows = parse_list(listed) if isinstance(listed, Reply) and listed.status == 200 else []
    parents = tuple(f"sha256:{layer}" for layer in ended.layers[-1:])
    return tuple(
        str(row.get("Id", ""))
        for row in map(mapping_of, rows)
        if str(row.get("ParentId", "")).startswith(parents)
    )


def _remove_layers(state: GateState, layers: tuple[str, ...], began_at: float) -> Flow[None]:
    """Remove the layers of a build that no image needs: those of other stages, and of a failed build.

    The log names them, and a program can print such lines too. So only images without a name go that
    were made since the build began, and that nothing here knows. The engine keeps what others need.
    """
    known = images.known_ids(state.inventory)
    for layer in reversed(layers):
        inspect = yield from images.inspect_image(layer)
        if inspect is None or inspect.get("RepoTags") or inspect.get("RepoDigests"):
            continue
        identifier, made_at = (
            str(inspect.get("Id", "")),
            timestamp_seconds(str(inspect.get("Created", ""))),
        )
        if made_at is not None and made_at >= began_at - 1 and identifier not in known:
            yield Forward("DELETE", f"/images/{quote(identifier, safe=':')}")
