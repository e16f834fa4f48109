"""Where a container's settings come from: the image, or the document that overrides the image.

Pure. An image brings its own entrypoint, command, user, working directory, health check and volumes. A
document overrides them one by one, and some of them together.
"""

from __future__ import annotations

from controller.core.rules.images.anonymous_volumes import uncovered
from controller.core.status.details import Report
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import Observed

DOCUMENT, IMAGE, NONE = "document", "image", "none"
#: A document that sets the entrypoint drops the image's command with it.
DROPPED = "none: the entrypoint of the document drops the image's command"


def origins_of(spec: ServiceSpec, observed: Observed | None, image_id: str) -> Report:
    """Return the member ``origins``; nothing while the image is unknown.

    Each setting is ``document``, ``image``, or ``none`` (with a reason, if there is one). ``volumes``
    has the VOLUME paths of the image: ``document`` for a path that a mount covers.
    """
    brought = None if observed is None else observed.image_settings.get(image_id)
    if observed is None or brought is None:
        return {}
    written = {
        "entrypoint": spec.entrypoint,
        "command": spec.command,
        "user": spec.user,
        "workingDir": spec.working_dir,
        "healthcheck": spec.healthcheck,
    }
    origins: Report = {
        name: DOCUMENT if value is not None else IMAGE if name in brought else NONE
        for name, value in written.items()
    }
    if origins["command"] == IMAGE and spec.entrypoint is not None:
        origins["command"] = DROPPED
    declared = observed.image_volumes.get(image_id, ())
    own = {*uncovered(declared, (mount.target for mount in spec.mounts))}
    volumes = {path: IMAGE if path in own else DOCUMENT for path in uncovered(declared, ())}
    return {"origins": origins | ({"volumes": volumes} if volumes else {})}
