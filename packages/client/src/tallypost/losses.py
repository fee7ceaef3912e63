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
OWN_COUNTERS = (DROPPED_NAMES, DROPPED_BUCKETS, DROPPED_VALUES)

# Why a document went to `refused/` though no server refused it.
REFUSALS = {
    "withdrawn": "the user said no after it was made",
    "other-yes": "it was begun under another yes than the one in force",
    "too-old": "it was made more than 21 days ago",
    "unreadable": "it is not a document",
}

# Seen by the reporter, derived from what lies in the state directory.
DAMAGED_COUNT_FILES = "damaged-count-files"
# Seen in one process alone: what it counted never reached a file.
IN_MEMORY = "counted-in-memory"
