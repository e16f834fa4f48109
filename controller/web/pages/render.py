"""The HTML of each page, by templates that escape every value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from controller.web.pages.port import Fetched, Needs, Page, Route, Session

_TEMPLATES = Environment(
    loader=PackageLoader("controller.web.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def needs_of(
    route: Route, view: Mapping[str, Any] | None, query: Mapping[str, str], session: Session
) -> Needs:
    """Return what a page needs besides the view."""
    del route, view, query, session
    return Needs()


def render(
    route: Route,
    view: Mapping[str, Any] | None,
    query: Mapping[str, str],
    session: Session,
    fetched: Fetched,
) -> Page:
    """Return a page of a view; None is a view that never arrived. *query*: the parameters of the address."""
    del route, view, query, session, fetched
    html = _TEMPLATES.get_template("base.html").render()
    digest = hashlib.sha256(html.encode()).hexdigest()[:32]
    return Page(200, html, f'"{digest}"')
