"""Replicas, rollouts, hooks, restarts and dependencies of a service."""

from __future__ import annotations

from typing import Final

from controller.core.compose.project import EXTENSION, SERVICE, TreePath
from controller.core.compose.translation.container import Workload, usual_capabilities
from controller.core.compose.translation.scope import Draft, Tree, dns_name, items, mapping, texts
from controller.model.names import JOB_NAME_MAX
from controller.model.quantities import format_duration_ms

_CONDITIONS: Final = {
    "service_started": "Started",
    "service_healthy": "Healthy",
    "service_completed_successfully": "Completed",
}
_HOOK_FIELDS: Final = {
    "exec": "command",
    "user": "user",
    "workingDir": "working_dir",
    "env": "environment",
}
_ORDERS: Final = {"start-first": "StartFirst", "stop-first": "StopFirst"}
_ACTIONS: Final = {"rollback": "Rollback", "pause": "Pause"}
#: The event of each list of hooks.
_EVENTS: Final = {"post_start": "postStart", "pre_stop": "preStop"}
#: Fields that the step has from its service. Of the network it has no names, and of the mounts no tmpfs.
_OF_SERVICE: Final = ("env", "workingDir", "resources", "network", "mounts", "dependsOn", "suspend")
_UPDATE: Final[TreePath] = ("deploy", "update_config")
_POLICIES: Final = {
    "always": "Always",
    "unless-stopped": "Always",
    "any": "Always",
    "on-failure": "OnFailure",
    "no": "Never",
    "none": "Never",
}


def put_rollout(work: Workload) -> None:
    """Translate what concerns the life of a service: replicas, rollouts, restarts, dependencies."""
    deploy = mapping(work.tree.get("deploy"))
    if labels := mapping(deploy.get("labels")):
        work.draft.labels.update({name: str(value) for name, value in labels.items()})
        work.draft.origins["metadata", "labels"] = (*work.draft.origin, "deploy", "labels")
    if not work.is_job:
        _put_replicas(work, deploy)
        _put_update(work, mapping(deploy.get("update_config")))
        _put_rollback(work, mapping(deploy.get("rollback_config")))
    for name, event in _EVENTS.items():
        _put_hooks(work, name, event)
    if work.scope.extension.is_suspended:
        work.draft.spec["suspend"] = True
        work.draft.origins["spec", "suspend"] = (EXTENSION, "suspend")
    _put_restart(work, deploy)
    _put_dependencies(work)


def replicas_of(tree: Tree) -> int:
    """Return the number of replicas of a service."""
    for value in (mapping(tree.get("deploy")).get("replicas"), tree.get("scale")):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 1


def _put_replicas(work: Workload, deploy: Tree) -> None:
    count = replicas_of(work.tree)
    if deploy.get("mode") == "global":
        work.warn(
            ("deploy", "mode"), "a service of mode global has one replica on one host", "remove it"
        )
        return
    if count == 1:
        return
    origin: TreePath = ("deploy", "replicas") if "replicas" in deploy else ("scale",)
    work.draft.put("spec.replicas", count, origin)
    if count > 1 and work.tree.get("container_name"):
        message = f"container_name names one container, and the service has {count} replicas"
        work.refuse(
            ("container_name",),
            message,
            "remove container_name: the service's name resolves to all",
        )


def _put_pace(work: Workload, terms: Tree, path: TreePath, field: str) -> None:
    """Translate the order and the pace of a rollout or a rollback."""
    if (order := terms.get("order")) is not None:
        work.draft.put(f"{field}.order", _ORDERS.get(str(order), str(order)), (*path, "order"))
    parallel = terms.get("parallelism")
    if isinstance(parallel, int):
        count = max(1, parallel or replicas_of(work.tree))
        work.draft.put(f"{field}.parallelism", count, (*path, "parallelism"))
        work.draft.put(f"{field}.maxUnavailable", count, (*path, "parallelism"))
    times = {
        name: value for name in ("delay", "monitor") if isinstance(value := terms.get(name), int)
    }
    name = max(times, key=times.__getitem__, default="")
    if name and times[name] > 0:
        work.draft.put(f"{field}.minHealthy", format_duration_ms(times[name]), (*path, name))


def _put_update(work: Workload, update: Tree) -> None:
    _put_pace(work, update, _UPDATE, "spec.rollout")
    action = update.get("failure_action")
    if action == "continue":
        message = "failure_action: continue would replace replicas that work by replicas that don't"
        work.refuse((*_UPDATE, "failure_action"), message, "write rollback or pause")
    elif action is not None:
        word = _ACTIONS.get(str(action), str(action))
        work.draft.put("spec.rollout.onFailure", word, (*_UPDATE, "failure_action"))
    if update.get("max_failure_ratio"):
        message = "max_failure_ratio is not supported: the first failure ends a rollout"
        work.refuse((*_UPDATE, "max_failure_ratio"), message, "remove it")


def _put_rollback(work: Workload, rollback: Tree) -> None:
    path = ("deploy", "rollback_config")
    _put_pace(work, rollback, path, "spec.rollout.rollback")
    if rollback.get("failure_action") == "continue":
        message = "failure_action continue: a rollback that fails is left as it is"
        work.warn((*path, "failure_action"), message, "write pause")


def _put_hooks(work: Workload, name: str, event: str) -> None:
    hooks = [mapping(each) for each in items(work.tree.get(name))]
    if hooks and work.is_job:
        work.refuse((name,), f"a Job has no {name}", "put the commands into the service's command")
        return
    written: list[dict[str, object]] = []
    path = ("spec", "lifecycle", event)
    for index, hook in enumerate(hooks):
        entry: dict[str, object] = {"exec": texts(hook.get("command"))}
        optional = {
            "user": hook.get("user"),
            "workingDir": hook.get("working_dir"),
            "env": _variables(hook),
        }
        written.append(entry | {field: value for field, value in optional.items() if value})
        for field, attribute in _HOOK_FIELDS.items():
            work.draft.trace((*path, index, field), (name, index, attribute))
    if written:
        work.draft.put(f"spec.lifecycle.{event}", written, name)


def _variables(hook: Tree) -> dict[str, str]:
    variables = mapping(hook.get("environment"))
    return {key: str(value) for key, value in variables.items() if value is not None}


def put_steps(work: Workload) -> None:
    """Translate ``pre_start``: each step is a Job that a rollout of the service runs first.

    The service is translated already.
    """
    steps = [mapping(each) for each in items(work.tree.get("pre_start"))]
    if not steps:
        return
    if work.is_job:
        remedy = "make each step a service of its own, and wait for its completion in depends_on"
        work.refuse(("pre_start",), "a Job has no pre_start", remedy)
        return
    if str(work.tree.get("network_mode") or "").startswith(SERVICE):
        message = (
            "pre_start is not supported beside network_mode: service:NAME: a Job shares no network"
        )
        work.refuse(("pre_start",), message, "move the steps to the service that has the network")
        return
    drafts = [_step(work, index, step) for index, step in enumerate(steps)]
    work.draft.put("spec.rollout.before", [draft.name for draft in drafts], "pre_start")
    for index in range(len(drafts)):
        work.draft.trace(("spec", "rollout", "before", index), ("pre_start", index))
    work.scope.drafts += drafts


def _step(work: Workload, index: int, step: Tree) -> Draft:
    name = dns_name(f"{work.name}-pre-start-{index + 1}", JOB_NAME_MAX)
    draft = Draft("Job", name, (*work.draft.origin, "pre_start", index))
    image = step.get("image")
    draft.put("spec.image", image or {"fromService": True}, "image")
    if command := texts(step.get("command")):
        draft.put("spec.command", command, "command")
    for field in (*_OF_SERVICE, *(() if image else ("user",))):
        _copy(work.draft, draft, field)
    for field, attribute in (("user", "user"), ("workingDir", "working_dir")):
        if step.get(attribute):
            draft.put(f"spec.{field}", str(step[attribute]), attribute)
    if variables := _variables(step):
        draft.put("spec.env", {**mapping(draft.spec.get("env")), **variables}, "environment")
        for variable in variables:
            draft.trace(("spec", "env", variable), ("environment", variable))
    if capabilities := usual_capabilities(work.scope, draft.spec.get("user")):
        draft.put("spec.security.capAdd", capabilities, ())
    # As with Docker Compose, a step that fails isn't repeated.
    draft.put("spec.trigger", "Rollout", ())
    draft.put("spec.backoffLimit", 0, ())
    return draft


def _copy(service: Draft, step: Draft, field: str) -> None:
    """Copy a field of a service, with its places, as far as a Job has it."""
    if field not in service.spec:
        return
    value = service.spec[field]
    #: The new index of each item that is kept.
    indices: dict[str | int, int] = {at: at for at, _ in enumerate(items(value))}
    if field == "network":
        value = _without_names(mapping(value))
    elif field == "dependsOn":
        value = [{k: v for k, v in mapping(e).items() if k != "restart"} for e in items(value)]
    elif field == "mounts":
        mounts = [mapping(each) for each in items(value)]
        kept = [at for at, mount in enumerate(mounts) if mount["type"] != "tmpfs"]
        indices = {old: new for new, old in enumerate(kept)}
        value = [mounts[at] for at in kept]
    step.spec[field] = value
    for path, origin in service.origins.items():
        if path[:2] == ("spec", field):
            inner = path[2:]
            if not isinstance(value, list) or not inner:
                step.origins[path] = origin
            elif inner[0] in indices:
                step.origins["spec", field, indices[inner[0]], *inner[1:]] = origin


def _without_names(network: Tree) -> Tree:
    """Return the network of a service without aliases: nobody reaches a run."""
    attach = [mapping(each).get("name", each) for each in items(network.get("attach"))]
    kept = {name: value for name, value in network.items() if name not in ("aliases", "attach")}
    return {**kept, "attach": attach} if attach else kept


def restart_of(tree: Tree) -> tuple[str, TreePath]:
    """Return the word for the restart policy, '' if none is written, and its path."""
    condition = mapping(mapping(tree.get("deploy")).get("restart_policy")).get("condition")
    if condition:
        return str(condition), ("deploy", "restart_policy", "condition")
    word = tree.get("restart")
    return ("no" if word is False else str(word or "")), ("restart",)


def _put_restart(work: Workload, deploy: Tree) -> None:
    word, origin = restart_of(work.tree)
    policy = _POLICIES.get(word.partition(":")[0])
    if word and policy is None:
        work.refuse(origin, f"restart {word} is unknown", 'write always, on-failure or "no"')
        return
    if work.is_job:
        # Compose starts a container once that needn't run on; restart is "no" unless written.
        if policy in (None, "Never"):
            work.draft.put("spec.backoffLimit", 0, origin)
    elif policy is not None and policy != "Always":
        work.draft.put("spec.restart.policy", policy, origin)
    if ":" in word and word.partition(":")[2] != "0":
        message = f"restart {word}: restarts go on, more slowly each time"
        work.warn(origin, message, "write on-failure")
    limits = mapping(deploy.get("restart_policy"))
    written = [name for name in ("delay", "max_attempts", "window") if limits.get(name)]
    if written and policy != "Never":
        message = (
            f"{', '.join(written)} of restart_policy: a restart waits 1 s to 300 s, longer each time, "
            "and restarts go on"
        )
        work.warn(("deploy", "restart_policy", written[0]), message, "remove it")


def _put_dependencies(work: Workload) -> None:
    scope = work.scope
    for name, terms in mapping(work.tree.get("depends_on")).items():
        origin: TreePath = ("depends_on", name)
        if name not in scope.services:
            if mapping(terms).get("required") is not False:
                message = f"service {name} is not in the project"
                remedy = "choose its profile in x-trimtab.profiles, or write required: false"
                work.refuse(origin, message, remedy)
            continue
        is_job = name in scope.jobs
        word = str(mapping(terms).get("condition") or "service_started")
        condition = "Completed" if is_job else _CONDITIONS.get(word, word)
        entry: dict[str, object] = {"name": scope.name_of(name), "condition": condition}
        if mapping(terms).get("restart") is True and not is_job:
            entry["restart"] = True
        work.draft.add("dependsOn", {"kind": "Job", **entry} if is_job else entry, origin)
