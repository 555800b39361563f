"""Benchmarks: each measures the peer in the same interleaved run and first checks equal outputs."""
