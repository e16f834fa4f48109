"""What runs in the simulated engine: how it begins, ends, and is restarted."""

from __future__ import annotations

import re

from controller.model import names
from tests.sim.networks import Networks
from tests.sim.objects import SimContainer
from tests.sim.places import label
from tests.sim.state import Refusal

RESTART_DELAY_S = 0.1
RESTART_DELAY_MAX_S = 60.0
#: A container that ran so long has its next restart without delay.
RESTART_RESET_S = 10.0


class Processes(Networks):
    """A container's process, and its restart policy."""

    def _begin(self, container: SimContainer) -> None:
        """Give a container its process.

        Raises:
            Refusal: it has none then, and says why.
        """
        try:
            self._join(container)
            self._bind_ports(container)
        except Refusal as refusal:
            self._leave(container)
            container.exit_code, container.error = 128, refusal.message
            raise
        program = container.argv[0]
        if program not in container.image.programs:
            self._leave(container)
            container.exit_code = 127
            container.error = (
                f'failed to create task for container: exec: "{program}": no such file'
            )
            raise Refusal(400, container.error)
        self._count += 1
        container.status, container.error, container.exit_code = "running", "", 0
        container.oom_killed, container.pid = False, 1000 + self._count
        container.started_at = self.clock.now()
        container.up_since = self.clock.monotonic()
        container.run += 1
        self._note(container, "running")
        self._event("container", "start", container)
        self._plan_exit(container)
        self._plan_health(container)

    def _plan_exit(self, container: SimContainer) -> None:
        """``/bin/sh -c "sleep S; exit N"`` does just that; any other program goes on."""
        match = re.fullmatch(r"(?:sleep ([0-9.]+); *)?exit ([0-9]+)", container.argv[-1])
        if match is None:
            return
        run, code = container.run, int(match[2])

        def end() -> None:
            if container.run == run and container.alive:
                self._exited(container, code)

        self.later(float(match[1] or 0.02), end)

    def _plan_health(self, container: SimContainer) -> None:
        check = container.config.get("Healthcheck") or {}
        if not check.get("Test") or check["Test"] == ["NONE"]:
            container.health = ""
            return
        container.health = "starting"
        quick = check.get("StartPeriod") and (check.get("StartInterval") or 5_000_000_000)
        self._plan_probe(container, (quick or check.get("Interval") or 30_000_000_000) / 1e9)

    def _plan_probe(self, container: SimContainer, wait_s: float) -> None:
        run, probing = container.run, container.probing

        def pass_check() -> None:
            same = (container.run, container.probing) == (run, probing)
            if same and container.status == "running" and container.health != "healthy":
                self.set_health(container.id, "healthy")

        self.later(wait_s, pass_check)

    def _stop_probing(self, container: SimContainer) -> None:
        """The engine calls unhealthy what it doesn't probe, without a failure."""
        if container.health:
            container.health = "unhealthy"
            container.probing += 1

    def _resume_probing(self, container: SimContainer) -> None:
        if container.health:
            check = container.config.get("Healthcheck") or {}
            self._plan_probe(container, (check.get("Interval") or 30_000_000_000) / 1e9)

    def _exited(self, container: SimContainer, code: int, *, oom: bool = False) -> None:
        """Its process ended, not by a stop: the restart policy decides."""
        ran_s = self.clock.now() - (container.started_at or 0.0)
        self._end(container, code)
        container.oom_killed = oom
        if not _restarts(container):
            return
        doubled = 0.0 if ran_s >= RESTART_RESET_S else container.restart_delay * 2
        container.restart_delay = min(doubled or RESTART_DELAY_S, RESTART_DELAY_MAX_S)
        container.restart_count += 1
        container.status = "restarting"
        run = container.run

        def again() -> None:
            if container.run != run or container.status != "restarting":
                return
            try:
                self._begin(container)
            except Refusal:
                container.status = "exited"

        self.later(container.restart_delay, again)

    def _end(self, container: SimContainer, code: int) -> None:
        """Its process is gone."""
        container.status, container.exit_code = "exited", code
        container.finished_at = self.clock.now()
        self._stop_probing(container)
        self._leave(container)
        self._event("container", "die", container, exitCode=str(code))

    def _halt(self, container: SimContainer, code: int, signal: str = "15") -> None:
        container.manually_stopped = True
        if container.alive:
            self._event("container", "kill", container, signal=signal)
            self._end(container, code)
        else:  # it waits for its restart
            container.status = "exited"

    def crash(self, reference: str, exit_code: int = 1, *, oom: bool = False) -> None:
        """A container's process ends by itself."""
        container = self._container(reference)
        assert container.alive, f"{container.name} has no process that could end"
        self._exited(container, exit_code, oom=oom)

    def engine_restart(self, *, killed: bool = False) -> None:
        """The engine ends (in order, or killed) and comes back, with what its policies say."""
        self.lives += 1
        self._due.clear()  # what it was about to do is forgotten with it
        up_since = {c.id: c.up_since for c in self.containers.values() if c.alive}
        for container in self.containers.values():
            if container.alive and not killed:
                self._event("container", "kill", container, signal="15")
                self._end(container, 0)
                self._event("container", "stop", container)
            elif container.alive:
                self._end(container, 0)
                container.manually_stopped |= container.policy == "unless-stopped"
            elif container.status == "restarting":
                container.status = "exited"
        for container in self.containers.values():
            if container.started_at is not None and _comes_back(container):
                container.restart_count, container.restart_delay = 0, 0.0
                try:
                    self._begin(container)
                except Refusal:
                    continue
                # Whoever was ready is it again: nobody could be asked in between.
                container.up_since = up_since.get(container.id, container.up_since)

    def set_health(self, reference: str, health: str) -> None:
        """A health check's result changes."""
        container = self._container(reference)
        container.health = health
        self._note(container, health)
        self._event("container", f"health_status: {health}", container)

    def _note(self, container: SimContainer, word: str) -> None:
        whose = (label(container, names.NAMESPACE), label(container, names.SERVICE))
        self.been.setdefault(whose, set()).add(word)

    def _bind_ports(self, container: SimContainer) -> None:
        taken = {
            binding
            for other in self.containers.values()
            if other.alive and other is not container
            for binding in self._bindings(other)
        }
        for binding in sorted(self._bindings(container)):
            if binding in taken:
                address, port, _ = binding
                raise Refusal(
                    500,
                    "driver failed programming external connectivity on endpoint "
                    f"{container.name}: Bind for {address}:{port} failed: port is already allocated",
                )

        container.ports = self._published(container)

    def _bindings(self, container: SimContainer) -> set[tuple[str, str, str]]:
        """Addresses, ports and protocols that are published."""
        return {
            (each["HostIp"], each["HostPort"], port.rpartition("/")[2])
            for port, bindings in self._published(container).items()
            for each in bindings
        }


def _restarts(container: SimContainer) -> bool:
    """Tell whether the restart policy starts what just exited by itself."""
    limit = container.host["RestartPolicy"]["MaximumRetryCount"]
    match container.policy:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            return container.exit_code != 0 and (not limit or container.restart_count < limit)
        case _:
            return False


def _comes_back(container: SimContainer) -> bool:
    """Tell whether a restarted engine starts a container that has run before.

    ``always`` and a failed ``on-failure`` come back even after they were stopped on purpose.
    """
    match container.policy:
        case "always":
            return True
        case "unless-stopped":
            return not container.manually_stopped
        case "on-failure":
            return container.exit_code != 0
        case _:
            return False
