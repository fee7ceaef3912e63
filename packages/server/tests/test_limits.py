from __future__ import annotations

from tallypost_schema import limits as shared
from tallypost_schema.outcomes import CODES
from tallypost_server import limits


def test_limits_keep_their_relations_to_each_other() -> None:
    """A bound that outgrew another would make a promise false."""
    assert limits.keep_alive_seconds > 60
    stopping = limits.stop_notice_seconds + limits.drain_seconds_max + limits.stop_seconds_max
    assert stopping < limits.workers_stop_seconds_max < 15
    assert limits.worker_silent_seconds_max > 2 * limits.drain_seconds_max
    assert limits.applications_scan_seconds < 5
    assert limits.turn_bytes_max > limits.inline_bytes_max
    assert limits.waiting_bytes_max > 2 * shared.decoded_bytes_max
    assert (
        shared.zstd_window_bytes_max >= shared.decoded_bytes_max
    )  # A frame that is its own window is not asked for it.
    assert limits.held_bytes_max > 2 * shared.wire_bytes_max
    assert limits.quarantine_bytes_max > 2 * shared.wire_bytes_max
    assert limits.frame_lines_bytes_max > limits.waiting_bytes_max
    assert limits.frame_bytes_max > 1.01 * limits.waiting_bytes_max
    assert limits.line_bytes_max > 2 * shared.decoded_bytes_max
    assert limits.kept_bytes_max > 1.4 * max(limits.torn_bytes_max, shared.wire_bytes_max)
    assert limits.posts_answer_seconds_max > limits.body_seconds_max
    assert limits.gzip_members_max == shared.zstd_frames_max


def test_retry_after_is_told_for_every_code_of_the_servers_own_trouble() -> None:
    """A 503 without Retry-After is never sent."""
    assert {code for code, told in CODES.items() if told.status == 503} == limits.retry_after_seconds.keys()
