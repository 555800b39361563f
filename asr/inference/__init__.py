"""Recognition: recordings and streams to text, word times, forced alignment."""
