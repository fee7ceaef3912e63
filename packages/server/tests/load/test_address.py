from __future__ import annotations

import pytest

from tallypost_server.load.address import Address, address_of


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", Address("127.0.0.1", 8080, "", False, "", "127.0.0.1:8080")),
        (
            "https://telemetry.example.org/",
            Address("telemetry.example.org", 443, "", True, "", "telemetry.example.org"),
        ),
        ("http://[::1]:80/below/it/", Address("::1", 80, "", False, "/below/it", "[::1]:80")),
        ("unix:/run/a b.sock", Address("", 0, "/run/a b.sock", False, "", "localhost")),
    ],
)
def test_address_is_what_the_url_names(url: str, expected: Address) -> None:
    """Scheme, host, port and what stands before the paths."""
    assert expected == address_of(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8080", "ftp://a", "http://", "http://:80", "http://a:x", "http://a:70000", "http://u:p@a"),
        *("unix:", "http://a?b", "http://a#b", "http://a/\r\nX: y", "http://ä"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """Nothing of it gets into a request's head."""
    with pytest.raises(ValueError, match=r"HOST|[Pp]ort"):
        address_of(url)
