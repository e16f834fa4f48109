"""Writes the list of a release's parts as CycloneDX JSON: each pin, its licence, and what it needs.

``python tools/parts.py VERSION FILE``: what tools/release_pins.py prints, for programs. The time is that of the commit
(SOURCE_DATE_EPOCH), and the serial number is made of the pins: the same commit makes the same bytes.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from importlib.metadata import metadata
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.release_pins import EXTRAS, ROOT, children, needed, pins


def component(name: str, version: str, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    """Return a distribution as a component; its licence, if its metadata has an SPDX expression."""
    purl = PackageURL("pypi", name=name, version=version)
    fields, key = metadata(name), "License-Expression"
    licenses = [LicenseExpression(fields[key])] if key in fields else []
    return Component(
        name=name, version=version, type=kind, purl=purl, bom_ref=str(purl), licenses=licenses
    )


def listed(version: str, time: datetime) -> Bom:
    """Return the list of the parts of a version."""
    known = pins((ROOT / "constraints.txt").read_text())
    versions = {name: known[name].split("==")[1].split()[0] for name in needed("trimtab", EXTRAS)}
    made = {name: component(name, each) for name, each in versions.items()}
    whole = component("trimtab", version, ComponentType.APPLICATION)
    text = "\n".join([version, *sorted(f"{name}=={each}" for name, each in versions.items())])
    bom = Bom(components=made.values(), serial_number=uuid5(NAMESPACE_URL, text))
    bom.metadata.timestamp, bom.metadata.component = time, whole
    for name, each in {"trimtab": whole, **made}.items():
        extras = EXTRAS if each is whole else ()
        needs = {child for child, _ in children(name, extras)}
        bom.register_dependency(each, [made[child] for child in sorted(needs - {"trimtab"})])
    return bom


if __name__ == "__main__":
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    made = listed(sys.argv[1], datetime.fromtimestamp(seconds, UTC))
    Path(sys.argv[2]).write_text(JsonV1Dot6(made).output_as_string(indent=2) + "\n", "utf-8")
