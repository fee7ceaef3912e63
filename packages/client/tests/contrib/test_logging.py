from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.contrib.logging import CountingHandler

Read = Callable[..., dict[str, int]]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, cut off from the root. Its handlers are set in the test, as pytest adds one before that."""
    logger = logging.getLogger("Some_Library.parts")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


def test_record_each_is_counted_by_level_and_logger(
    logger: logging.Logger, telemetry: Telemetry, counted: Read
) -> None:
    """The top part of the logger's name, in the grammar; never the message or its arguments."""
    logger.handlers[:] = [logging.NullHandler(), CountingHandler(telemetry)]

    logger.warning("secret %d", "no number: formatting this would fail")
    logger.error("secret")
    logger.log(17, "secret")

    assert {
        "log/level": 3,
        "log/level:warning": 1,
        "log/level:error": 1,
        "log/level:other": 1,
        "log/logger/some-library": 3,
        "log/logger/some-library:warning": 1,
        "log/logger/some-library:error": 1,
        "log/logger/some-library:other": 1,
    } == counted()


def test_record_of_a_deeper_logger_keeps_as_many_parts_as_asked(telemetry: Telemetry, counted: Read) -> None:
    """Two parts, under a prefix of the author's own."""
    handler = CountingHandler(telemetry, prefix="tool/log", depth=2)

    for name in ("django.request", "django.request.more", "django", "root"):
        handler.handle(logging.makeLogRecord({"name": name, "levelno": 10, "levelname": "DEBUG"}))

    assert {
        "tool/log/logger/django/request": 2,
        "tool/log/logger/django": 1,
        "tool/log/logger/root": 1,
    } == {name: n for name, n in counted("tool/log/logger").items() if ":" not in name}


def test_record_of_one_logger_too_many_is_counted_as_other(telemetry: Telemetry, counted: Read) -> None:
    """Loggers that are named after values do not fill the file, nor do names outside the grammar."""
    handler = CountingHandler(telemetry, limit=2)

    for name in ("one", "two", "worker-of-somebody", "größe", "x" * 300, "one"):
        handler.handle(logging.makeLogRecord({"name": name, "levelno": 10, "levelname": "DEBUG"}))

    assert {"log/logger/one": 2, "log/logger/two": 1, "log/logger/other": 3} == {
        name: n for name, n in counted("log/logger").items() if ":" not in name
    }


@pytest.mark.parametrize("level", [logging.ERROR, "ERROR"])
def test_record_below_the_handlers_level_is_not_counted(
    level: int | str, logger: logging.Logger, telemetry: Telemetry, counted: Read
) -> None:
    """The handler's level is that of other handlers."""
    logger.handlers[:] = [logging.NullHandler(), CountingHandler(telemetry, level=level)]

    logger.warning("no")
    logger.error("yes")

    assert {"log/level": 1, "log/level:error": 1} == counted("log/level")


@pytest.mark.parametrize("level", [logging.NOTSET, logging.CRITICAL])
def test_warning_that_no_other_handler_takes_is_printed_as_before(
    level: int, logger: logging.Logger, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python prints what nobody handles, once; counting it does not silence it."""
    logger.handlers[:] = [
        CountingHandler(telemetry, level=level),
        CountingHandler(telemetry, prefix="second", level=level),
    ]

    logger.warning("printed %s", "once")
    logger.info("not printed")

    assert "printed once\n" == capsys.readouterr().err


def test_warning_that_another_handler_takes_is_not_printed_again(
    logger: logging.Logger, telemetry: Telemetry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where somebody handles records, only they do."""
    logger.handlers[:] = [CountingHandler(telemetry), logging.NullHandler()]

    logger.warning("handled")

    assert "" == capsys.readouterr().err


def test_counting_that_logs_is_not_counted_again(logger: logging.Logger) -> None:
    """A telemetry object that logs while it counts does not go in circles."""
    counted = []

    class Logging:
        def counter(self, name: str) -> Logging:
            return self

        def inc(self, n: int = 1, bucket: str | None = None) -> None:
            counted.append(bucket)
            logger.error("counted something")

    telemetry: Any = Logging()
    logger.handlers[:] = [logging.NullHandler(), CountingHandler(telemetry)]

    logger.warning("once")

    assert ["warning", "warning"] == counted


def test_thread_that_logs_while_it_counts_waits_for_nobody(logger: logging.Logger) -> None:
    """A destructor or a signal handler may log amid an increment, while another thread's record is being counted."""
    counting = threading.Lock()
    one_counts, other_logs = threading.Event(), threading.Event()

    class Locked:
        """A telemetry object with a lock, held by the thread that counts elsewhere."""

        def counter(self, name: str) -> Locked:
            return self

        def inc(self, n: int = 1, bucket: str | None = None) -> None:
            other_logs.set()
            with counting:
                pass

    def count_and_log() -> None:
        with counting:
            one_counts.set()
            other_logs.wait(20)
            logger.handlers[1].handle(logging.makeLogRecord({"name": "destructor", "levelno": 5, "levelname": "LOW"}))

    telemetry: Any = Locked()
    logger.handlers[:] = [logging.NullHandler(), CountingHandler(telemetry, level=10)]
    one = threading.Thread(target=count_and_log, daemon=True)
    one.start()
    one_counts.wait(20)
    other = threading.Thread(target=logger.warning, args=("counted",), daemon=True)
    other.start()
    for thread in (one, other):
        thread.join(10)

    assert [False, False] == [one.is_alive(), other.is_alive()]


def test_records_of_many_threads_are_all_counted(logger: logging.Logger, telemetry: Telemetry, counted: Read) -> None:
    """Though no lock is taken: what one thread counts does not keep another from counting."""
    logger.handlers[:] = [logging.NullHandler(), CountingHandler(telemetry)]
    threads = [threading.Thread(target=lambda: [logger.warning("secret") for _ in range(500)]) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {"log/level": 4000, "log/level:warning": 4000} == counted("log/level")


def test_record_that_a_filter_refuses_is_not_counted(
    logger: logging.Logger, telemetry: Telemetry, counted: Read
) -> None:
    """Filters are those of other handlers."""
    handler = CountingHandler(telemetry)
    handler.addFilter(lambda record: record.levelno > logging.WARNING)
    logger.handlers[:] = [logging.NullHandler(), handler]

    logger.warning("no")
    logger.error("yes")

    assert {"log/level": 1, "log/level:error": 1} == counted("log/level")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a filter says yes or no before Python 3.12")
def test_record_that_a_filter_puts_in_anothers_place_is_counted(
    logger: logging.Logger, telemetry: Telemetry, counted: Read
) -> None:
    """As other handlers have it."""
    handler = CountingHandler(telemetry)
    instead = logging.makeLogRecord({"name": "another", "levelno": 40, "levelname": "ERROR"})
    handler.addFilter(lambda record: instead)  # type: ignore[arg-type, return-value]  # Since Python 3.12.
    logger.handlers[:] = [logging.NullHandler(), handler]

    logger.warning("no")

    assert {"log/logger/another": 1, "log/logger/another:error": 1} == counted("log/logger")


def test_broken_telemetry_raises_nothing_and_prints_nothing(
    broken: Any, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program logs on."""
    logger.handlers[:] = [logging.NullHandler(), CountingHandler(broken)]

    logger.error("secret")

    assert "" == capsys.readouterr().err


def test_record_of_another_shape_raises_nothing(telemetry: Telemetry) -> None:
    """A record that somebody made by hand may lack anything."""
    handler = CountingHandler(telemetry)

    handler.handle(logging.makeLogRecord({"name": None, "levelname": None, "levelno": 10}))

    assert handler.problem is not None


def test_handler_with_a_wrong_prefix_raises_where_it_is_made(telemetry: Telemetry) -> None:
    """A prefix is the author's own word."""
    with pytest.raises(WrongUse):
        CountingHandler(telemetry, prefix="My Log")
