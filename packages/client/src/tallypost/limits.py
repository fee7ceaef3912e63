"""Every bound of the client, each with its reason; those that the server shares stand in ``tallypost_schema.limits``.

Takes   nothing.
Gives   numbers; the unit stands in the name, the qualifier last.
Never   a number that follows from another (relations are asserted in the tests).
"""

from __future__ import annotations

# A count file begins with room for some three hundred names, so that most applications never grow one.
count_file_bytes_first = 16 * 1024
# Doubling up to this; an application with more names than fit here makes names without end.
count_file_bytes_max = 4 * 1024 * 1024
names_per_file_max = 10_000
# As many processes of one program as may count at once in files; the next ones count in memory.
slots_max = 512
# How long a process counts in memory before it tries the disk again.
memory_seconds_max = 300.0

# One day's report waits in `pending/` at most to the horizon; where nobody uploads at all this bounds them.
pending_reports_max = 40
# Glean's figures: days without a network for a program that runs all the time, and little on any disk.
pending_batches_max = 250
pending_batches_bytes_max = 10 * 1024 * 1024
# A batch whose events were evicted still tells the server which are lost, in half a KiB; a session seldom needs two.
pending_lost_batches_max = 1_000
# Room among the documents is made in an instant; who wants to post meanwhile looks again so soon.
hold_seconds = 0.05

# A server sees at most so many posts in a minute from one state directory (Glean's figures).
posts_per_window_max = 15
post_window_seconds = 60.0
# After so many failures, or waits, in a row a session of work ends: the trouble is not the document's.
failures_in_a_row_max = 3
waits_in_a_row_max = 3
# Backoff doubles from a minute to a day, with full jitter, so that a crowd does not come back at once.
backoff_seconds_first = 60.0
backoff_seconds_max = 86_400.0
retry_after_seconds_max = 86_400.0
# After a success there is nothing to do until the next day is over.
next_try_after_success_seconds = 86_400.0

post_seconds_max = 10.0
run_seconds_max = 60.0
answer_bytes_max = 64 * 1024
# A server's reason is a sentence or two; a stranger's is not to fill a terminal.
words_characters_max = 500

# A process on a file system without trusted locks is taken to have ended when it was silent for so long.
written_silence_seconds = 2 * 86_400.0

# A file that was not finished in a day never will be.
unfinished_seconds_max = 86_400.0

# Kept so that a user can look back; never fewer than the horizon and a margin, or duplicates could be made.
local_reports_kept = 90
sent_documents_kept = 90
refused_documents_kept = 30

# Events that wait for their writer. A burst of thousands is a loop, and a loop is a counter.
events_queued_max = 2048
# How many events one append takes: some 100 KiB, so that others have their turn at the disk.
events_per_append_max = 512
# A log is cut at this size, so that a document stays small; it holds some 2,000 events.
log_bytes_cut = 256 * 1024
# A log that may not leave, or cannot be cut, stays for the user up to this size.
log_bytes_max = 5 * 1024 * 1024
# As many logs of ended sessions stay for the user.
session_logs_kept = 50
# What the end of a process may take for events that still wait.
exit_seconds_max = 0.05
# Whoever appends or cuts holds the log's lock for milliseconds; longer, and it is tried again later.
append_lock_seconds_max = 2.0
# After an append that failed it is tried again so soon, also without a new event.
append_retry_seconds = 1.0
# A fork waits so long for a module of ours that another thread is loading: the child would wait for it for ever.
fork_seconds_max = 1.0
# In mode off, and where no thread could be started, an event looks again no sooner.
writer_retry_seconds = 60.0

# An expiry has somebody look again; after three years nobody remembers what at.
expires_days_ahead_max = 3 * 366
# "Which commands" is not yet a reason, and has 14.
why_characters_min = 15
