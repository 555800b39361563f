"""How good a recogniser is: error counts, their uncertainty, and the report of one run."""

AUDIO_MEGABYTES = 30.0  # of recordings within a page, by default
