"""Names on the engine of declared volumes and networks: ``engineName``, and who uses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from controller.core.manifests.declaration import Declaration
from controller.core.yaml.documents import YamlPath
from controller.model.desired.desired import BoundName, Service
from controller.model.desired.spec.mounts import VolumeMount, VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem
from controller.model.names import Key, qualified

_PATH: YamlPath = ("spec", "engineName")


def _engine_name(declaration: Declaration) -> str:
    """Return the engine's name of a declared volume or network, '' for another kind."""
    spec, key = declaration.spec, declaration.key
    if not isinstance(spec, VolumeSpec | NetworkSpec):
        return ""
    return spec.engine_name or qualified(key.namespace, key.name)


def bound_documents(
    declarations: Iterable[Declaration], blind_keys: Collection[Key]
) -> dict[Key, BoundName]:
    """Return the engine's names of the sound documents with an ``engineName``."""
    return {
        each.key: BoundName(
            "Network" if isinstance(each.spec, NetworkSpec) else "Volume",
            each.key.name,
            each.spec.engine_name,
            has_way_out=isinstance(each.spec, NetworkSpec) and not each.spec.internal,
        )
        for each in declarations
        if isinstance(each.spec, VolumeSpec | NetworkSpec)
        and each.spec.engine_name is not None
        and each.key not in blind_keys
    }


def volume_names(namespace: str, bound: Mapping[Key, BoundName]) -> Callable[[str], str]:
    """Return a function from the name of a volume of the namespace to the engine's name."""

    def engine_name(name: str) -> str:
        found = bound.get(Key("Volume", namespace, name))
        return qualified(namespace, name) if found is None else found.engine_name

    return engine_name


def bound_names(service: Service, bound: Mapping[Key, BoundName]) -> tuple[BoundName, ...]:
    """Return the names of *bound* that a service mounts or joins."""
    namespace, spec = service.key.namespace, service.spec
    volumes = {m.source for m in spec.mounts if isinstance(m, VolumeMount)}
    networks = {each.name for each in spec.network.attach}
    used = [Key("Network", namespace, name) for name in sorted(networks)]
    used += [Key("Volume", namespace, name) for name in sorted(volumes)]
    return tuple(bound[key] for key in used if key in bound)


def check_engine_names(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Yield a problem for each document of a shared volume or network of the engine.

    An adopted volume can't be released: the controller never removes data that others made.
    """
    groups: dict[tuple[str, str], list[Declaration]] = {}
    for each in declarations:
        if isinstance(each.spec, VolumeSpec) and each.spec.engine_name and not each.spec.retain:
            yield each.problem(
                ("spec", "retain"),
                "volume.retain",
                f"{each.key} is the adopted volume {each.spec.engine_name}, which trimtab never removes",
                "remove retain; an operator removes the volume with `trimtab volume remove`",
            )
        if name := _engine_name(each):
            groups.setdefault((each.key.kind, name), []).append(each)
    for (kind, name), group in groups.items():
        if len({each.key for each in group}) < 2:
            continue
        for each in group:
            other = next(o for o in group if o.key != each.key)
            bound = isinstance(each.spec, VolumeSpec | NetworkSpec) and each.spec.engine_name
            yield each.problem(
                _PATH if bound else ("metadata", "name"),
                "engine-name.duplicate",
                f"the engine's {kind.lower()} {name} is also that of {other.key} ({other.place})",
                "let one document name it; until then nothing is changed for either",
            )


def check_volume_mounts(
    services: Iterable[tuple[Declaration, ServiceSpec]], broken: Collection[Key]
) -> Iterator[Problem]:
    """Yield the mounts of volumes whose documents have errors.

    The engine's name of such a volume is unknown: another name would be an empty volume.
    """
    for service, spec in services:
        for index, mount in enumerate(spec.mounts):
            if not isinstance(mount, VolumeMount):
                continue
            key = Key("Volume", service.key.namespace, mount.source)
            if key in broken:
                path: YamlPath = ("spec", "mounts", index, "source")
                message, remedy = f"the document of {key} has errors", "correct that document"
                yield service.problem(path, "volume.broken", message, remedy)
