"""Every bound that only the server knows, each with its reason.

Takes   nothing.
Gives   numbers; the unit stands in the name, the qualifier last.
Never   a bound that a client must know as well (``tallypost_schema.limits``), or an operator may set (``settings.py``).
"""

from __future__ import annotations

from tallypost_schema.limits import horizon_days
from tallypost_schema.outcomes import ErrorCode

# What waits for the disk is held in memory and lost in a crash, unacknowledged: some seconds of a busy server.
waiting_bytes_max = 32 << 20
# Each request under way may hold a body; more senders than this are told to come back.
requests_max = 4096
# Senders whose requests are counted, some 100 bytes each, in each of two minutes.
senders_max = 65_536
# Bodies that come in pieces are held until they are whole.
held_bytes_max = 256 << 20

# A head is hundreds of bytes; one that takes longer is a broken or a hostile sender.
head_seconds_max = 10
head_bytes_max = 64 << 10
# Heads that are known by their bytes: of some versions of a program, each with bodies of some hundred lengths; 8 MiB.
known_heads_max = 4096
known_head_bytes_max = 1 << 10
# 1 MiB in 30 s is 35 KiB/s: a slow phone does that, a sender that only wants to keep a connection does not.
body_seconds_max = 30.0
# A larger document is checked in a thread, so that others are answered meanwhile; clients cut batches at 256 KiB.
inline_bytes_max = 512 << 10
# What came in one turn of the loop is decoded together up to this, and one document beyond.
turn_bytes_max = 1 << 20
# Gzip members as zstd frames: a document needs one.
gzip_members_max = 64

# Proxies keep an idle connection for 60 s; ours must outlive theirs, or they post into a closing one.
keep_alive_seconds = 75
# After SIGTERM whoever comes is told so for this long, and to connect elsewhere: a socket that closed at once would cut
# off what lies in it unread. A loop that is busy is not late by as much, and a restart is not felt to be longer.
stop_notice_seconds = 0.5
# SIGTERM to exit takes 15 s at most: half a second of notice, 8 to answer what is under way, 5 to commit and seal, the
# rest is room.
drain_seconds_max = 8
stop_seconds_max = 5.0

# All workers end within the 15 s of SIGTERM to exit; one that does not is ended.
workers_stop_seconds_max = 14.0
# A worker that ends sooner than this after its start rests before the next one: it would end again.
worker_life_seconds_min = 5.0
worker_rest_seconds = 2.0
# A worker whose loop has not turned for so long hangs: nothing that it does there takes seconds, on a machine that is
# short of memory some. It is less than the minute after which a service manager's watchdog would end all of them.
worker_silent_seconds_max = 30.0
# How often a worker writes its metrics down for the others.
metrics_seconds = 1.0

# How often the server looks whether a segment is due, and whether a declaration has changed (promised: 5 s).
tick_seconds = 0.25
applications_scan_seconds = 2.0
# A declaration is some KiB; a larger file is not one.
declaration_bytes_max = 1 << 20
# A disk that refused to seal is asked again after this long.
seal_retry_seconds = 5.0

# A group lies open for a minute at most and is written anew when it is sealed: this level is hardly more than a copy.
open_zstd_level = -1000
# Half of a line are hashes and random ids: level 3 takes twice the time of 1 and saves nothing.
sealed_zstd_level = 1
# Files are read, compressed and written in such pieces, so that their size is no matter of memory.
piece_bytes_max = 256 << 10
# A group is what waits for the disk, and compressed hardly larger; what claims to be more is no frame of ours.
frame_lines_bytes_max = 2 * waiting_bytes_max
frame_bytes_max = 2 * waiting_bytes_max
# A line is a document of 8 MiB at most, encoded anew, and what the server knows of it.
line_bytes_max = 32 << 20
# A damaged stretch is put into quarantine in parts of this size, in base64.
torn_bytes_max = 4 << 20
# Of one file so many problems are told one by one; a damaged disk may have a million of them.
problems_told_max = 20

# What was refused is kept to find out why, not as an archive.
quarantine_files_max = 1000
quarantine_bytes_max = 64 << 20
# What is kept of one is at most 4 MiB of a segment or 1 MiB of a body, in base64, with its reason.
kept_bytes_max = 8 << 20
# The folder is looked at anew after so many files: other workers keep some there too, and all go by the same bounds.
quarantine_listed_writes = 32
# Refused documents that wait to be written to the quarantine; a flood of rubbish must not fill the memory.
quarantine_waiting_max = 64

# Documents that are posted again: so many at a time share a sync of the server, and so much of them is held.
posts_together_max = 32
posts_together_bytes_max = 16 << 20
# The server answers within its own 30 s for a body, and a slow sync.
posts_answer_seconds_max = 60.0
# Without a word of the server the pauses grow up to this.
posts_pause_seconds_max = 30
# Who never answered is given up soon.
posts_first_answer_seconds_max = 30.0
# How often a command that posts much tells how far it is.
progress_seconds = 5.0

# When a sender that is over its rate may come again, in seconds.
retry_after_rate_seconds = 60
# When a sender may come again, in seconds at the least: soon where a moment is short, later where somebody must act.
retry_after_seconds: dict[ErrorCode, int] = {
    "busy": 10,
    "starting": 5,
    "stopping": 5,
    "storage_failed": 30,
    "no_space": 300,
}

# A task holds so many rows or lines of so many bytes: what it needs of memory is some times that.
task_rows_max = 100_000
task_bytes_max = 64 << 20
# So long is whoever is in a transaction of the coordinator waited for; PostgreSQL throws out who sleeps in one as long.
coordinator_wait_seconds = 60.0
# How many tasks of each kind may be worked on at once, each in a lane of its own: with PostgreSQL, and in a file.
postgresql_lanes = 16
file_lanes = 1
# What SQLite holds of the coordinator in memory, at most: about what a million documents take that wait.
coordinator_cache_bytes = 256 << 20
# How long SQLite's log grows before what it holds is written into the database.
coordinator_log_bytes = 128 << 20
# So many documents of a backlog are taken up before what is due of them is archived.
register_documents_max = 100_000
# A task that is not full waits so long for the rest of a backlog, at most.
backlog_seconds_max = 3600.0
# So many reports at a time are put into a task.
gather_rows = 10_000
# An archivist that says nothing for so long is dead or asleep; one that works renews its lease before each step.
lease_seconds = 30.0
# A task's number and this much of its random id make the version that the tables keep of a lane.
mark_bits = 24
# What the store, the disk or the database refused is tried again after this, doubled each time, up to the second.
archive_retry_seconds_min = 5.0
archive_retry_seconds_max = 900.0
# A task with which so many archivists have died may be what kills them: too large for the memory, or worse.
task_deaths_max = 3
# A session or report is remembered for a day longer than the horizon, within which it may come again.
remembered_days = horizon_days + 1
# Rows are made so many documents at a time, and lie in row groups of this size: what one lookup reads.
archive_chunk_documents = 4096
archive_group_rows = 16_384
# Python looks for garbage among objects after so many new ones; at its own 700 that is a seventh of archival's time.
archive_collector_objects = 100_000
# After so many commits a table's log begins anew with a checkpoint.
checkpoint_commits = 100
# A store far away, or one that is busy, answers later than a disk; what takes longer is tried again as a whole.
store_connect_seconds_max = 20
store_answer_seconds_max = 60
# A commit beside others of other lanes is tried anew this often.
commit_retries_max = 50
# Verifying holds the keys of so many rows of an archive at a time, and looks so often at what seems wrong.
verify_rows_max = 1_000_000
verify_looks = 4
# So many faults of an archive are told one by one; a file that is gone may be one of each of its sessions.
faults_told_max = 100
# An erasure waits until each process that takes documents has looked at the marks; then it looks this often for what
# it waits for.
erase_wait_seconds = 2.5 * applications_scan_seconds
erase_look_seconds = 0.25
# An archivist at work ends its task in less, and a server seals in less beyond its own time for it.
erase_seconds_max = 600.0
# A partition with so many files that are smaller than half of what one is to be gets one in their place; rows of such
# a file are held in memory, some times its size.
compact_files_min = 8
compact_bytes_max = 16 << 20
compact_rows_max = 1_000_000
# What is over, and what is in too many files, is looked for this often.
tidy_seconds = 3600.0
# A machine is off for so long over holidays; a clock that is further ahead of what was believed last may be wrong, and
# is caught up with by so many times the time that passes: a day an hour, a year in a fortnight.
clock_leap_days_max = 14
clock_catch_up_factor = 24
# How far what is kept of the time lies behind.
clock_kept_seconds = 3600.0
# An archivist that died rests before the next one; it stops within this, so that the server stops within its own time.
archivist_rest_seconds = 5.0
archivist_stop_seconds_max = 4.0
# Archival is done beside answering: its processor time comes second.
archive_niceness = 10
# It syncs what it writes after so many bytes.
store_piece_bytes = 256 << 10
# That of the thread that seals, beside the one that answers. Not more: at the end of a server sealing has some seconds.
seal_niceness = 5

# A load looks this often for what got no answer and what must be connected anew; a server that is away is not stormed.
load_tend_seconds = 0.1
# Timers are no finer, and a processor that only sets timers posts nothing.
load_timer_seconds = 0.001
load_timer_late_seconds = 0.005
# A connection on the way to a proxy far away; a person waits for it.
connect_seconds_max = 10.0
