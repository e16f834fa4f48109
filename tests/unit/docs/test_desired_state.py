"""docs/desired-state.md says what the models say: every field, its default and its bounds."""

import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import pytest
from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from controller.core.manifests.check_together import desired_of
from controller.core.manifests.declaration import Metadata
from controller.core.manifests.parse import (
    KINDS,
    MANIFESTS,
    manifest_of,
)
from controller.model.desired.spec.fields import AS_WRITTEN
from controller.model.desired.spec.service import JobSpec, ServiceSpec
from controller.model.quantities import format_bytes, format_duration_ms

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "desired-state.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \| ?(.*)\|$", re.MULTILINE)
#: Fields whose unset value the page describes in words.
IN_WORDS = re.compile(
    r"the (image|policy|engine|container)'s|not published|^none$|^the whole volume$|by ports and volumes|that of maxUnavailable|that of the rollout"
    r"|this, or `|that of `path`|this, `http` or|^–$"
)


@dataclass(frozen=True)
class Field:
    """What a model says of one field: its default as written, and texts that its row must have."""

    default: str
    told: frozenset[str]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> dict[str, tuple[str, str]]:
    """Return each documented field of a section: its default, and its bounds."""
    return {path: (default, bounds) for path, _, default, bounds in ROW.findall(section(title))}


def parts(annotation: Any) -> Iterator[Any]:
    """Yield all that an annotation is made of: types and constraints, unions and lists opened."""
    yield annotation
    inside = (annotation.annotation,) if isinstance(annotation, FieldInfo) else ()
    for part in (*inside, *typing.get_args(annotation), *getattr(annotation, "metadata", ())):
        if not isinstance(part, str):
            yield from parts(part)


def as_written(model: type[BaseModel], name: str) -> str:
    """Return a field's default as users write it."""
    info = model.model_fields[name]
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "in words"
    required = {each: "x" for each, field in model.model_fields.items() if field.is_required()}
    made = model.model_construct(**required | {name: value})
    members = made.model_dump(mode="json", include={name}, context=AS_WRITTEN, warnings=False)
    # A model that is short for one of its members has no other member then.
    dumped = members[name] if isinstance(members, dict) else [*value]
    if isinstance(dumped, bool):
        return f"`{str(dumped).lower()}`"
    return f"`{dumped}`"


def bounds_of(info: FieldInfo) -> Iterator[str]:
    """Yield what a row must tell of a field: its bounds, and the words that it may be."""
    everything = [*parts(info)]
    texts = " ".join(map(repr, everything))
    show: Callable[[int], str] = str
    if "_bytes_out" in texts:
        show = format_bytes
    elif "_duration_out" in texts:
        show = format_duration_ms
    for each in everything:
        match each:
            case Ge(ge=bound) | Le(le=bound) | MaxLen(max_length=bound):
                yield show(cast("int", bound))
            case type() if issubclass(each, StrEnum):
                yield from (f"`{word.value}`" for word in each)
            case _ if typing.get_origin(each) is typing.Literal:
                for word in typing.get_args(each):
                    yield f"`{str(word).lower() if isinstance(word, bool) else word}`"
            case _:
                pass


def models_in(annotation: Any) -> list[type[BaseModel]]:
    return [p for p in parts(annotation) if isinstance(p, type) and issubclass(p, BaseModel)]


def _has_plain_values(annotation: Any) -> bool:
    """Return True for a mapping whose values are texts or models."""
    values = [typing.get_args(p)[1] for p in parts(annotation) if typing.get_origin(p) is dict]
    return any(str in parts(value) and models_in(value) for value in values)


def fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Field]]:
    """Yield each field that users may write in a model, by its path."""
    for name, info in model.model_fields.items():
        path = f"{prefix}.{info.alias or name}"
        inner = models_in(info.annotation)
        listed = any(typing.get_origin(p) is tuple for p in parts(info.annotation))
        keyed = any(typing.get_origin(p) is dict for p in parts(info.annotation))
        if not inner or _has_plain_values(info.annotation):
            yield path, Field(as_written(model, name), frozenset(bounds_of(info)))
        for each in inner:
            kind = ".NAME" if keyed else ""
            if listed and not keyed:
                tag = typing.get_args(each.model_fields["type"].annotation)[0] if inner[1:] else ""
                kind = f"[{tag}]"
            yield from fields(each, path + kind)


def undocumented(documented: dict[str, tuple[str, str]], wanted: dict[str, Field]) -> list[str]:
    """Return a line for each way in which rows and model differ."""
    found = [f"{path} isn't documented" for path in wanted.keys() - documented.keys()]
    found += [f"{path} isn't a field" for path in documented.keys() - wanted.keys()]
    for path in wanted.keys() & documented.keys():
        default, bounds = documented[path]
        field = wanted[path]
        if not (
            IN_WORDS.search(default) if field.default == "in words" else default == field.default
        ):
            found.append(f"{path}: the default is {field.default}, not {default}")
        found += [f"{path}: {text} isn't told" for text in field.told if text not in bounds]
    return sorted(found)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_page_has_each_field_with_its_default_and_bounds(kind: str) -> None:
    manifest = manifest_of(kind)
    assert manifest is not None
    spec = manifest.model_fields["spec"].annotation
    assert isinstance(spec, type) and issubclass(spec, BaseModel)
    wanted = dict(fields(spec, "spec"))
    documented = rows(kind)
    if issubclass(spec, JobSpec):  # the page refers to a Service for the container's fields
        shared = dict(fields(ServiceSpec, "spec"))
        wanted = {path: each for path, each in wanted.items() if path not in shared}
        documented = {path: row for path, row in documented.items() if path not in shared}
    assert undocumented(documented, wanted) == []


def test_the_page_has_what_every_document_has() -> None:
    documented = rows("Every document")
    for path in ("apiVersion", "kind", "spec"):
        documented.pop(path)
    assert undocumented(documented, dict(fields(Metadata, "metadata"))) == []


def test_a_page_that_lags_behind_is_noticed() -> None:
    documented = rows("Service")
    documented["spec.colour"] = documented.pop("spec.image")
    documented["spec.replicas"] = ("`2`", "0 to 99")
    wanted = dict(fields(MANIFESTS["Service"].model_fields["spec"].annotation, "spec"))  # type: ignore[arg-type]
    assert undocumented(documented, wanted) == [
        "spec.colour isn't a field",
        "spec.image isn't documented",
        "spec.replicas: 999 isn't told",
        "spec.replicas: the default is `1`, not `2`",
    ]


EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_valid(number: int) -> None:
    desired = desired_of({"example.yaml": EXAMPLES[number]})
    # A chart is only found beside a directory; all else must have no problem at all.
    problems = [p.render() for p in desired.problems if p.code != "chart.missing"]
    assert problems == []
