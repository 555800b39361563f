"""Hidden states of utterances on disk, within a bound.

A file is named by a digest of the samples and of the network, so that it fits any batch, corpus and
training of that network. Files are written under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from asr.errors import AsrError
from asr.io.files import atomic_path, restore_folders
from asr.io.tensors import read_tensors, write_tensors

SUFFIX = ".safetensors"
NAME = "states"


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of all weights."""
    total = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


class StateCache:
    """A folder of hidden states of at most `limit` bytes.

    When it is full, files that this process has not used are removed, the longest unused first;
    those that it has used stay, since each epoch uses all of them again: the rest is then not
    stored. Several processes with one folder each keep to the bound.
    """

    def __init__(self, folder: Path, network: str, limit: int) -> None:
        """`network` identifies weights and settings.

        Raises OSError if the folder cannot be made.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        restore_folders(folder)  # without what killed processes left
        self.folder, self.limit = folder, limit
        self._network = network.encode()
        found = []
        for path in folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):  # another training may remove it
                found.append((path, path.stat()))
        found.sort(key=lambda pair: pair[1].st_mtime)
        self._sizes = {path: stat.st_size for path, stat in found}
        self._unused = [path for path, _ in found]
        self._used: set[Path] = set()
        self._total = sum(self._sizes.values())

    def path(self, wave: Tensor) -> Path:
        """The file of an utterance. Shape: [S]."""
        total = hashlib.sha256(self._network)
        total.update(wave.detach().cpu().contiguous().numpy().data)
        return self.folder / (total.hexdigest() + SUFFIX)

    def get(self, path: Path) -> Tensor | None:
        """The states [T, L + 1, D] of the utterance with this file; None if they are not there, or
        damaged."""
        if not path.is_file():
            return None
        try:
            states = read_tensors(path)[NAME].clone()
            os.utime(path)
        except (AsrError, KeyError, OSError):
            return None
        self._used.add(path)
        return states

    def put(self, path: Path, states: Tensor) -> None:
        """Store states, if there is room. Shape: [T, L + 1, D]."""
        size = states.numel() * states.element_size()
        if size > self.limit:  # no room in any case: what is there stays
            return
        if path in self._sizes:  # damaged
            self._total -= self._sizes.pop(path)
        while self._total + size > self.limit and self._unused:
            oldest = self._unused.pop(0)
            if oldest not in self._used:
                self._total -= self._sizes.pop(oldest, 0)
                oldest.unlink(missing_ok=True)
        if self._total + size > self.limit:
            return
        try:
            with atomic_path(path) as temporary:
                write_tensors({NAME: states.detach().cpu().contiguous()}, temporary)
        except OSError:  # a full disk: training goes on without
            self.limit = 0
            return
        self._sizes[path] = path.stat().st_size
        self._total += self._sizes[path]
        self._used.add(path)
