"""From waveforms to features, on batches and on any device."""
