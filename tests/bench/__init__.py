"""Benchmarks: each measures the peer in the same interleaved run and first checks equal outputs."""

import asr  # noqa: F401  before torch, so that its threads wait as they do in the command
