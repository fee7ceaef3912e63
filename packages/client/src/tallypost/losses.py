"""The reasons for which something is not counted or not sent, each with its sentence: `status` shows them.

Takes   nothing.
Gives   the counters in which the recording path counts its own losses, and the words for refusals.
Never   raises: a loss is data.
"""

from __future__ import annotations

# Counted in the count file itself, so that a loss is as durable as a count.
DROPPED_NAMES = "tallypost/dropped-names"
DROPPED_BUCKETS = "tallypost/dropped-buckets"
DROPPED_VALUES = "tallypost/dropped-values"
DROPPED_EVENTS = "tallypost/dropped-events"
OWN_COUNTERS = (DROPPED_NAMES, DROPPED_BUCKETS, DROPPED_VALUES, DROPPED_EVENTS)

# Why a document went to `refused/` though no server refused it.
REFUSALS = {
    "withdrawn": "the user said no after it was made",
    "other-yes": "it was begun under another yes than the one in force",
    "too-old": "it was made more than 21 days ago",
    "unreadable": "it is not a document",
    "evicted": "more documents waited than are kept; the oldest made room",
    "merged": "its events were evicted, and the batch before it tells of that",
}

# Seen by the reporter, derived from what lies in the state directory.
DAMAGED_COUNT_FILES = "damaged-count-files"
DAMAGED_LOCAL_REPORTS = "damaged-local-reports"

# Seen in what waits, was sent and was refused (``uploads/pending.py``).
EVICTED_REPORTS = "evicted-reports"
LOST_EVENTS = "lost-events"

# What each loss means, by the word that `status` has for it.
SENTENCES = {
    "dropped-names": "counts of names beyond what one file holds (10,000)",
    "dropped-buckets": "counts in buckets outside the grammar; their plain name was counted",
    "dropped-values": "values that are no number from 0 on",
    "dropped-events": "events that are not declared, or came faster than they could be written",
    DAMAGED_COUNT_FILES: "count files that cannot be read",
    # What such a report has of a count file is unknown, so that as old a file waits (``reports/fold.py``).
    DAMAGED_LOCAL_REPORTS: "local reports that cannot be read; count files that are as old wait",
    EVICTED_REPORTS: "upload reports that made room for newer ones before they could be posted",
    LOST_EVENTS: "events that were evicted or damaged before they could be posted; the server is told their indexes",
}
