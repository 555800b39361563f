"""Train your own speech recogniser: recordings with transcripts in, a small recogniser out."""
