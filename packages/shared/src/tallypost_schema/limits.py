"""Every bound that client and server share, each with its reason.

Takes   nothing.
Gives   numbers; the unit stands in the name, the qualifier last.
Never   a bound that only one side knows (those stand in that side's own ``limits.py``).
"""

from __future__ import annotations

# Numbers that every JSON reader, JavaScript's included, keeps exactly.
count_max = 2**53 - 1

# A report of a large application is tens of KiB; a batch is cut at 256 KiB. The rest is room.
wire_bytes_max = 1 << 20
decoded_bytes_max = 8 << 20

# A document is four levels deep. Readers with a stack of their own survive 32 anywhere.
nesting_max = 32
# Objects and arrays cost a reader memory that their two bytes do not show: 8 MiB of the shortest events have 320,000.
containers_max = 1 << 19

# What a decoder must hold for one frame; zstd's own default for a level up to 19 is within it.
zstd_window_bytes_max = 8 << 20
# A document needs one frame. Some streaming writers end a frame at each flush.
zstd_frames_max = 64

# Long enough for a path of words, short enough for a column of a chart.
name_characters_max = 200
# Some ten frames of `module:function:+line`.
stack_bytes_max = 4096
# More frames than fit into a stack's bytes would be a promise that is not kept.
stack_frames_max = 32
application_characters_max = 100
program_characters_max = 100
# Versions and platform strings are short; a longer one would be a place to hide text in.
label_characters_max = 64
# Words of an event's field come from a declared set.
field_characters_max = 200
event_fields_max = 32

# Nothing older is posted, accepted or remembered for duplicates: a laptop's holiday, and a bound on memory.
horizon_days = 21
# A sender's clock, or its day, may be ahead of ours.
ahead_days_max = 1
