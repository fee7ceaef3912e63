from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tallypost.contrib import routes
from tallypost.contrib.routes import Templates


def route(path: str | None, **more: Any) -> Any:
    """Something that looks like one of Starlette's routes."""
    return SimpleNamespace(path_format=path, **more)


def around(*inner: Any) -> Any:
    """An application with routes, in a middleware."""
    return SimpleNamespace(app=SimpleNamespace(routes=list(inner)))


def test_template_has_those_of_the_mounts_in_which_the_route_lies() -> None:
    """However deep; a mount itself, and what it leads to, have its own."""
    page = route("/members/{name}", endpoint=object())
    deep = route("/deep/{path}", routes=[page], app=object())
    mount = route("/teams/{team}/{path}", routes=[deep])
    templates, site = Templates(), around(mount)

    assert "/teams/{team}/deep/members/{name}" == templates.of(page, site) == templates.of(page.endpoint, site)
    assert "/teams/{team}/deep/{path}" == templates.of(deep, site) == templates.of(deep.app, site)


def test_template_of_a_route_that_came_later_is_found() -> None:
    """An application may add routes while it serves."""
    first, later = route("/first"), route("/later")
    inner = [first]
    templates, site = Templates(), SimpleNamespace(routes=[route("/sub/{path}", routes=inner)])

    before = templates.of(first, site)
    inner.append(later)

    assert ("/sub/first", "/sub/later", "/sub/first") == (before, templates.of(later, site), templates.of(first, site))


def test_template_of_what_is_reached_in_two_ways_is_its_own_or_other() -> None:
    """Whatever is asked for in between; a route has one, an endpoint none."""
    page = object()
    one, two, shared = route("/one", endpoint=page), route("/two", endpoint=page), route("/shared")
    mounts = [route("/v1/{path}", routes=[shared]), route("/v2/{path}", routes=[shared])]
    templates, site = Templates(), around(one, two, *mounts)

    for unknown in (object(), object()):  # Each has all routes looked through once more.
        assert ("other", "/one") == (templates.of(page, site), templates.of(one, site))
        assert ("other", "/shared") == (templates.of(unknown, site), templates.of(shared, site))


@pytest.mark.parametrize("application", [None, object(), SimpleNamespace(routes=None)])
def test_template_of_a_route_that_no_application_shows_is_its_own(application: Any) -> None:
    """As where somebody wrapped it in a way of their own."""
    assert "/page" == Templates().of(route("/page"), application)
    assert "other" == Templates().of(route(None), application)


def test_templates_of_routes_without_end_are_not_all_kept() -> None:
    """A site that makes a route for each visitor does not grow the process twice over."""
    templates = Templates()

    found = {templates.of(route("/page"), None) for _ in range(routes.routes_max + 10)}

    assert {"/page"} == found
    assert routes.routes_max == len(templates._known)


def test_mount_that_lies_in_itself_comes_to_an_end() -> None:
    """What no site has on purpose must not hang one."""
    mount = route("/again/{path}")
    mount.routes = [mount]

    assert Templates().of(mount, around(mount)).endswith("/again/{path}")
