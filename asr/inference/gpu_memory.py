"""How much audio fits into the memory of a GPU."""

from __future__ import annotations

import numpy as np
import torch

from asr.inference.acoustics import BATCH_SECONDS, Acoustics

GPU_SHARE = 0.5  # of the free memory: decoding takes some as well
PROBE_S = 10.0


def batch_seconds(model: Acoustics) -> float:
    """The most seconds in a batch, with padding: a minute, or on a GPU what half of its free memory
    holds, if that is more, by the memory that two short recordings take."""
    if not torch.cuda.is_available():
        return BATCH_SECONDS
    probe = np.zeros(round(PROBE_S * model.sample_rate), np.float32)
    model.score([probe])  # what is allocated once
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.score([probe, probe])
    used = max(1, torch.cuda.max_memory_allocated() - before) / (2 * PROBE_S)
    free, _ = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return max(BATCH_SECONDS, GPU_SHARE * free / used)
