"""A deterministic engine in memory: the subset of the Engine API 1.45 that the product speaks.

It answers requests (``call``), changes by itself as time passes (``settle``), and can be meddled
with as people and accidents do (``crash``, ``engine_restart``). Its honesty is the contract
ring's: each behaviour here is asked of a real dockerd too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.sim import filters
from tests.sim.containers import Containers
from tests.sim.creation import BadBody
from tests.sim.objects import Body
from tests.sim.state import Refusal

#: What one request takes of virtual time.
TICK_S = 0.001

_EVENT_FILTERS = frozenset({"container", "event", "label", "network", "type", "volume"})

Answer = tuple[int, bytes]


class SimEngine(Containers):
    """The engine. ``images`` are there, ``registry`` can be pulled while ``registry_up``."""

    def call(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """Answer one request; ``target`` may carry a version."""
        self.clock.advance(TICK_S)
        self.settle()
        path, _, raw_query = target.partition("?")
        path = re.sub(r"^/v1\.[0-9]+(?=/)", "", path)
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        for verb, pattern, handler in _ROUTES:
            if verb != method or (match := pattern.fullmatch(path)) is None:
                continue
            names = [unquote(name) for name in match.groups()]
            try:
                return _answer(handler(self, *names, query, filters.parsed(body)))
            except Refusal as refusal:
                return _told(refusal.status, refusal.message)
            except (filters.BadFilters, BadBody) as error:
                return _told(400, str(error))
            except ValueError as error:
                return _told(400, f"invalid JSON: {error}")
        return _told(404, "page not found")

    def _image_list(self, _query: Any, _body: Any) -> Any:
        return [image.listed() for image in self.images.values()]

    def _image_inspect(self, reference: str, _query: Any, _body: Any) -> Any:
        image = self.image(reference)
        if image is None:
            raise Refusal(404, f"No such image: {reference}")
        return image.inspect()

    def _pull(self, query: Mapping[str, str], _body: Any) -> Any:
        repository, tag = query.get("fromImage", ""), query.get("tag", "") or "latest"
        reference = f"{repository}{'@' if tag.startswith('sha256:') else ':'}{tag}"
        if not self.registry_up:
            host = repository.partition("/")[0]
            raise Refusal(500, f'Get "https://{host}/v2/": dial tcp: connection refused')
        found = next(
            (
                image
                for image in self.registry.values()
                if reference in {image.reference, f"{image.repository}@{image.digest}"}
            ),
            None,
        )
        if found is None:
            raise Refusal(404, f"manifest for {reference} not found: manifest unknown")
        self.images[found.reference] = found
        self._event_of("image", "pull", found.reference, {"name": found.repository})
        lines = (
            {"status": f"Pulling from {repository}", "id": tag},
            {"status": f"Digest: {found.digest}"},
            {"status": f"Status: Downloaded newer image for {reference}"},
        )
        return 200, b"".join(json.dumps(line).encode() + b"\r\n" for line in lines)

    def _ping(self, _query: Any, _body: Any) -> Any:
        return 200, b"OK"

    def _version(self, _query: Any, _body: Any) -> Any:
        return {
            "Platform": {"Name": ""},
            "Version": "26.1.5",
            "ApiVersion": "1.45",
            "MinAPIVersion": "1.24",
            "Os": "linux",
            "Arch": "amd64",
        }

    def _info(self, _query: Any, _body: Any) -> Any:
        return {
            "ID": self.engine_id,
            "Containers": len(self.containers),
            "Driver": "overlay2",
            "NCPU": 4,
            "MemTotal": 16 << 30,
            "DockerRootDir": "/var/lib/docker",
            "OSType": "linux",
            "Architecture": "x86_64",
            "ServerVersion": "26.1.5",
            "CgroupVersion": "1",
            "SecurityOptions": ["name=seccomp,profile=builtin"],
        }

    def _events(self, query: Mapping[str, str], _body: Any) -> Any:
        wanted = filters.read(query.get("filters", ""), _EVENT_FILTERS)
        since, until = _nanoseconds(query.get("since")), _nanoseconds(query.get("until"))
        shown = [
            event
            for event in self.events
            if since <= event["timeNano"]
            and (not until or event["timeNano"] <= until)
            and _event_matches(event, dict(wanted))
        ]
        return 200, b"".join(json.dumps(event).encode() + b"\n" for event in shown)


def _event_matches(event: Body, wanted: filters.Filters) -> bool:
    attributes = event["Actor"]["Attributes"]
    if not filters.labelled(wanted.pop("label", []), attributes):
        return False
    subject = event["Actor"]["ID"]

    def is_of(kind: str) -> Callable[[str], bool]:
        names = {subject, attributes.get("name")}
        return lambda value: event["Type"] == kind and value in names

    return filters.matches(
        wanted,
        {
            "container": is_of("container"),
            "network": is_of("network"),
            "volume": is_of("volume"),
            "event": lambda v: event["Action"].partition(":")[0] == v.partition(":")[0],
            "type": event["Type"].__eq__,
        },
    )


def _nanoseconds(text: str | None) -> int:
    if not text:
        return 0
    seconds, _, rest = text.partition(".")
    return int(seconds) * 1_000_000_000 + int((rest + "0" * 9)[:9] or 0)


def _told(status: int, message: str) -> Answer:
    if status == 304:
        return status, b""
    return status, json.dumps({"message": message}).encode()


def _answer(told: Any) -> Answer:
    status, value = told if isinstance(told, tuple) else (200, told)
    if value is None:
        return status, b""
    return status, value if isinstance(value, bytes) else json.dumps(value).encode()


def _route(method: str, path: str, handler: Callable[..., Any]) -> Any:
    pattern = path.replace("{}", "([^/]+)").replace("{image}", "(.+)")
    return method, re.compile(pattern), handler


_C, _N = "/containers/{}", "/networks/{}"
_ROUTES = (
    _route("GET", "/_ping", SimEngine._ping),
    _route("HEAD", "/_ping", SimEngine._ping),
    _route("GET", "/version", SimEngine._version),
    _route("GET", "/info", SimEngine._info),
    _route("GET", "/events", SimEngine._events),
    _route("GET", "/containers/json", SimEngine._list),
    _route("POST", "/containers/create", SimEngine._create),
    _route("GET", f"{_C}/json", SimEngine._inspect),
    _route("POST", f"{_C}/start", SimEngine._start),
    _route("POST", f"{_C}/stop", SimEngine._stop),
    _route("POST", f"{_C}/restart", SimEngine._restart),
    _route("POST", f"{_C}/kill", SimEngine._kill),
    _route("POST", f"{_C}/pause", SimEngine._pause),
    _route("POST", f"{_C}/unpause", SimEngine._unpause),
    _route("POST", f"{_C}/rename", SimEngine._rename),
    _route("POST", f"{_C}/update", SimEngine._update),
    _route("DELETE", _C, SimEngine._remove),
    _route("POST", f"{_C}/exec", SimEngine._exec_create),
    _route("POST", "/exec/{}/start", SimEngine._exec_start),
    _route("GET", "/exec/{}/json", SimEngine._exec_inspect),
    _route("GET", "/networks", SimEngine._network_list),
    _route("POST", "/networks/create", SimEngine._network_create),
    _route("GET", _N, SimEngine._network_inspect),
    _route("DELETE", _N, SimEngine._network_remove),
    _route("POST", f"{_N}/connect", SimEngine._connect),
    _route("POST", f"{_N}/disconnect", SimEngine._disconnect),
    _route("GET", "/volumes", SimEngine._volume_list),
    _route("POST", "/volumes/create", SimEngine._volume_create),
    _route("GET", "/volumes/{}", SimEngine._volume_inspect),
    _route("DELETE", "/volumes/{}", SimEngine._volume_remove),
    _route("GET", "/images/json", SimEngine._image_list),
    _route("POST", "/images/create", SimEngine._pull),
    _route("GET", "/images/{image}/json", SimEngine._image_inspect),
)
