"""Moved services on a real engine: a renamed one runs on."""

from __future__ import annotations

from typing import Any

from tests.instance import Host, eventually, has, web

QUICK = "stopGracePeriod: 1s\nrollout: {minHealthy: 0s}\n"


def document(name: str, moved: str = "", colour: str = "", extra: str = "") -> str:
    env = f"env: {{COLOUR: {colour}}}\n" if colour else ""
    text = web(name, extra=QUICK + env + extra)
    claim = f", moved: [{{from: {moved}}}]" if moved else ""
    return text.replace(f"name: {name}", f"name: {name}{claim}", 1)


def runs(host: Host, name: str) -> list[tuple[str, str]]:
    """Return id and start of the running containers that the broker shows for a service."""
    found = (c for c in host.containers(name) if c["State"]["Running"])
    return sorted((str(c["Id"]), str(c["State"]["StartedAt"])) for c in found)


def test_a_renamed_service_runs_on_with_its_history(host: Host) -> None:
    host.write("api.yaml", document("api"))
    host.write("db.yaml", document("db"))
    host.up()
    host.await_ready("api", "db")
    wrong_claims_cost_nothing(host)
    host.write("api.yaml", document("api", colour="green"))
    eventually(
        lambda: len(host.history("api")) == 2 and host.is_ready("api"), what="second revision"
    )
    before = runs(host, "api")
    history = host.history("api")
    assert len(before) == 1
    host.write("api.yaml", document("web", moved="api", colour="green"))
    host.await_ready("web")
    # The label of the container is what it was: the inventory has the new name.
    assert runs(host, "api") == before
    assert has(host.resource("web"), "Moved")
    (item,) = host.resource("web")["slots"]
    assert item["container"].startswith("api.1-")
    plan = host.json("plan")
    assert (plan["actions"], plan.get("blocked", [])) == ([], [])
    assert [each["revision"] for each in host.history("web")] == [e["revision"] for e in history]
    (record,) = host.journal("--action", "service.moved")
    assert record["request"]["object"] == "Service/default/web"
    # A rollback goes to a revision that was declared under the earlier name.
    host.cli("rollback", "web")
    eventually(lambda: runs(host, "web") and not runs(host, "api"), what="replaced under its name")
    (container,) = [c for c in host.containers("web") if c["State"]["Running"]]
    assert not any("COLOUR" in each for each in container["Config"]["Env"])
    host.cli("resume", "web")
    eventually(lambda: host.is_ready("web"), what="the document's revision again")
    # The claim has done its work: without it nothing changes, and the name is free.
    now = runs(host, "web")
    host.write("api.yaml", document("web", colour="green"))
    host.write("new.yaml", document("api"))
    host.await_ready("api", "web")
    assert runs(host, "web") == now
    assert not has(host.resource("web"), "Moved")


def wrong_claims_cost_nothing(host: Host) -> None:
    before = runs(host, "api")
    # Two claims on one name: both stand back, and the containers stay.
    host.write("api.yaml", document("taker", moved="api"))
    host.write("other.yaml", document("other", moved="api"))
    eventually(lambda: _problem(host, "moved.claimed"), what="the problem")
    assert runs(host, "api") == before
    # Another owner's service is not taken by a move.
    host.remove("other.yaml")
    host.write("api.yaml", document("taker", moved="api").replace("owner: ", "owner: other-"))

    def refused() -> bool:
        conditions = (host.resource("taker") or {}).get("conditions", [])
        return any((c["type"], c["reason"]) == ("Stalled", "move.owner") for c in conditions)

    eventually(refused, what="the gate refuses the move")
    assert runs(host, "api") == before


def _problem(host: Host, code: str) -> bool:
    status = host.status()
    problems: list[dict[str, Any]] = [] if status is None else status["problems"]
    return any(each["code"] == code for each in problems)
