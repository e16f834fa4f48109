"""Networks and volumes of the simulated engine."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from tests.sim import filters
from tests.sim.creation import anonymous_name, endpoint_of
from tests.sim.objects import NAME, Body, Endpoint, SimContainer, SimNetwork, SimVolume
from tests.sim.state import Refusal, State

_NETWORK_FILTERS = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})
_VOLUME_FILTERS = frozenset({"dangling", "driver", "label", "name"})
_JOINED = "container:"
#: The statuses of a start whose namespace is that of a container that isn't there, or doesn't run.
_SHARED = {"NetworkMode": (404, 409), "IpcMode": (400, 409), "PidMode": (500, 500)}
_MISSING = "No such container: "


class Networks(State):
    """Their routes, and how containers come into them."""

    def _join(self, container: SimContainer) -> None:
        """Resolve a container's networks; each is known by id from the first start on."""
        self._check_shared(container)
        found: dict[str, SimNetwork] = {}
        for name, end in container.networks.items():
            if end.network and end.network not in self.networks:
                raise Refusal(404, f"network {end.network} not found")
            network = self.networks.get(end.network) or self._by_name(name)
            if network is None:
                raise Refusal(404, f"network {name} not found")
            found[name] = network
        for name, network in found.items():
            self._plug(container, container.networks[name], network)

    def _check_shared(self, container: SimContainer) -> None:
        """Refuse the start of a container whose shared namespaces aren't there."""
        for field, (missing, stopped) in _SHARED.items():
            mode = str(container.host[field])
            if not mode.startswith(_JOINED):
                continue
            identifier = mode.removeprefix(_JOINED)
            other = self.containers.get(identifier)
            prefix, why = "", f"cannot join network of a non running container: {identifier}"
            if field != "NetworkMode":
                prefix = f"failed to join {field.removesuffix('Mode').upper()} namespace: "
                why = f"container {identifier} is not running"
            if other is None:
                raise Refusal(missing, f"{prefix}{_MISSING}{identifier}")
            if other.status != "running":
                raise Refusal(stopped, prefix + why)

    def _check_addresses(self, container: SimContainer) -> None:
        """Refuse a new container with an address that a network can't give it."""
        for name, end in container.networks.items():
            if (network := self._by_name(name)) is not None and end.chosen:
                _check_address(network, end.chosen, f"invalid config for network {name}: ")

    def _check_named(self, container: SimContainer) -> None:
        """Refuse a new container that shares the processes or IPC of one that isn't there."""
        for field in ("IpcMode", "PidMode"):
            mode = str(container.host[field])
            identifier = mode.removeprefix(_JOINED)
            if mode.startswith(_JOINED) and identifier not in self.containers:
                raise Refusal(400, f"{_MISSING}{identifier}")

    def _plug(self, container: SimContainer, end: Endpoint, network: SimNetwork) -> None:
        if end.chosen:
            held = (
                each["IPv4Address"].partition("/")[0] for each in self._joined(network).values()
            )
            if end.chosen in {*held, network.pool.get("Gateway")}:
                raise Refusal(403, "Address already in use")
        end.network, end.id = network.id, self._identifier()
        end.address = end.chosen or network.address()
        container.addresses.add(end.address)
        attributes = {"container": container.id, "name": network.name, "type": network.driver}
        self._event_of("network", "connect", network.id, attributes)

    def _leave(self, container: SimContainer) -> None:
        for end in container.networks.values():
            if end.id and end.network in self.networks:
                network = self.networks[end.network]
                attributes = {"container": container.id, "name": network.name, "type": "bridge"}
                self._event_of("network", "disconnect", network.id, attributes)
            end.id = end.address = ""
        container.ports = {}

    def _network_list(self, query: Mapping[str, str], _body: Any) -> Any:
        wanted = filters.read(query.get("filters", ""), _NETWORK_FILTERS)
        labels = wanted.pop("label", [])
        # A list doesn't show who is in a network; only an inspect does.
        return [
            network.inspect(None)
            for network in self.networks.values()
            if filters.labelled(labels, network.labels)
            and filters.matches(
                wanted,
                {
                    "driver": network.driver.__eq__,
                    "id": network.id.startswith,
                    "name": network.name.__contains__,
                    "scope": "local".__eq__,
                    "type": ("builtin" if network.predefined else "custom").__eq__,
                },
            )
        ]

    def _network_create(self, _query: Any, body: Body) -> Any:
        name = str(body.get("Name") or "")
        if not name.strip():
            raise Refusal(400, f"invalid name: {name}")
        existing = self._by_name(name)
        pool: Body = next(iter((body.get("IPAM") or {}).get("Config") or ()), {})
        if existing is not None and existing.predefined:
            message = f"operation is not permitted on predefined {name} network "
            raise Refusal(403, message)
        if existing is not None:
            raise Refusal(409, f"network with name {name} already exists")
        others = (network.pool["Subnet"] for network in self.networks.values() if network.pool)
        if pool and any(IPv4Network(pool["Subnet"]).overlaps(IPv4Network(o)) for o in others):
            raise Refusal(403, "Pool overlaps with other one on this address space")
        network = SimNetwork(
            "",
            name,
            body.get("Driver") or "bridge",
            self.clock.now(),
            internal=bool(body.get("Internal")),
            options=dict(body.get("Options") or {}),
            labels=dict(body.get("Labels") or {}),
            pool=dict(pool),
        )
        return 201, {"Id": self._add_network(network).id, "Warning": ""}

    def _network_inspect(self, reference: str, _query: Any, _body: Any) -> Any:
        network = self._network(reference)
        return network.inspect(self._joined(network))

    def _joined(self, network: SimNetwork) -> dict[str, Body]:
        """Who is in a network: only what runs has an endpoint."""
        return {
            container.id: {
                "Name": container.name,
                "EndpointID": end.id,
                "IPv4Address": f"{end.address}/{network.prefix}",
            }
            for container in self.containers.values()
            for end in container.networks.values()
            if end.network == network.id and end.id
        }

    def _network_remove(self, reference: str, _query: Any, _body: Any) -> Any:
        network = self._network(reference)
        if network.predefined:
            raise Refusal(403, f"{network.name} is a pre-defined network and cannot be removed")
        if self._joined(network):
            what = f"network {network.name} id {network.id} has active endpoints"
            raise Refusal(403, f"error while removing network: {what}")
        del self.networks[network.id]
        attributes = {"name": network.name, "type": network.driver}
        self._event_of("network", "destroy", network.id, attributes)
        return 204, None

    def _connect(self, reference: str, _query: Any, body: Body) -> Any:
        network = self._network(reference)
        container = self._container(str(body.get("Container") or ""))
        joined = container.networks.get(network.name)
        if joined is not None and container.alive and joined.id:
            what = f"endpoint with name {container.name} already exists in network {network.name}"
            raise Refusal(403, what)
        end = endpoint_of(body.get("EndpointConfig"))
        if end.chosen:
            _check_address(network, end.chosen)
        # It stays among the networks of the container, without an id, if its address is taken.
        container.networks[network.name] = end
        if container.alive:
            self._plug(container, end, network)
            container.ports = self._published(container)
        else:
            end.network = network.id
        return 200, None

    def _disconnect(self, reference: str, _query: Any, body: Body) -> Any:
        network = self._network(reference)
        container = self._container(str(body.get("Container") or ""))
        # Between two starts, a container that is just restarting has no place in any network.
        if network.name not in container.networks or container.status == "restarting":
            what = f"container {container.id} is not connected to network {network.name}"
            raise Refusal(500, what)
        del container.networks[network.name]
        if not any(self._leads_out(end) for end in container.networks.values()):
            container.ports = {}
        attributes = {"container": container.id, "name": network.name, "type": network.driver}
        self._event_of("network", "disconnect", network.id, attributes)
        return 200, None

    def _published(self, container: SimContainer) -> dict[str, list[Body]]:
        """Ports that are published: exposed ones only, none where every network is internal."""
        if not any(self._leads_out(end) for end in container.networks.values()):
            return {}
        return {
            port: [
                {"HostIp": each.get("HostIp") or "0.0.0.0", "HostPort": each["HostPort"]}
                for each in bindings
                if each.get("HostPort")
            ]
            for port, bindings in (container.host["PortBindings"] or {}).items()
            if port in (container.config.get("ExposedPorts") or {})
        }

    def _leads_out(self, end: Endpoint) -> bool:
        network = self.networks.get(end.network)
        return network is not None and network.driver == "bridge" and not network.internal

    def _volume_list(self, query: Mapping[str, str], _body: Any) -> Any:
        wanted = filters.read(query.get("filters", ""), _VOLUME_FILTERS)
        labels = wanted.pop("label", [])
        shown = [
            volume.inspect()
            for volume in self.volumes.values()
            if filters.labelled(labels, volume.labels)
            and filters.matches(
                wanted,
                {"driver": "local".__eq__, "name": volume.name.__contains__},
            )
        ]
        return {"Volumes": shown, "Warnings": None}

    def _volume_create(self, _query: Any, body: Body) -> Any:
        name = str(body.get("Name") or "") or anonymous_name(self._random)
        if not NAME.fullmatch(name):
            rule = "includes invalid characters for a local volume name"
            raise Refusal(400, f'create {name}: "{name}" {rule}')
        options = body.get("DriverOpts") or None
        if options and "size" in options and not self.holds_sizes:
            raise Refusal(400, f"create {name}: quota size requested but no quota support")
        if name not in self.volumes:
            labels = body.get("Labels")
            self._add_volume(SimVolume(name, self.clock.now(), labels, options=options))
        return 201, self.volumes[name].inspect()

    def _volume_inspect(self, name: str, _query: Any, _body: Any) -> Any:
        return self._volume(name).inspect()

    def _volume_remove(self, name: str, _query: Any, _body: Any) -> Any:
        volume = self._volume(name)
        users = [
            container.id
            for container in self.containers.values()
            if any(mount.get("Name") == name for mount in container.mounts)
        ]
        if users:
            raise Refusal(409, f"remove {name}: volume is in use - [{', '.join(users)}]")
        del self.volumes[name]
        self._event_of("volume", "destroy", volume.name, {"driver": volume.driver})
        return 204, None

    def _mount_volume(self, mount: Body) -> None:
        anonymous = not mount["Name"]
        if anonymous:
            mount["Name"] = anonymous_name(self._random)
        if mount["Name"] not in self.volumes:
            labels = {"com.docker.volume.anonymous": ""} if anonymous else None
            self._add_volume(SimVolume(mount["Name"], self.clock.now(), labels))
        mount["Source"] = self.volumes[mount["Name"]].inspect()["Mountpoint"]


def _check_address(network: SimNetwork, address: str, prefix: str = "") -> None:
    """Refuse an address that no container of a network can have."""
    if not network.pool:
        what = "user specified IP address is supported only when connecting to networks with user"
        raise Refusal(400, f"{prefix}invalid endpoint settings:\n{what} configured subnets")
    if IPv4Address(address) not in IPv4Network(network.pool["Subnet"]):
        what = f"no configured subnet or ip-range contain the IP address {address}"
        raise Refusal(400, f"{prefix}invalid endpoint settings:\n{what}")
