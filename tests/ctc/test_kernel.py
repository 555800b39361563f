"""CTC in Triton against torch's: interpreted without a GPU, and on one where there is.

Covers `asr/ctc/kernel.py`, `asr/ctc/triton_ctc.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.ctc import kernel
from asr.ctc.loss import ctc_loss
from asr.padded import Padded
from tests.interpreter import INTERPRETED, run_interpreted

triton = pytest.importorskip("triton")

# Frames, target sizes, tokens: one of each, none, too many for the frames, more than a power of 2.
CASES = [
    ([12, 9, 3, 1, 0, 0, 12, 5], [5, 3, 3, 0, 0, 2, 0, 5], 6),
    ([40, 25], [17, 3], 3),
    ([1], [1], 2),
    ([2, 0], [0, 0], 4),
]


def drawn(lengths: list[int], sizes: list[int], V: int) -> tuple[Padded, Padded]:
    """Scores before the softmax, and targets with repeats, on the CPU."""
    random = torch.Generator().manual_seed(len(lengths) + V)
    x = torch.randn(len(lengths), max(lengths), V, generator=random)
    targets = torch.randint(1, V, (len(sizes), max(sizes)), generator=random)
    return Padded(x, torch.tensor(lengths)), Padded(targets, torch.tensor(sizes))


def outcome(scores: Padded, targets: Padded) -> list[Tensor]:
    """Losses, and the gradient of their weighted sum, on the CPU."""
    x = scores.values.clone().requires_grad_()
    losses = ctc_loss(Padded(x.log_softmax(2), scores.lengths), targets)
    weights = torch.arange(1.0, len(losses) + 1, device=losses.device)
    (losses.masked_fill(torch.isposinf(losses), 0.0) * weights).sum().backward()
    assert x.grad is not None
    return [losses.detach().cpu(), x.grad.cpu()]


def torchs(scores: Padded, targets: Padded, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "serves", lambda *_: False)
        return outcome(scores, targets)


def assert_nan_is_seen(device: str) -> None:
    scores, targets = drawn([9, 9], [3, 3], 5)
    scores.values[0, 4] = torch.nan
    losses, gradient = outcome(scores.to(device), targets.to(device))
    assert losses.isnan().tolist() == [True, False]
    assert gradient[0].isnan().any()
    assert gradient[1].isfinite().all()


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the other process")
def test_the_kernels_in_the_interpreter() -> None:
    run_interpreted(__file__)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about log 0
class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.mark.parametrize("case", CASES)
    def test_losses_and_gradients_are_torchs(
        self, case: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scores, targets = drawn(*case)
        assert kernel.serves(scores.values, targets.values)
        found = outcome(scores, targets)
        for own, expected in zip(found, torchs(scores, targets, monkeypatch), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)

    def test_nan_is_seen(self) -> None:
        assert_nan_is_seen("cpu")

    def test_what_it_serves(self) -> None:
        scores, targets = torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.int64)
        assert not kernel.serves(scores.double(), targets)
        assert not kernel.serves(scores[:, :0], targets)
        assert not kernel.serves(scores, targets.repeat(1, kernel.MOST_STATES))


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled here")
def test_the_kernels_compile_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from asr.ctc import triton_ctc

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"BLANK": 0, "BLOCK": 512}
    for function in (triton_ctc.ctc_forward, triton_ctc.ctc_backward):
        signature = {}
        for name in function.arg_names:
            whole = name in ("targets", "lengths", "sizes")
            number = "i32" if name in "TVU" else "*i64" if whole else "*fp32"
            signature[name] = "constexpr" if name in constants else number
        source = ASTSource(function, signature, constants)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        assert made.asm["cubin"]


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, ([300, 211, 50], [120, 90, 7], 31), ([99], [40], 5000)])
def test_losses_and_gradients_are_torchs_there(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = (part.to("cuda") for part in drawn(*case))
    assert kernel.serves(scores.values, targets.values)
    found = outcome(scores, targets)
    for own, expected in zip(found, torchs(scores, targets, monkeypatch), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_nan_is_seen_there() -> None:
    assert_nan_is_seen("cuda")


@pytest.mark.gpu
def test_it_does_not_wait_for_the_gpu() -> None:
    scores, targets = (part.to("cuda") for part in drawn([300, 211, 50], [120, 90, 7], 31))
    outcome(scores, targets)
    x = scores.values.log_softmax(2).requires_grad_()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ctc_loss(Padded(x, scores.lengths), targets).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
