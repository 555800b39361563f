"""Where each unit of a known text is heard: the best CTC path that spells it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torchaudio

from asr.tokens import BLANK_ID


def align(log_probs: torch.Tensor, target: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of each unit on the best path. Shape: log_probs [T, V] -> U spans."""
    targets = torch.tensor([list(target)])
    path, _ = torchaudio.functional.forced_align(log_probs[None], targets, blank=BLANK_ID)
    frames = path[0].numpy()
    edges = np.flatnonzero(np.diff(frames)) + 1
    bounds = [0, *edges.tolist(), len(frames)]
    return [(a, b - 1) for a, b in itertools.pairwise(bounds) if frames[a] != BLANK_ID]
