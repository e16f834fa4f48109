"""Requests straight to an engine's socket, past every broker."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.model import names


def connection(path: Path) -> http.client.HTTPConnection:
    """Return a connection to a Unix socket."""
    made = http.client.HTTPConnection("localhost", timeout=60)
    made.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.sock.connect(str(path))
    return made


def ask(engine: Path, method: str, path: str, body: object = None) -> Any:
    """Send one request and return the answer's JSON; the engine must not refuse the request."""
    asked = connection(engine)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    asked.request(method, f"/v1.45{path}", None if body is None else json.dumps(body), headers)
    answer = asked.getresponse()
    text = answer.read()
    asked.close()
    assert answer.status < 400, f"{method} {path}: {answer.status} {text!r}"
    return json.loads(text) if text else None


def events(engine: Path, *actions: str) -> Iterator[dict[str, Any]]:
    """Subscribe to events of our containers and return an iterator of those from now on."""
    asked = connection(engine)
    filters = {"type": ["container"], "event": actions, "label": [f"{names.MANAGED}=true"]}
    asked.request("GET", "/v1.45/events?filters=" + json.dumps(filters).replace(" ", ""))
    answer = asked.getresponse()
    return (json.loads(line) for line in iter(answer.readline, b""))


def labels_of_starts(engine: Path) -> Iterator[dict[str, str]]:
    """Return an iterator of the labels of our containers that start from now on."""
    return (event["Actor"]["Attributes"] for event in events(engine, "start"))


def starts(engine: Path) -> Iterator[str]:
    """Return an iterator of the services whose containers start from now on."""
    return (labels[names.SERVICE] for labels in labels_of_starts(engine))
