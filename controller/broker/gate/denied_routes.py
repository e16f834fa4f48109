"""Paths that are refused on purpose, with what to do instead; the route table has the others."""

from __future__ import annotations

_BY_FILE = "change the desired state instead"
SWARM = r"/(?:swarm|nodes|services|tasks|secrets|configs)(?:/.*)?"
_NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect'
    " this node to swarm and try again."
)
#: How an engine that is in no swarm answers who asks about one, or leaves it: method, path, words.
#: SDKs go on from there, where a refusal would end them.
NO_SWARM = (
    ("GET", SWARM, _NOT_A_MANAGER),
    ("POST", "/swarm/leave", "This node is not part of a swarm"),
)

#: What is refused on purpose: method (``*``: any), path, and what to do instead.
DENIED = (
    ("POST", r"/build|/build/.+|/commit", "build images elsewhere and pull them"),
    ("*", r"/images/(?:load|get|search)", "pull images by reference from an admitted registry"),
    ("POST", r"/images/.+/(?:tag|push)", "tag and push where the image is built"),
    ("GET", r"/images/.+/(?:get|attestations)", "copy images through a registry"),
    ("POST", r"/(?:containers|images|networks|volumes)/prune", "remove objects one by one"),
    ("*", r"/containers/[^/]+/(?:archive|export|copy)", "mount a volume instead"),
    ("*", r"/containers/[^/]+/checkpoints(?:/.*)?", "stop and start the container"),
    ("*", r"/containers/[^/]+/attach/ws", "attach without a web socket"),
    ("PUT", r"/volumes/.+", _BY_FILE),
    ("*", SWARM, _BY_FILE),
    ("*", r"/plugins(?:/.*)?", "install engine plugins on the host, as root"),
    ("*", r"/(?:session|grpc|auth|debug)(?:/.*)?", "no client of ours needs it"),
)
