"""Changed files: one changed service, and a raised limit of all services."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any, Final

from tests.instance import Host
from tools.benches.engine_api import ask, events, starts
from tools.suite.bare import Bare, in_parallel
from tools.suite.figures import Figure, milliseconds, ratios
from tools.suite.line import Line
from tools.suite.rounds import interleave
from tools.suite.stage import PLAIN, SERVICES, Stage, await_settled, document

#: Services of the larger host; those beyond ``SERVICES`` have no containers.
MANY: Final = 500
_MIB: Final = 1 << 20
_WORKERS: Final = 4


def _change_one(host: Host, bare: Bare, service: str) -> float:
    """Change a service's file; return the seconds until the new container starts."""
    text = document(service, f"{PLAIN}env: {{CHANGED: {service}}}")
    started = starts(bare.socket)
    began = monotonic()
    host.write(f"{service}.yaml", text)
    next(name for name in started if name == service)
    took_s = monotonic() - began
    await_settled(host, [service])
    return took_s


def _one_changed(stage: Stage, *, first: int, of: int) -> list[Figure]:
    """Change one service after the other, beginning with the first given one."""
    seconds = interleave(
        {
            "changed": lambda n: _change_one(stage.running, stage.bare, f"s{first + n}"),
            "bare": lambda _round: stage.bare.time_one(stage.like),
        },
        stage.rounds,
    )
    pairs = zip(seconds["changed"], seconds["bare"], strict=True)
    beyond = [changed - bare for changed, bare in pairs]
    return [
        Figure(
            name=f"1 of {of}, minus bare create + start",
            unit="ms",
            values=milliseconds(beyond),
            goal=150,
        ),
        Figure(name=f"1 of {of}", unit="ms", values=milliseconds(seconds["changed"])),
        Figure(name=f"bare, beside {of}", unit="ms", values=milliseconds(seconds["bare"])),
    ]


def _measure_file(stage: Stage) -> list[Figure]:
    few = _one_changed(stage, first=10, of=SERVICES)
    for number in range(MANY - SERVICES):
        stage.running.write(f"p{number}.yaml", document(f"p{number}", f"{PLAIN}replicas: 0"))
    last = f"p{MANY - SERVICES - 1}"
    stage.running.await_ready(last, within_s=120)
    return [*few, *_one_changed(stage, first=20, of=MANY)]


FILE: Final = Line(
    name="file",
    title="A changed file to its new container running, 1 of 50 services and 1 of 500",
    how="The time runs from the rename of the changed file until the engine's event of the new"
    " container's start. The bare create and start of the same round is subtracted. Of the 500"
    " services, 450 have no replicas.",
    run=_measure_file,
    parts=("1 of 50", "bare, beside 50"),
)


def _raise_declared(host: Host, bare: Bare, mib: int) -> tuple[float, int]:
    """Declare another limit for all services.

    Returns:
        The seconds until each service has a container with the limit, and the number of containers
        that were replaced.
    """
    services = [f"s{number}" for number in range(SERVICES)]
    before = {each["Id"] for service in services for each in host.containers(service)}
    changed = events(bare.socket, "start", "update")
    missing = set(services)
    began = monotonic()
    for service in services:
        spec = PLAIN.replace("64Mi", f"{mib}Mi")
        host.write(f"{service}.yaml", document(service, spec))
    while missing:
        missing.discard(next(changed)["Actor"]["Attributes"]["io.trimtab.service"])
    took_s = monotonic() - began
    await_settled(host, services)
    after = [each for service in services for each in host.containers(service)]
    limits = {each["HostConfig"]["Memory"] for each in after}
    assert limits == {mib * _MIB}, f"limits after a raise to {mib} MiB: {limits}"
    return took_s, sum(each["Id"] not in before for each in after)


def _raise_bare(bare: Bare, containers: list[dict[str, Any]], mib: int) -> float:
    """Raise the limit of containers on the engine itself; return the seconds."""
    body = {"Memory": mib * _MIB, "MemorySwap": mib * _MIB}
    began = monotonic()
    in_parallel(
        [
            partial(ask, bare.socket, "POST", f"/containers/{each['Id']}/update", body)
            for each in containers
        ],
        _WORKERS,
    )
    return monotonic() - began


def _measure_raises(stage: Stage) -> list[Figure]:
    host, bare, peer = stage.running, stage.bare, stage.peer
    replaced: list[int] = []

    def ours(number: int) -> float:
        took_s, count = _raise_declared(host, bare, 72 + 8 * number)
        replaced.append(count)
        return took_s

    def floor(number: int) -> float:
        label = '{"label":["com.docker.compose.project=peer"]}'
        listed = ask(bare.socket, "GET", f"/containers/json?filters={label}")
        return _raise_bare(bare, listed, 68 + 8 * number)

    def compose(number: int) -> float:
        limit = (72 + 8 * number) * _MIB
        peer.declare(stage.like, SERVICES, mem_limit=limit, memswap_limit=limit)
        return peer.up()

    seconds = interleave({"ours": ours, "bare": floor, "compose": compose}, stage.rounds)
    return [
        Figure(
            name=f"{SERVICES} raised limits / compose's recreation",
            unit="x",
            values=ratios(seconds["ours"], seconds["compose"]),
            goal=0.10,
        ),
        Figure(name="containers replaced", unit="", values=tuple(map(float, replaced)), goal=0),
        *(
            Figure(name=name, unit="ms", values=milliseconds(values))
            for name, values in seconds.items()
        ),
    ]


RAISES: Final = Line(
    name="raise",
    title="Declared memory limits of 50 services raised",
    how="The files of all services declare a higher limit. The time runs from the first write until"
    " each service has a container with the new limit: updated, or replaced and started. Beside it,"
    " `docker compose up -d` with the same raise, which recreates, and the bare engine's update of"
    " 50 containers, 4 in flight.",
    run=_measure_raises,
    parts=("ours", "bare"),
)
