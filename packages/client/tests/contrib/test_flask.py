from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, Response

from tallypost import Telemetry
from tallypost.contrib.flask import instrument

Read = Callable[..., dict[str, int]]


def site() -> Flask:
    """A site with pages of each kind."""
    app = Flask("site")
    parts = Blueprint("parts", "parts", url_prefix="/parts/<part>")

    @app.get("/")
    def index() -> str:
        return "secret"

    @app.get("/users/<int:number>")
    def user(number: int) -> str:
        return str(number)

    @app.get("/crash")
    def crash() -> str:
        raise KeyError("secret")

    @app.get("/stream")
    def stream() -> Response:
        def pieces() -> Iterator[str]:
            yield from ("one", "two")

        return Response(pieces())

    @parts.get("/page")
    def page(part: str) -> str:
        return part

    app.register_blueprint(parts)
    return app


PATHS = {
    "/": ("index", "2xx"),
    "/users/7": ("users.<number>", "2xx"),
    "/users/secret": ("none", "4xx"),
    "/crash": ("crash", "5xx"),
    "/stream": ("stream", "2xx"),
    "/parts/secret/page": ("parts.<part>.page", "2xx"),
    "/static/secret.css": ("static.<filename>", "4xx"),
}


@pytest.mark.parametrize("path", PATHS)
def test_request_each_is_counted_by_its_rule(path: str, telemetry: Telemetry, counted: Read) -> None:
    """An exception that Flask answers for is counted beside its 500."""
    app, (route, status) = site(), PATHS[path]
    instrument(app, telemetry)

    app.test_client().get(path).close()

    assert {
        "http/route": 1,
        f"http/route:{route}": 1,
        "http/method": 1,
        "http/method:GET": 1,
        "http/status": 1,
        f"http/status:{status}": 1,
        **({"http/exception": 1} if path == "/crash" else {}),
    } == {name: n for name, n in counted().items() if "/seconds:" not in name}
    assert 1 == sum(counted("http/seconds").values())


@pytest.mark.parametrize("path", PATHS)
def test_answer_each_is_as_without_counting(path: str, telemetry: Telemetry, broken: Any) -> None:
    """Status, headers and body are the same: uncounted, counted, and with a broken telemetry object."""
    apps = [site(), site(), site()]
    instrument(apps[1], telemetry)
    instrument(apps[2], broken)

    answers = [app.test_client().get(path) for app in apps]

    seen = [(answer.status, list(answer.headers), answer.data) for answer in answers]
    assert [seen[0]] * 3 == seen


def test_exception_that_flask_lets_through_is_counted_once(telemetry: Telemetry, counted: Read) -> None:
    """As it does while testing or debugging."""
    app = site()
    app.testing = True
    instrument(app, telemetry)

    with pytest.raises(KeyError):
        app.test_client().get("/crash")

    assert {"http/exception": 1, "http/status": 1, "http/status:5xx": 1} == counted("http/exception") | counted(
        "http/status"
    )


def test_app_instrumented_twice_is_counted_once(telemetry: Telemetry, counted: Read) -> None:
    """To say it again changes nothing; another application is not counted along."""
    app = site()
    instrument(app, telemetry, prefix="site")
    instrument(app, telemetry)

    app.test_client().get("/").close()
    site().test_client().get("/").close()

    assert {"site/route": 1, "site/route:index": 1} == counted("site/route")
    assert {} == counted("http")
