"""The templates of Starlette's routes, with the mounts in which they lie.

Takes   the route that an application found, or, of a Starlette before 1.1, the endpoint to which it leads.
Gives   ``/teams/{team}/members/{name}``.
Never   looks at a path: the one that was taken holds values.
"""

from __future__ import annotations

from .words import OTHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# A site has this many routes at most whose full template is kept; and mounts lie no deeper in each other.
routes_max = 10_000
depth_max = 10


class Templates:
    """The templates of one application, each looked for once."""

    def __init__(self) -> None:
        # By identity. What is kept here keeps its own: no other object can come to lie where it is.
        self._known: dict[int, tuple[object, str]] = {}

    def of(self, found: object, application: object) -> str:
        """The template of a route, or of the one route of the application that leads to an endpoint."""
        known = self._known.get(id(found))
        if known is None or known[0] is not found:
            if len(self._known) >= routes_max:
                return _own_or_other(found)
            self._learn(application)
            known = self._known.setdefault(id(found), (found, _own_or_other(found)))
        return known[1]

    def _learn(self, application: object) -> None:
        for route, template in _walk(_routes_of(application)):
            leads_to = getattr(route, "endpoint", None) or getattr(route, "app", None)
            for each in (route, leads_to):
                _, before = self._known.get(id(each), (each, template))
                # What is reached in two ways is known without the mounts in which it lies; an endpoint not at all.
                self._known[id(each)] = (each, template if template == before else _own_or_other(each))


def _routes_of(application: Any) -> Any:
    """The routes of an application, seen through the middlewares around it."""
    for _ in range(depth_max):
        if hasattr(application, "routes"):
            return application.routes
        application = getattr(application, "app", None)
    return ()


def _walk(routes: Any, before: str = "", depth: int = 0) -> Iterator[tuple[object, str]]:
    for route in routes or ():
        own = _own(route)
        yield route, OTHER if own is None else before + own
        below = getattr(route, "routes", None)
        if below and depth < depth_max:
            # A mount's template ends in {path}, which is what the routes below it take.
            yield from _walk(below, before + (own or "").removesuffix("/{path}"), depth + 1)


def _own(route: object) -> str | None:
    """A route's own template; that of a host has none."""
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else None


def _own_or_other(route: object) -> str:
    own = _own(route)
    return OTHER if own is None else own
