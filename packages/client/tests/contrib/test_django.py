from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path, re_path

from tallypost import Telemetry
from tallypost.contrib.django import TallypostMiddleware

Read = Callable[..., dict[str, int]]


def page(request: Any, **given: object) -> HttpResponse:
    """A page."""
    return HttpResponse("secret")


async def later(request: Any) -> HttpResponse:
    """A page that is a coroutine."""
    return HttpResponse("secret")


def crash(request: Any) -> HttpResponse:
    """A page that nobody sees."""
    raise KeyError("secret")


def missing(request: Any) -> HttpResponse:
    """A page for something that is not there."""
    raise Http404


def stream(request: Any) -> StreamingHttpResponse:
    """A page in pieces."""
    return StreamingHttpResponse(iter([b"one", b"two"]))


class Urls:
    """The site's pages."""

    urlpatterns = (
        path("", page),
        path("users/<int:number>/", page),
        path("crash/", crash),
        path("missing/", missing),
        path("stream/", stream),
        path("later/", later),
        path("parts/<slug:part>/", include([path("page/", page)])),
        re_path(r"^years/(?P<year>[0-9]{4})/$", page),
        re_path(r"^odd/(?P<year>(19|20)[0-9]{2})/?$", page, name="odd-years"),
        path("api/", include([re_path(r"^years/(?P<year>[0-9]+)/?$", page)])),
        re_path(r"^nameless/\d\d?/$", page),
    )


class Renamed(TallypostMiddleware):
    """A middleware with another prefix."""

    prefix = "site"


PATHS = {
    "/": ("index", "2xx"),
    "/users/7/": ("users.<number>", "2xx"),
    "/users/secret/": ("none", "4xx"),
    "/crash/": ("crash", "5xx"),
    "/missing/": ("missing", "4xx"),
    "/api/years/7": ("api.years.<year>", "2xx"),
    "/later/": ("later", "2xx"),
    "/parts/secret/page/": ("parts.<part>.page", "2xx"),
    "/years/2026/": ("years.<year>", "2xx"),
    "/odd/1999/": ("odd-years", "2xx"),
    "/nameless/77/": ("other", "2xx"),
}
MIDDLEWARE = ["tallypost.contrib.django.TallypostMiddleware"]


def ask(where: str, telemetry: object, kind: str, middleware: list[str] | None = None) -> Any:
    """The site's answer, under WSGI or ASGI; what a view raises is answered, as in production."""
    with override_settings(
        ROOT_URLCONF=Urls, TALLYPOST=telemetry, MIDDLEWARE=MIDDLEWARE if middleware is None else middleware
    ):
        if kind == "sync":
            return Client(raise_request_exception=False).get(where)
        return asyncio.run(AsyncClient(raise_request_exception=False).get(where))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("where", PATHS)
def test_request_each_is_counted_by_the_resolvers_route(
    where: str, kind: str, telemetry: Telemetry, counted: Read
) -> None:
    """A regular expression that is none of our grammar goes by its view's name; one without is ``other``."""
    route, status = PATHS[where]

    ask(where, telemetry, kind)

    assert {
        "http/route": 1,
        f"http/route:{route}": 1,
        "http/method": 1,
        "http/method:GET": 1,
        "http/status": 1,
        f"http/status:{status}": 1,
        **({"http/exception": 1} if where == "/crash/" else {}),
    } == {name: n for name, n in counted().items() if "/seconds:" not in name}
    assert 1 == sum(counted("http/seconds").values())


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("where", PATHS)
def test_answer_each_is_as_without_counting(where: str, kind: str, telemetry: Telemetry, broken: Any) -> None:
    """Status, headers and body are the same: without, with, and with a broken telemetry object."""
    answers = [ask(where, None, kind, []), ask(where, telemetry, kind), ask(where, broken, kind)]

    seen = [(answer.status_code, answer.headers, answer.content) for answer in answers]

    assert [seen[0]] * 3 == seen


def test_streaming_answer_is_left_alone(telemetry: Telemetry, counted: Read) -> None:
    """It is counted when it begins."""
    answer = ask("/stream/", telemetry, "sync")

    assert {"http/route": 1, "http/route:stream": 1} == counted("http/route")
    assert [b"one", b"two"] == list(answer.streaming_content)


def test_subclass_changes_the_prefix(telemetry: Telemetry, counted: Read) -> None:
    """As Django's own classes are changed."""
    ask("/", telemetry, "sync", [f"{Renamed.__module__}.Renamed"])

    assert {"site/status": 1, "site/status:2xx": 1} == counted("site/status")


class Crashing:
    """A middleware that raises."""

    def __init__(self, get_response: Any) -> None:
        pass

    def __call__(self, request: Any) -> Any:
        raise KeyError("secret")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_exception_of_another_middleware_is_counted(kind: str, telemetry: Telemetry, counted: Read) -> None:
    """Django answers for it as for that of a view; no route was looked for."""
    ask("/", telemetry, kind, [*MIDDLEWARE, f"{Crashing.__module__}.Crashing"])

    found = {name: n for name, n in counted().items() if ":" in name and "/seconds:" not in name}
    assert {"http/route:none": 1, "http/method:GET": 1, "http/status:5xx": 1} == found
    assert {"http/exception": 1} == counted("http/exception")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_middleware_listed_twice_counts_once(kind: str, telemetry: Telemetry, counted: Read) -> None:
    """A subclass with another prefix counts for itself."""
    ask("/users/7/", telemetry, kind, [*MIDDLEWARE, *MIDDLEWARE, f"{Renamed.__module__}.Renamed"])

    assert {"http/route": 1, "http/route:users.<number>": 1} == counted("http/route")
    assert {"site/route": 1, "site/route:users.<number>": 1} == counted("site/route")


@pytest.mark.parametrize("setting", [None, "no.such.module", "tallypost.no_such_name", "nothing"])
def test_setting_that_leads_nowhere_leaves_the_middleware_out(setting: str | None, counted: Read) -> None:
    """The site answers without it."""
    with override_settings(TALLYPOST=setting), pytest.raises(MiddlewareNotUsed):
        TallypostMiddleware(page)

    assert 200 == ask("/", setting, "sync").status_code


def test_setting_may_be_a_dotted_path() -> None:
    """Settings are read before much else is there."""
    with override_settings(TALLYPOST="tallypost.Telemetry"):  # Not an object, but something that is there.
        middleware = TallypostMiddleware(page)

    assert page is middleware.get_response
