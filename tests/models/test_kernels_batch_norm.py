"""Batch norm in Triton against the same in operators: interpreted without a GPU, and on one.

Triton's interpreter runs one program after the other, so it cannot show that they wait for each
other; the tests on a GPU repeat what a race would change.

Covers `asr/models/kernels/batch_norm.py`, `asr/models/kernels/triton_batch_norm.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from asr.models.batch_norm import MaskedBatchNorm
from asr.models.kernels import batch_norm as kernel
from asr.padded import Padded
from tests.contracts import ragged, refilled
from tests.interpreter import INTERPRETED, run_interpreted
from tests.training.test_distributed import (
    assert_normalised_as_one,
    normalise_shares,
    run_together,
)

triton = pytest.importorskip("triton")

LENGTHS = ([7, 1, 12, 0], [2, 2], [0, 1, 0], [0, 0], [40, 3, 25])
SHAPES = ((3,), (5, 3), (70,))  # of a frame
ROOM = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of the gradient's type

Way = Callable[[MaskedBatchNorm, Padded], Padded]


def in_operators(norm: MaskedBatchNorm, x: Padded) -> Padded:
    return Padded(norm._of_masked(x.values.to(norm.weight.dtype), x), x.lengths)


def outcome(
    way: Way, lengths: list[int], shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu"
) -> list[Tensor]:
    """After two batches: results, all gradients and the running statistics, with NaN in the padding
    of the values and of the gradient."""
    torch.manual_seed(0)
    norm = MaskedBatchNorm(shape[-1], momentum=0.2).to(device)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    norm.running_mean += 0.5
    found = []
    for seed in (1, 2):
        x = refilled(ragged(lengths, *shape, seed=seed), torch.nan, spare=2)
        values = (3 * x.values + 7).to(device, dtype).requires_grad_()
        given = Padded(values, x.lengths.to(device))
        y = way(norm, given).values
        assert y.dtype == torch.float32
        slopes = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(device)
        y.backward(refilled(Padded(slopes, given.lengths), torch.nan).values)
        assert values.grad is not None
        assert values.grad.dtype == dtype
        found += [y.detach(), values.grad.float()]
    of_weights = [p.grad for p in (norm.weight, norm.bias) if p.grad is not None]
    return [*found, *of_weights, *norm.buffers()]


def assert_same(
    lengths: list[int], shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu"
) -> None:
    ours = outcome(MaskedBatchNorm._of_kernel, lengths, shape, dtype, device)
    theirs = outcome(in_operators, lengths, shape, dtype, device)
    assert len(ours) == len(theirs)
    for own, expected in zip(ours, theirs, strict=True):
        assert own.isfinite().all()
        room = ROOM[dtype] * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=room)


@pytest.fixture
def three_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are tiles, up to three, which cannot wait for each other."""
    plan = kernel.plan
    monkeypatch.setattr(kernel, "TILE", 32)
    monkeypatch.setattr(kernel, "plan", lambda rows, features, _: plan(rows, features, 3))
    monkeypatch.setattr(kernel, "_cooperates", lambda device: False)


# --- everywhere


def test_every_row_has_a_program() -> None:
    for rows in (1, 31, 129, 4097, 10_000_000):
        for features in (1, 32, 100, 512, 5000):
            for most in (1, 92, 264):
                plan = kernel.plan(rows, features, most)
                assert plan.programs * plan.span >= rows
                assert (plan.programs - 1) * plan.span < rows
                assert plan.blocks * plan.features >= features
                if plan.programs > 1:  # they wait for each other
                    assert plan.programs * plan.blocks <= most


@pytest.mark.skipif(INTERPRETED, reason="it serves there")
def test_what_it_does_not_serve() -> None:
    assert not kernel.serves(torch.zeros(2, 3, 4), torch.ones(4))  # not on a GPU


@pytest.mark.skipif(INTERPRETED, reason="it works there")
def test_a_kernel_that_does_not_work_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu", 7)  # of no other test

    def fails(*_: object) -> None:
        raise RuntimeError("no compiler\nat line 1")

    monkeypatch.setattr(kernel, "_trial", fails)
    with pytest.warns(UserWarning, match="batch norm runs as many operators.*: no compiler$"):
        assert not kernel._works(device)
    with pytest.warns(UserWarning, match="batch norm takes two launches.*: no compiler$"):
        assert not kernel._cooperates(device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kernel._works(device)
        assert not kernel._cooperates(device)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the other process")
def test_the_kernels_in_the_interpreter() -> None:
    run_interpreted(__file__)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled here")
@pytest.mark.parametrize("name", ["norm_forward", "norm_backward"])
@pytest.mark.parametrize("target", [80, 90])
def test_the_kernels_compile_for_gpus(
    name: str, target: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for F, parts in ((32, (True, True)), (512, (True, True)), (32, kernel.SUMS)):
        ptx = compiled(name, target, F, parts)
        assert (".gpu.acquire" in ptx) == all(parts)
        if all(parts):  # wait, then read the sums of the others
            after = ptx[ptx.rindex(".gpu.acquire") :]
            assert after.index("bar.sync") < after.index("ld.global.cg")


def compiled(name: str, target: int, F: int, parts: tuple[bool, bool]) -> str:
    """PTX; Triton raises an error for what ptxas does not take."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from asr.models.kernels import triton_batch_norm

    function, plan = getattr(triton_batch_norm, name), kernel.plan(10**6, F, 264)
    constants = {"F": F, "SUMS": parts[0], "APPLY": parts[1]}
    constants |= {"ROWS": plan.rows, "FEATURES": plan.features}
    kinds = {"lengths": "*i64", "counters": "*i32", "x": "*fp16", "before": "*fp16"}
    kinds |= dict.fromkeys(("N", "T", "M", "span", "shares"), "i32")
    kinds |= {"momentum": "fp32", "epsilon": "fp32"} | dict.fromkeys(constants, "constexpr")
    signature = {argument: kinds.get(argument, "*fp32") for argument in function.arg_names}
    aligned: Any = {
        (position,): [["tt.divisibility", 16]]
        for position, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    made = triton.compile(
        ASTSource(function, signature, constants, aligned),
        target=GPUTarget("cuda", target, 32),
        options={
            "num_warps": kernel.WARPS,
            "maxnreg": kernel.REGISTERS,
            "launch_cooperative_grid": all(parts),
        },
    )
    assert made.asm["cubin"]
    ptx: str = made.asm["ptx"]
    return ptx


# --- in Triton's interpreter


def _normalise_shares(rank: int, out: Path) -> None:
    ours = mock.patch.object(MaskedBatchNorm, "_of_masked", lambda n, _, x: n._of_kernel(x).values)
    with ours:
        normalise_shares(rank, out)


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.mark.parametrize("lengths", LENGTHS)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_one_program(self, lengths: list[int], shape: tuple[int, ...]) -> None:
        assert_same(lengths, shape, torch.float32)

    @pytest.mark.usefixtures("three_programs")
    @pytest.mark.parametrize("lengths", LENGTHS)
    @pytest.mark.parametrize("shape", SHAPES[:2])
    def test_several_programs(self, lengths: list[int], shape: tuple[int, ...]) -> None:
        assert kernel.plan(sum(lengths) + 40, 3, 3).programs == 3
        assert_same(lengths, shape, torch.float32)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        assert_same(LENGTHS[0], (5, 3), dtype)

    def test_values_that_are_not_contiguous(self) -> None:
        def moved(norm: MaskedBatchNorm, x: Padded) -> Padded:
            plane = x.values.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
            assert not plane.is_contiguous()
            return norm._of_kernel(Padded(plane, x.lengths))

        ours = outcome(moved, LENGTHS[0], (5, 3), torch.float32)
        theirs = outcome(MaskedBatchNorm._of_kernel, LENGTHS[0], (5, 3), torch.float32)
        assert all(torch.equal(own, other) for own, other in zip(ours, theirs, strict=True))

    def test_a_large_mean_costs_no_precision(self) -> None:
        x = ragged([40, 25], 3)
        far = Padded(x.values + 1000, x.lengths)
        norm = MaskedBatchNorm(3)
        y = norm._of_kernel(far).values
        torch.testing.assert_close(y, MaskedBatchNorm(3)(x).values, rtol=1e-3, atol=1e-3)

    def test_statistics_stay_exactly_where_one_frame_has_no_variance(self) -> None:
        norm = MaskedBatchNorm(3)
        norm._of_kernel(ragged([7, 5], 3))
        before = [buffer.clone() for buffer in norm.buffers()]
        norm._of_kernel(ragged([1, 0], 3))
        assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))

    def test_nan_is_seen(self) -> None:
        x = ragged([7, 5], 3)
        x.values[1, 2, 1] = torch.nan
        norm = MaskedBatchNorm(3)
        y = norm._of_kernel(x).values
        assert y[:, :5, 1].isnan().all()
        assert y[..., 0].isfinite().all()
        assert norm.running_mean.isnan().tolist() == [False, True, False]

    def test_several_processes_have_the_gradient_of_one(self, tmp_path: Path) -> None:
        run_together(_normalise_shares, tmp_path)
        assert_normalised_as_one(tmp_path)

    def test_what_it_serves(self) -> None:
        weight = torch.ones(4)
        assert kernel.serves(torch.zeros(2, 3, 4), weight)
        assert kernel._cooperates(torch.device("cpu"))
        assert not kernel.serves(torch.zeros(2, 3, 4).double(), weight.double())
        assert not kernel.serves(torch.zeros(2, 0, 4), weight)
        assert not kernel.serves(torch.zeros(1).expand(2**15, 2**15, 1), weight[:1])


# --- on a GPU

THERE = [*LENGTHS, [300 + 7 * i for i in range(40)]]


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:batch norm")
@pytest.mark.parametrize("dtype", list(ROOM))
@pytest.mark.parametrize("lengths", THERE)
@pytest.mark.parametrize("shape", [*SHAPES, (20, 32), (1030,)])
def test_results_and_gradients_there(
    lengths: list[int], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    assert kernel.serves(torch.zeros(1, 1, 1, device="cuda"), torch.ones(1, device="cuda"))
    assert kernel._cooperates(torch.device("cuda", 0))
    assert_same(lengths, shape, dtype, "cuda")


@pytest.mark.gpu
def test_two_launches_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_cooperates", lambda device: False)
    assert_same(THERE[-1], (20, 32), torch.float16, "cuda")


@pytest.mark.gpu
def test_no_races_there() -> None:
    """The order of all sums is fixed, so anything that differs was read too early. Another stream
    keeps the GPU busy."""
    matrix, side = torch.randn(4096, 4096, device="cuda"), torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(200):
            matrix @ matrix
    first = outcome(MaskedBatchNorm._of_kernel, THERE[-1], (20, 32), torch.float16, "cuda")
    for _ in range(50):
        again = outcome(MaskedBatchNorm._of_kernel, THERE[-1], (20, 32), torch.float16, "cuda")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.gpu
def test_it_does_not_wait_and_can_be_captured_there() -> None:
    norm = MaskedBatchNorm(32).cuda()
    x = ragged(THERE[-1], 20, 32).to("cuda")
    given = Padded(x.values.half().requires_grad_(), x.lengths)

    def work() -> list[Tensor]:
        y = norm(given).values
        return [y, *torch.autograd.grad(y.square().sum(), [given.values, norm.weight])]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            expected = [value.clone() for value in work()]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        found = work()
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
