"""Acoustic models: waveforms in, log-probabilities of units out."""
