"""Features from a pretrained network: a learnt weighted sum of its hidden states.

Frozen networks and weighted sums are the setting of SUPERB (Yang et al. 2021, "SUPERB: Speech
processing universal performance benchmark", section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asr.features.pretrained_config import PretrainedNetwork
from asr.features.pretrained_network import build, hidden_states, output_lengths
from asr.features.state_cache import StateCache
from asr.padded import Padded, pad

MOST_SECONDS = 60.0  # computed at once without gradients, with padding


class PretrainedFeatures(nn.Module):
    """Waveforms to features, exact with lengths.

    `mix`: weights of the hidden states, before a softmax. `fine_tunes`: whether gradients reach the
    network. `stored_elsewhere`: weights are saved and loaded without the network, as in the
    checkpoints of a training that leaves it as it is. `cache`: hidden states of a network that is
    not fine-tuned; `cache_in_training`: whether training uses it too, whose waveforms may change
    from epoch to epoch.

    Shape: [B, S] -> [B, T, D]; padding is zero.
    """

    def __init__(self, description: PretrainedNetwork) -> None:
        super().__init__()
        self.description = description
        self.network = build(description)
        self.mix = nn.Parameter(torch.zeros(description.layers + 1))
        self.fine_tunes = False
        self.stored_elsewhere = False
        self._register_state_dict_hook(_leave_out_network)
        self.register_load_state_dict_post_hook(_keep_network)
        self.cache: StateCache | None = None
        self.cache_in_training = False

    def freeze(self, fine_tuned: bool) -> None:
        """Fix the network; one that is to be `fine_tuned` keeps gradients in its transformer. Its
        convolutions stay fixed (Baevski et al. 2020, section 4.3)."""
        self.network.requires_grad_(False)
        self.network.encoder.requires_grad_(fine_tuned)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of utterances with this many samples. Shape: [B] -> [B]."""
        return output_lengths(self.description, samples)

    def forward(self, waves: Padded) -> Padded:
        """T is 1 or more, though lengths may be 0."""
        lengths = self.output_lengths(waves.lengths)
        if self.fine_tunes and torch.is_grad_enabled():
            states = hidden_states(self.network, self.description, waves)
            return Padded(self._mixed(states.values), lengths)
        at_once = int(MOST_SECONDS * self.description.sample_rate)
        count = max(1, at_once // max(1, waves.values.shape[1]))
        pieces = zip(waves.values.split(count), waves.lengths.split(count), strict=True)
        mixed = [self._mixed(self._states(Padded(*piece))) for piece in pieces]
        return Padded(torch.cat(mixed), lengths)

    def _mixed(self, states: Tensor) -> Tensor:
        """Shape: [B, T, L + 1, D] -> [B, T, D]."""
        return torch.einsum("btld,l->btd", states, torch.softmax(self.mix, dim=0))

    @torch.no_grad()
    def _states(self, waves: Padded) -> Tensor:
        """Shape: [B, S] -> [B, T, L + 1, D]."""
        cache = self.cache
        if cache is None or (self.training and not self.cache_in_training):
            return hidden_states(self.network, self.description, waves).values
        alone = waves.unpad()
        paths = [cache.path(wave) for wave in alone]
        found = [cache.get(path) for path in paths]
        missing = [i for i, states in enumerate(found) if states is None]
        if missing:
            some = pad([alone[i] for i in missing])
            made = hidden_states(
                self.network, self.description, Padded(some.values, waves.lengths[missing])
            )
            for i, states in zip(missing, made.unpad(), strict=True):
                cache.put(paths[i], states)
                found[i] = states
        device = waves.values.device
        states = pad([states.to(device) for states in found if states is not None]).values
        samples = torch.tensor(waves.values.shape[1])
        T = max(1, int(self.output_lengths(samples)))  # as without a cache
        return nn.functional.pad(states, (0, 0, 0, 0, 0, T - states.shape[1]))


def _leave_out_network(
    layer: PretrainedFeatures, state: dict[str, Tensor], prefix: str, _: object
) -> None:
    if layer.stored_elsewhere:
        for name in [name for name in state if name.startswith(f"{prefix}network.")]:
            del state[name]


def _keep_network(layer: PretrainedFeatures, keys: Any) -> None:
    """After weights have been loaded: those of the network may be missing."""
    if layer.stored_elsewhere:
        inside = ("network.", "features.pretrained.network.")
        keys.missing_keys[:] = [name for name in keys.missing_keys if not name.startswith(inside)]
