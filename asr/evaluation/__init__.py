"""Error counts, their confidence intervals, and the report of an evaluation."""

AUDIO_MEGABYTES = 30.0  # of recordings within a page, by default
