"""One suite for a folder and for a real S3-compatible store."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost_server import archiving
from tallypost_server.archive.store import FolderStore, ObjectStore, S3Store
from tallypost_server.settings import Settings
from tallypost_server.testing import FaultyDisk

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_REGION": "eu-west-1",
}


def test_object_is_what_was_put(store: ObjectStore) -> None:
    """Bytes come back as they were, whatever the name's ending; so does an empty object."""
    content = bytes(range(256)) * 64
    for path in ("a/b/one.parquet", "a/b/two.gz", "three"):
        store.put(path, content)
    store.put("empty", b"")

    assert [content] * 3 == [store.get(path) for path in ("a/b/one.parquet", "a/b/two.gz", "three")]
    assert [len(content), 0] == [store.size("three"), store.size("empty")]
    assert b"" == store.get("empty")


def test_object_put_again_is_replaced(store: ObjectStore) -> None:
    """One of the same name is gone."""
    store.put("a", b"longer")
    store.put("a", b"new")

    assert b"new" == store.get("a")
    assert 3 == store.size("a")


def test_large_object_is_whole(store: ObjectStore) -> None:
    """One that is put in several parts is one."""
    content = random.Random(1).randbytes((24 << 20) + 1)

    store.put("large", content)

    assert len(content) == store.size("large")
    assert content == store.get("large")


def test_missing_object_raises(store: ObjectStore) -> None:
    """What is not there is told apart from trouble."""
    with pytest.raises(FileNotFoundError):
        store.get("a/b")
    with pytest.raises(FileNotFoundError):
        store.size("a/b")


def test_names_are_those_directly_in_a_folder(store: ObjectStore) -> None:
    """Objects and folders, sorted; none of a folder that is not there."""
    for path in ("a/2", "a/1", "a/b/3", "ab/4"):
        store.put(path, b"x")

    assert ["1", "2", "b"] == store.names("a")
    assert [] == store.names("missing")


def test_removed_object_is_gone(store: ObjectStore) -> None:
    """Removing it once more is no error."""
    store.put("a/1", b"x")
    store.put("a/2", b"x")

    store.remove("a/1")
    store.remove("a/1")
    store.remove("missing/1")

    assert ["2"] == store.names("a")
    with pytest.raises(FileNotFoundError):
        store.get("a/1")


def test_objects_made_durable_stay(store: ObjectStore) -> None:
    """What was put is durable, whoever asks."""
    store.put("a/1", b"x")

    store.make_durable(["a/1"])

    assert b"x" == store.get("a/1")


def test_put_in_a_folder_leaves_nothing_half_made(tmp_path: Path) -> None:
    """It is written under another name, which readers pass over, and of this process alone."""
    disk = FaultyDisk()
    store = FolderStore(tmp_path / "archive", disk=disk)
    disk.fail("sync")
    with pytest.raises(OSError, match="Input/output error"):
        store.put("a/1", b"x")
    assert all(name.startswith(".") for name in store.names("a"))

    store.put("a/1", b"x")

    assert ["1"] == store.names("a")


def test_s3_store_goes_by_the_variables_of_the_store() -> None:
    """Both libraries are told the same, and a commit is put on the condition that there is none of its name."""
    store = S3Store("s3://bucket/some/prefix/", environment=ENVIRONMENT)

    expected = {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "aws_endpoint_url": "http://127.0.0.1:9",
        "aws_region": "eu-west-1",
        "aws_conditional_put": "etag",
        "allow_http": "true",
        "timeout": "60s",
        "connect_timeout": "20s",
    }
    assert expected == store.options
    assert "s3://bucket/some/prefix" == store.address


def test_s3_store_without_variables_leaves_keys_to_the_libraries() -> None:
    """A machine that has a role needs no keys; the default is AWS itself, over TLS."""
    store = S3Store("s3://bucket", environment={"AWS_DEFAULT_REGION": "eu-central-1"})

    assert {"aws_region", "aws_conditional_put", "allow_http", "timeout", "connect_timeout"} == set(store.options)
    assert ("eu-central-1", "false") == (store.options["aws_region"], store.options["allow_http"])


def test_s3_store_that_is_away_raises_an_os_error() -> None:
    """Trouble of the store is told as trouble of the disk is."""
    store = S3Store("s3://bucket", environment=ENVIRONMENT)

    with pytest.raises(OSError, match="bucket"):
        store.get("a")


@pytest.mark.parametrize(("place", "kind"), [("s3://bucket/prefix", S3Store), ("folder", FolderStore)])
def test_archive_lies_where_the_setting_says(
    make_settings: Callable[..., Settings], tmp_path: Path, place: str, kind: type
) -> None:
    """The beginning of its address chooses the store."""
    settings = make_settings(archive=place if "://" in place else str(tmp_path / place))

    assert isinstance(archiving.tables(settings).store, kind)
