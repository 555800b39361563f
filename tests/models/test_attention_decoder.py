"""The attention decoder: padding, gradients, learning, and the scores of texts.

B batch, T frames, E features of a frame, V tokens, U tokens of a text.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from asr.features.extractor import FeatureConfig
from asr.models import attention_decoder
from asr.models.acoustic import AcousticModel
from asr.models.attention_decoder import (
    BOUNDARY,
    Attended,
    AttentionDecoder,
    expected_token_counts,
    smoothed_losses,
)
from asr.models.config import ModelConfig
from asr.padded import Padded, pad
from tests.contracts import assert_contract, assert_loss_contract, ragged, refilled

E, V = 6, 5


def a_decoder(dropout: float = 0.0) -> AttentionDecoder:
    torch.manual_seed(0)
    decoder = AttentionDecoder(E, 8, V, dropout)
    torch.nn.init.normal_(decoder.slopes)
    return decoder


def texts(*lengths: int) -> Padded:
    torch.manual_seed(1)
    return pad([torch.randint(1, V, (n,)) for n in lengths])


def log_probs(lengths: list[int]) -> Padded:
    scores = ragged(lengths, V, seed=2)
    return Padded(scores.values.log_softmax(dim=2), scores.lengths)


def halves(x: Padded) -> tuple[Padded, Padded]:
    """Encoder frames [B, T, E] and log-probabilities [B, T, V] from one tensor."""
    frames, scores = x.values.split([E, V], dim=2)
    return Padded(frames, x.lengths), Padded(scores.log_softmax(dim=2), x.lengths)


def test_padding_of_frames_changes_nothing() -> None:
    decoder, tokens = a_decoder(), texts(3, 2, 4)

    class Given(torch.nn.Module):
        """The decoder as a layer from frames to one number each utterance."""

        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, x: Padded) -> Padded:
            frames, scores = halves(x)
            own = tokens if len(x.lengths) == 3 else self.alone(x)
            y = self.decoder(frames, scores, own)
            return Padded(y.zeroed().values.flatten(1)[:, None, : 4 * V], x.lengths.clamp(max=1))

        def alone(self, x: Padded) -> Padded:
            (row,) = [i for i, n in enumerate((9, 4, 1)) if n == int(x.lengths[0])]
            return Padded(tokens.values[row : row + 1], tokens.lengths[row : row + 1])

    x = ragged([9, 4, 1], E + V)
    assert_contract(Given(), x, lambda lengths: lengths.clamp(max=1), tolerance=1e-5)


def test_padding_of_texts_and_other_texts_change_no_loss() -> None:
    decoder, tokens = a_decoder(), texts(3, 0, 4)
    frames, scores = ragged([9, 4, 6], E), log_probs([9, 4, 6])
    own = decoder.score(frames, scores, tokens)
    for garbage in (-1, 3, 10**9):
        torch.testing.assert_close(decoder.score(frames, scores, refilled(tokens, garbage, 5)), own)
    for row in range(3):
        alone = decoder.score(
            pad([frames.unpad()[row]]), pad([scores.unpad()[row]]), pad([tokens.unpad()[row]])
        )
        torch.testing.assert_close(alone[0], own[row])


def test_loss_keeps_the_contract() -> None:
    # The end is predicted too.
    assert_loss_contract(smoothed_losses, log_probs([4, 2, 5]), texts(3, 1, 4))


def test_loss_is_torchs_cross_entropy_with_label_smoothing() -> None:
    tokens, scores = texts(3, 1), ragged([4, 2], V)
    found = smoothed_losses(Padded(scores.values.log_softmax(dim=2), scores.lengths), tokens)
    for row, ids, own in zip(scores.unpad(), tokens.unpad(), found, strict=True):
        after = torch.cat([ids, torch.tensor([BOUNDARY])])
        expected = functional.cross_entropy(row, after, label_smoothing=0.1, reduction="sum")
        torch.testing.assert_close(own, expected)


def test_an_utterance_without_frames_has_a_finite_loss() -> None:
    decoder = a_decoder()
    predicted = decoder(ragged([0, 3], E), log_probs([0, 3]), texts(2, 0))
    loss = smoothed_losses(predicted, texts(2, 0))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters() if p.grad is not None)


def test_gradients_are_those_of_finite_differences() -> None:
    decoder, tokens = a_decoder().double(), texts(3, 1)
    lengths, scores = torch.tensor([4, 2]), log_probs([4, 2])
    frames = ragged([4, 2], E).values.double().requires_grad_()
    weights = [decoder.slopes, decoder.query.bias]

    def loss(values: Tensor, *_: Tensor) -> Tensor:
        # Past the float32 of the log-softmax, as the output of a float64 network.
        return smoothed_losses(decoder(Padded(values, lengths), scores, tokens), tokens)

    original = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        assert gradcheck(loss, (frames, *weights), atol=1e-6, fast_mode=True)
    finally:
        torch.Tensor.float = original  # type: ignore[method-assign]


def test_no_token_depends_on_those_after_it() -> None:
    decoder, (frames, scores) = a_decoder(), (ragged([9], E), log_probs([9]))
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 4, 1]])
    rows = [decoder(frames, scores, Padded(ids, torch.tensor([4]))).values for ids in (one, other)]
    torch.testing.assert_close(rows[0][:, :3], rows[1][:, :3])
    assert not torch.allclose(rows[0][:, 3:], rows[1][:, 3:])


def test_tokens_before_counts_what_ctc_emits_once() -> None:
    path = [0, 1, 1, 0, 1, 2, 0]
    sure = functional.one_hot(torch.tensor([path]), V).float().clamp(min=1e-9).log()
    found = expected_token_counts(Padded(sure, torch.tensor([7])))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1, 1, 1, 2, 3, 3]]), atol=1e-4, rtol=0)


def said(batch: int, longest: int, random: torch.Generator) -> tuple[Padded, Padded, Padded]:
    """Frames that tell their tokens, three each, log-probabilities that tell nothing, and texts."""
    lengths = torch.randint(2, longest + 1, (batch,), generator=random).tolist()
    ids = [torch.randint(1, V, (n,), generator=random) for n in lengths]
    rows = [functional.one_hot(row, E).float().repeat_interleave(3, dim=0) for row in ids]
    frames = pad([row + 0.1 * torch.randn(row.shape, generator=random) for row in rows])
    even = torch.full((*frames.values.shape[:2], V), 1 / V).log()
    return frames, Padded(even, frames.lengths), pad(ids)


def test_learns_to_spell_what_is_said_and_ranks_it_first() -> None:
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    decoder = AttentionDecoder(E, 24, V)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    batch = said(8, 4, random)
    for _ in range(60):
        optimizer.zero_grad()
        loss = smoothed_losses(decoder(*batch), batch[2]).sum() / batch[2].lengths.sum()
        loss.backward()
        optimizer.step()
    frames, scores, tokens = batch
    heard = Attended(scores.values, scores.lengths, frames, decoder.eval())
    right = [row.tolist() for row in tokens.unpad()]
    found = [
        [ids[:-1], ids, [*ids, 1], [*ids[:-1], ids[-1] % (V - 1) + 1], ids[::-1]] for ids in right
    ]
    ranks = [max(range(5), key=row.__getitem__) for row in heard.text_scores(found)]
    assert all(found[i][k] == right[i] for i, k in enumerate(ranks))


def test_scores_of_many_texts_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, lengths = a_decoder().eval(), [9, 4, 0]
    frames, scores = ragged(lengths, E), log_probs(lengths)
    heard = Attended(scores.values, scores.lengths, frames, decoder)
    found: list[list[list[int]]] = [[[1, 2, 3], [], [4]], [[2]], []]
    together = heard.text_scores(found)
    assert [len(row) for row in together] == [3, 1, 0]
    monkeypatch.setattr(attention_decoder, "SCORES_AT_ONCE", 1)
    torch.testing.assert_close(heard.text_scores(found), together)
    for i, rows in enumerate(found):
        for k, ids in enumerate(rows):
            own = decoder.score(
                pad([frames.unpad()[i]]), pad([scores.unpad()[i]]), pad([torch.tensor(ids).long()])
            )
            assert together[i][k] == pytest.approx(own.item(), abs=1e-4)


# --- in the acoustic model ---


CONFIG = ModelConfig(
    channels=(4,), strides=(2,), layers=1, hidden=8, dropout=0.0, attention_decoder=8
)


def a_model(config: ModelConfig = CONFIG) -> AcousticModel:
    torch.manual_seed(0)
    return AcousticModel(FeatureConfig(sample_rate=8000, bands=12), config, V)


def test_a_model_has_the_initial_weights_of_one_without() -> None:
    plain = a_model(CONFIG.model_copy(update={"attention_decoder": 0}))
    own = a_model()
    weights = own.state_dict()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0)
    assert own.parameter_count() == plain.parameter_count()


def test_a_model_gives_what_rescoring_needs_in_evaluation_only() -> None:
    model, features = a_model(), ragged([20, 11], 12)
    assert type(model.train()(features)) is Padded
    heard = model.eval().forward_and_spell(features)[0]
    assert isinstance(heard, Attended)
    plain = copy.deepcopy(model)
    plain.attention_decoder = None
    torch.testing.assert_close(heard.values, plain(features).values, rtol=0, atol=0)


def test_training_reads_texts_for_every_view() -> None:
    model, tokens = a_model(), texts(3, 2)
    rows = ragged([20, 11], 12).unpad()
    scores, spelled, earlier, predicted = model.outputs(pad(rows * 2), tokens)
    assert (spelled, earlier) == (None, [])
    assert scores.values.shape[0] == 4
    assert predicted is not None
    assert predicted.lengths.tolist() == [4, 3, 4, 3]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_loss_and_gradient(kind: torch.dtype) -> None:
    decoder, tokens = a_decoder(), texts(3, 2)
    frames, scores = ragged([9, 4], E), log_probs([9, 4])
    expected = smoothed_losses(decoder(frames, scores, tokens), tokens)
    with torch.autocast("cpu", kind):
        predicted = decoder(frames, scores, tokens)
    assert predicted.values.dtype == torch.float32
    torch.testing.assert_close(smoothed_losses(predicted, tokens), expected, rtol=0.02, atol=0.02)


def test_cells_that_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        ModelConfig(attention_decoder=6)
