"""A site made with Django, in one file, served by the standard library's server."""

import argparse
from calendar import month_name
from pathlib import Path
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tallypost import Telemetry

DECLARATION = Path(__file__).with_name("telemetry.toml")

settings.configure(
    SECRET_KEY="an example has nothing to hide",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["tallypost.contrib.django.TallypostMiddleware", "django.middleware.common.CommonMiddleware"],
    TALLYPOST=Telemetry("example.org/months", "1.0", declaration=DECLARATION, uploader="thread"),
)


def month(request: HttpRequest, number: int) -> HttpResponse:
    """Tell a month's name; there is no thirteenth, and nobody thought of that."""
    return HttpResponse(f"{month_name[number]}\n")


urlpatterns = [path("month/<int:number>/", month)]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8004)
    with make_server("127.0.0.1", parser.parse_args().port, get_wsgi_application()) as server:
        server.serve_forever()
