"""The container routes of the simulated engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.sim import filters
from tests.sim.creation import BadBody, container_of, updated_host, without
from tests.sim.objects import NAME, Body, SimContainer
from tests.sim.processes import Processes
from tests.sim.state import Refusal

#: The signals that are known, by their numbers, and the exit codes of those that end a program.
_NUMBERS = {"HUP": "1", "INT": "2", "QUIT": "3", "KILL": "9", "USR1": "10", "USR2": "12"}
_NUMBERS |= {"TERM": "15", "WINCH": "28"}
_SIGNALS = {"9": 137, "15": 0, "2": 0}
_FILTERS = frozenset({"ancestor", "health", "id", "label", "name", "network", "status", "volume"})


class Containers(Processes):
    """Create, start, stop, kill, … and look."""

    def _list(self, query: Mapping[str, str], _body: Any) -> Any:
        wanted = filters.read(query.get("filters", ""), _FILTERS)
        everything = filters.flag(query, "all") or "status" in wanted
        shown = [
            container
            for container in self.containers.values()
            if (everything or container.running) and self._matches(container, dict(wanted))
        ]
        shown.sort(key=lambda container: (container.created, container.id), reverse=True)
        limit = int(query.get("limit") or 0)
        return [container.listed() for container in (shown[:limit] if limit > 0 else shown)]

    def _matches(self, container: SimContainer, wanted: filters.Filters) -> bool:
        if not filters.labelled(wanted.pop("label", []), container.config["Labels"]):
            return False
        joined = {*container.networks, *(end.network for end in container.networks.values())}
        sources = {mount.get("Name") for mount in container.mounts}
        return filters.matches(
            wanted,
            {
                "ancestor": lambda v: v in {container.config["Image"], container.image.id},
                "health": lambda v: v == (container.health or "none"),
                "id": container.id.startswith,
                "name": filters.name_test(container.name),
                "network": lambda v: v in joined,
                "status": lambda v: v == container.status,
                "volume": lambda v: v in sources,
            },
        )

    def _create(self, query: Mapping[str, str], body: Body) -> Any:
        body = without(body, self.discards)
        name = query.get("name", "").removeprefix("/")
        identifier = self._identifier()
        name = name or f"quiet_{identifier[:6]}"
        if not NAME.fullmatch(name):
            rule = "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            raise Refusal(400, f"Invalid container name ({name}), {rule}")
        image = self.image(str(body.get("Image", "")))
        if image is None:
            raise Refusal(404, f"No such image: {body.get('Image', '')}")
        self._refuse_taken(name)
        made = container_of(identifier, name, image, body, now=self.clock.now())
        self._check_named(made)
        self._check_addresses(made)
        for mount in made.mounts:
            if mount["Type"] == "volume":
                self._mount_volume(mount)
        made.networks = {self._network_name(key): end for key, end in made.networks.items()}
        self.containers[identifier] = made
        self._event("container", "create", made)
        return 201, {"Id": identifier, "Warnings": []}

    def _refuse_taken(self, name: str) -> None:
        holder = next((c for c in self.containers.values() if c.name == name), None)
        if holder is not None:
            way = "You have to remove (or rename) that container to be able to reuse that name."
            who = f'is already in use by container "{holder.id}"'
            raise Refusal(409, f'Conflict. The container name "/{name}" {who}. {way}')

    def _inspect(self, reference: str, _query: Any, _body: Any) -> Any:
        return self._container(reference).inspect()

    def _start(self, reference: str, _query: Any, _body: Any) -> Any:
        container = self._container(reference)
        if container.status == "paused":
            raise Refusal(409, "cannot start a paused container, try unpause instead")
        if container.running:
            raise Refusal(304)
        container.manually_stopped = False
        container.restart_count, container.restart_delay = 0, 0.0
        self._begin(container)
        return 204, None

    def _stop(self, reference: str, _query: Any, _body: Any) -> Any:
        container = self._container(reference)
        if not container.running:
            raise Refusal(304)
        self._halt(container, 0)
        self._event("container", "stop", container)
        return 204, None

    def _restart(self, reference: str, _query: Any, _body: Any) -> Any:
        container = self._container(reference)
        if container.running:
            self._halt(container, 0)
        container.manually_stopped = False
        container.restart_count = 0
        self._begin(container)
        self._event("container", "restart", container)
        return 204, None

    def _kill(self, reference: str, query: Mapping[str, str], _body: Any) -> Any:
        signal = query.get("signal", "KILL").upper().removeprefix("SIG") or "KILL"
        container = self.find(reference)
        if container is None:
            raise Refusal(
                404, f"cannot kill container: {reference}: No such container: {reference}"
            )
        number = _NUMBERS.get(signal, signal)
        if number not in _NUMBERS.values():
            raise Refusal(400, f"cannot kill container: {reference}: invalid signal: {signal}")
        if not container.alive:
            why = f"container {container.id} is not running"
            raise Refusal(409, f"cannot kill container: {reference}: {why}")
        if number in _SIGNALS:
            self._halt(container, _SIGNALS[number], number)
        else:
            container.manually_stopped = True
            self._event("container", "kill", container, signal=number)
        return 204, None

    def _exec_create(self, reference: str, _query: Any, body: Body) -> Any:
        container = self._container(reference)
        if container.status != "running":
            raise Refusal(409, f"Container {container.id} is not running")
        identifier = self._identifier()
        self.execs[identifier] = {"ID": identifier, "ContainerID": container.id, "Running": False}
        self.commands[identifier] = tuple(body["Cmd"])
        return 201, {"Id": identifier}

    def _exec_start(self, identifier: str, _query: Any, _body: Any) -> Any:
        """``exit N`` ends with that code, and anything else with 0, at once."""
        shown = self._exec(identifier)
        container = self._container(shown["ContainerID"])
        if not container.alive:
            raise Refusal(409, f"Container {container.id} is not running")
        argv = self.commands[identifier]
        last = argv[-1]
        shown["ExitCode"] = int(last.removeprefix("exit ")) if last.startswith("exit ") else 0
        self.been_run.append((container.id, argv))
        return 200, None

    def _exec_inspect(self, identifier: str, _query: Any, _body: Any) -> Any:
        return self._exec(identifier)

    def _exec(self, identifier: str) -> Body:
        if identifier not in self.execs:
            raise Refusal(404, f"No such exec instance: {identifier}")
        return self.execs[identifier]

    def _pause(self, reference: str, _query: Any, _body: Any) -> Any:
        container = self._container(reference)
        if container.status == "paused":
            raise Refusal(409, f"Container {container.id} is already paused")
        if not container.alive:
            raise Refusal(409, f"Container {container.id} is not running")
        container.status = "paused"
        self._stop_probing(container)
        self._event("container", "pause", container)
        return 204, None

    def _unpause(self, reference: str, _query: Any, _body: Any) -> Any:
        container = self._container(reference)
        if container.status != "paused":
            raise Refusal(500, f"Container {container.id} is not paused")
        container.status = "running"
        self._resume_probing(container)
        self._event("container", "unpause", container)
        return 204, None

    def _rename(self, reference: str, query: Mapping[str, str], _body: Any) -> Any:
        container = self._container(reference)
        name = query.get("name", "").removeprefix("/")
        if name == container.name:
            raise Refusal(400, "Renaming a container with the same name as its current name")
        if not NAME.fullmatch(name):
            raise Refusal(400, f"Invalid container name ({name})")
        self._refuse_taken(name)
        container.name = name
        self._event("container", "rename", container)
        return 204, None

    def _update(self, reference: str, _query: Any, body: Body) -> Any:
        container = self._container(reference)
        try:
            container.host = updated_host(container.host, without(body, self.discards))
        except BadBody as error:
            if error.status == 409:
                raise Refusal(409, f"Cannot update container {container.id}: {error}") from error
            raise
        self._event("container", "update", container)
        return {"Warnings": None}

    def _remove(self, reference: str, query: Mapping[str, str], _body: Any) -> Any:
        container = self._container(reference)
        if container.running and not filters.flag(query, "force"):
            way = "stop the container before removing or force remove"
            if container.status == "paused":
                raise Refusal(
                    409,
                    f'cannot remove container "/{container.name}": container is paused and must '
                    "be unpaused first",
                )
            raise Refusal(
                409,
                f'cannot remove container "/{container.name}": container is '
                f"{container.status}: {way}",
            )
        if container.alive:
            self._halt(container, 137)
        del self.containers[container.id]
        self._event("container", "destroy", container)
        if filters.flag(query, "v"):
            for mount in container.mounts:
                volume = self.volumes.get(mount.get("Name", ""))
                if volume is not None and "com.docker.volume.anonymous" in (volume.labels or {}):
                    del self.volumes[volume.name]
                    self._event_of("volume", "destroy", volume.name, {"driver": "local"})
        return 204, None
