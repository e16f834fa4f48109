"""The query parameters of the Engine API, for the routes that the gate serves.

From the published specifications of versions 1.24 to 1.56 (docs/api and api/docs of
https://github.com/moby/moby), all versions together. After the bar: parameters that none of them
has, and the routers of an engine (26.1 to 29) read all the same.
"""

from __future__ import annotations

_TABLE = """
    GET /_ping
    HEAD /_ping
    GET /version
    GET /info
    GET /system/df type verbose
    GET /events since until filters
    GET /containers/json all limit since before size filters
    GET /containers/{}/json size
    GET /containers/{}/logs follow stdout stderr since until timestamps tail details | format
    GET /containers/{}/stats stream one-shot
    GET /containers/{}/top ps_args
    GET /containers/{}/changes
    POST /containers/{}/attach detachKeys logs stream stdin stdout stderr
    POST /containers/{}/wait condition
    POST /containers/{}/resize h w
    POST /containers/create name platform
    POST /containers/{}/start detachKeys | checkpoint checkpoint-dir
    POST /containers/{}/stop t signal
    POST /containers/{}/restart t signal
    POST /containers/{}/kill signal
    POST /containers/{}/pause
    POST /containers/{}/unpause
    POST /containers/{}/rename name
    POST /containers/{}/update
    DELETE /containers/{} v force link
    POST /containers/prune filters
    POST /containers/{}/exec
    POST /exec/{}/start
    GET /exec/{}/json
    POST /exec/{}/resize h w
    GET /images/json all filters filter digests shared-size manifests identity
    GET /images/{}/json manifests platform
    GET /images/{}/history platform
    POST /images/create fromImage fromSrc repo tag message platform changes
    GET /distribution/{}/json
    POST /images/{}/tag repo tag
    DELETE /images/{} force noprune platforms
    GET /networks filters
    GET /networks/{} verbose scope
    POST /networks/create
    POST /networks/{}/connect
    POST /networks/{}/disconnect
    DELETE /networks/{}
    POST /networks/prune filters
    GET /volumes filters
    GET /volumes/{}
    POST /volumes/create
    DELETE /volumes/{} force
    POST /volumes/prune filters
"""

_BUILD = """
    dockerfile t extrahosts remote q nocache cachefrom pull rm forcerm memory memswap cpushares cpusetcpus
    cpusetmems cpuperiod cpuquota cgroupparent buildargs shmsize squash labels networkmode platform target
    outputs version isolation securityopt session ulimits buildid
"""

#: The parameters of each route, by method and path; ``{}`` stands for a name.
PARAMETERS = {
    f"{method} {path}": frozenset(names) - {"|"}
    for method, path, *names in (line.split() for line in _TABLE.split("\n") if line.strip())
} | {"POST /build": frozenset(_BUILD.split())}
