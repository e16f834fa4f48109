"""What a pass asks for with its requests: the images to look for, and the claims of each action."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.core.planning import planner
from controller.loop.passes import DesiredView
from controller.model.desired.desired import Desired, Network, Service, SourceLocation, Volume
from controller.model.desired.plan import AnyAction, CreateContainer
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context


def images_for(key: Key, view: DesiredView, known: Observed | None) -> frozenset[str]:
    """Return the images that a pass of *key* needs to know of."""
    service = view.desired.service(key)
    if service is None:
        return frozenset()
    return planner.image_references(Desired(services=(service,)), known)


def claims(desired: Desired, plan_digest: str, on_behalf_of: str) -> Callable[[AnyAction], Context]:
    """Return the function that gives an action's claims: why, from where, of which plan.

    What isn't declared has no place; then the commit is the one in which it isn't.
    """
    sources = sources_of(desired)
    nowhere = SourceLocation("", commit=desired.identity.commit)

    def context(action: AnyAction) -> Context:
        source = sources.get(action.object, nowhere)
        return Context(
            cause=action.cause,
            file=source.file,
            line=source.line,
            commit=source.commit,
            plan=plan_digest,
            on_behalf_of=on_behalf_of,
            lines=source.lines if isinstance(action, CreateContainer) else (),
        )

    return context


def sources_of(desired: Desired) -> Mapping[Key, SourceLocation]:
    """Return where each resource was declared."""
    resources: tuple[Service | Network | Volume, ...] = (
        *desired.services,
        *desired.networks,
        *desired.volumes,
    )
    return {resource.key: resource.source for resource in resources}


def declared_keys(desired: Desired) -> frozenset[Key]:
    """Return the resources whose documents could be read: only their generations are acted on."""
    return frozenset(sources_of(desired)) - desired.blind_keys
