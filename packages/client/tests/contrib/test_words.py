from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost.contrib.words import bucket_of, name_of, route_of
from tallypost_schema import names


@pytest.mark.parametrize(
    ("foreign", "bucket"),
    [
        ("export", "export"),
        ("dry-run", "dry-run"),
        ("dry_run", "dry_run"),
        ("db/migrate", "db.migrate"),
        ("app:detail", "app.detail"),
        ("GET", "GET"),
        ("", None),
        ("two words", None),
        ("größe", None),
        ("x" * 201, None),
        ("a\nb", None),
    ],
)
def test_bucket_of_a_name_is_in_the_grammar_or_none(foreign: str, bucket: str | None) -> None:
    """A name stays as it is, or is refused whole."""
    assert bucket == bucket_of(foreign)


@pytest.mark.parametrize(
    ("foreign", "name"),
    [
        ("django.request", "django/request"),
        ("MyApp.db_tools", "myapp/db-tools"),
        ("__main__", "main"),
        ("root", "root"),
        ("", None),
        ("a..b", None),
        ("ein Name", None),
        ("größe", None),
        ("_", None),
        ("x" * 201, None),
    ],
)
def test_name_of_a_dotted_name_is_in_the_grammar_or_none(foreign: str, name: str | None) -> None:
    """Dots become slashes, capitals small, underscores hyphens."""
    assert name == name_of(foreign)


@pytest.mark.parametrize(
    ("template", "bucket"),
    [
        ("/", "index"),
        ("", "index"),
        ("/users/{id}/posts", "users.<id>.posts"),
        ("/convert/{unit}/{value:float}", "convert.<unit>.<value>"),
        ("/users/<int:id>", "users.<id>"),
        ("/sites/<any(about, help):page>/", "sites.<page>"),
        ("/files/<path:name>", "files.<name>"),
        ("users/<slug>/", "users.<slug>"),
        (r"^articles/(?P<year>[0-9]{4})/$", "articles.<year>"),
        (r"^users/(?P<pk>[^/.]+)/?$", "users.<pk>"),
        (r"api/^users/(?P<pk>[^/.]+)/$", "api.users.<pk>"),
        (r"api/^v(?P<number>\d+)/^users/\Z", "api.v<number>.users"),
        (r"^$", "index"),
        (r"odd?$", None),
        ("/a^b/", None),
        ('/codes/<regex("[a-z]{3}"):code>', "codes.<code>"),
        (r"^articles/(?P<year>(19|20)\d\d)/$", None),
        ("/wo ist das", None),
    ],
)
def test_route_of_a_template_names_parameters_alone(template: str, bucket: str | None) -> None:
    """Starlette's, Flask's and Django's templates look alike."""
    assert bucket == route_of(template)


@given(st.text())
def test_words_of_any_text_are_in_the_grammar(text: str) -> None:
    """Whatever comes, what is made of it fits, or nothing is made of it."""
    assert all(bucket is None or names.is_bucket(bucket) for bucket in (bucket_of(text), route_of(text)))
    assert name_of(text) is None or names.is_name(str(name_of(text)))
