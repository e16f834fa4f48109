"""The pages of a host: pure functions from a view to HTML. ``port`` has the values of both sides."""

from controller.web.pages.port import (
    Away,
    Fetched,
    LogsNeeded,
    PageLogs,
    PageName,
    PageNeeds,
    PageRoute,
    Records,
    RecordsNeeded,
    RenderedPage,
    WebSession,
    route_of,
)
from controller.web.pages.render import load_templates, needs_of, render

__all__ = [
    "Away",
    "Fetched",
    "LogsNeeded",
    "PageLogs",
    "PageName",
    "PageNeeds",
    "PageRoute",
    "Records",
    "RecordsNeeded",
    "RenderedPage",
    "WebSession",
    "load_templates",
    "needs_of",
    "render",
    "route_of",
]
