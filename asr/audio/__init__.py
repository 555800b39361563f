"""Recordings to samples: decoding, containers, channels, levels."""
