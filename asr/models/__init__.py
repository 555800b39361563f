"""Acoustic models: waveforms in, log-probabilities of tokens out."""
