"""The LSTM in one launch, against the reference loop: interpreted without a GPU, and on one.

Triton's interpreter runs one program after the other, so it cannot show that the barrier works; the
tests on a GPU repeat what a race would change. It multiplies no bfloat16 either. As in
test_kernels_gpu.py, interpreted tests run in a process of their own, and that the kernels compile
for real GPUs can be seen without one.

Covers `asr/models/kernels/persistent.py`, `asr/models/kernels/triton_persistent.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.models.cells import CELLS, State, Weights
from asr.models.kernels import choice, persistent, reference
from asr.models.recurrent import FRAMES, LIBRARY, PERSISTENT, RecurrentLayer
from asr.padded import Padded
from tests.interpreter import INTERPRETED, run_interpreted
from tests.models.test_kernels import Case, drawn

triton = pytest.importorskip("triton")

SHARED = {80: 166912, 90: 232448}  # bytes a program may have on an A100 and an H100
ROOM = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}

Both = Callable[[Sequence[Tensor], Sequence[State], Sequence[Weights]], list[State]]


def cases(T: int, B: int, H: int, directions: int) -> list[Case]:
    return [drawn("lstm", T, B, H, H, seed) for seed in range(directions)]


def loop(
    projections: Sequence[Tensor], states: Sequence[State], weights: Sequence[Weights]
) -> list[State]:
    given = zip(projections, states, weights, strict=True)
    return [reference.run(CELLS["lstm"], *direction) for direction in given]


def outcome(
    run: Both,
    given: list[Case],
    dtype: torch.dtype,
    device: str = "cpu",
    memory: bool = True,
    batch_first: bool = True,
) -> list[Tensor]:
    """States of all directions after every frame, and the gradients of everything that went in."""

    def leaf(v: Tensor) -> Tensor:
        return v.to(device, dtype, copy=True).requires_grad_()

    # A layer computes the contribution of its input as [B, T, 4*H].
    xs = [leaf(x.transpose(0, 1) if batch_first else x) for x, _, _ in given]
    states: list[State] = [(leaf(h), leaf(c)) for _, (h, c), _ in given]
    weights: list[Weights] = [{"weight_hh": leaf(w["weight_hh"])} for _, _, w in given]
    projections = [x.transpose(0, 1) if batch_first else x for x in xs]
    after = [state if memory else state[:1] for state in run(projections, states, weights)]
    random = torch.Generator().manual_seed(9)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for part in (part for state in after for part in state):
        slope = torch.randn(part.shape, generator=random, dtype=torch.float64)
        total = total + (part.double() * slope.to(device)).sum()
    total.backward()
    leaves = [*xs, *(v for s in states for v in s), *(w["weight_hh"] for w in weights)]
    results = [part.detach() for state in after for part in state] + [v.grad for v in leaves]
    return [v for v in results if v is not None]


def assert_near(
    given: list[Case],
    dtype: torch.dtype = torch.float16,
    device: str = "cpu",
    memory: bool = True,
    batch_first: bool = True,
) -> None:
    """No output and no gradient is further from float64 than the plain loop in the same type."""
    ours = outcome(persistent.run, given, dtype, device, memory, batch_first)
    plain = outcome(loop, given, dtype, "cpu", memory, batch_first)
    exact = outcome(loop, given, torch.float64, "cpu", memory, batch_first)
    assert len(ours) == len(exact)
    for got, rough, wanted in zip(ours, plain, exact, strict=True):
        assert got.shape == wanted.shape
        size = float(wanted.norm()) + 1e-6
        allowed = 2 * float((rough.double() - wanted).norm()) / size + ROOM[dtype]
        assert float((got.cpu().double() - wanted).norm()) / size <= allowed


# --- everywhere


def test_one_program_per_multiprocessor_at_most() -> None:
    for H in (16, 64, 320, 512, 768, 1024):
        for B in (1, 8, 32, 100, 500):
            for directions in (1, 2):
                for processors in (46, 108, 132):
                    for shared in SHARED.values():
                        plan = persistent.plan(H, B, directions, processors, shared)
                        if plan is not None:
                            programs = H // persistent.CELLS * plan.blocks * directions
                            assert programs <= processors
                            assert (plan.blocks - 1) * plan.rows < B


@pytest.mark.skipif(INTERPRETED, reason="it serves there")
def test_what_it_does_not_serve() -> None:
    half = torch.zeros(2, 5, 8, dtype=torch.float16)
    assert not persistent.serves("lstm", half, torch.float16, 64, 1)  # not on a GPU
    for name, dtype, H in (
        ("gru", torch.float16, 64),
        ("lstm", torch.float32, 64),
        ("lstm", torch.float16, 72),
        ("lstm", torch.float16, 1040),
    ):
        assert not persistent.serves(name, half, dtype, H, 1)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the other process")
def test_the_kernels_in_the_interpreter() -> None:
    run_interpreted(__file__)


def compiled(kernel: str, target: int, H: int, rows: int, type_: str = "fp16") -> tuple[str, int]:
    """PTX and bytes of shared memory; Triton raises an error for what ptxas does not take."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from asr.models.kernels import triton_persistent

    function = getattr(triton_persistent, kernel)
    constants = {"H": H, "WIDTH": persistent.width(H), "CELLS": persistent.CELLS, "ROWS": rows}
    constants |= {"BARRIER": True, "MEMORY": True}
    constants = {name: v for name, v in constants.items() if name in function.arg_names}
    signature, attributes = {}, {}
    for position, argument in enumerate(function.arg_names):
        aligned = True
        if argument in constants:
            signature[argument], aligned = "constexpr", False
        elif argument in ("first", "last", "T", "B", "row"):
            signature[argument], aligned = "i32", False
        elif argument in ("x_frame", "x_row"):
            signature[argument] = "i32"
        elif argument == "counters":
            signature[argument], aligned = "*i32", False
        else:
            types = {"c": "fp32", "dc": "fp32", "dcs": "fp32"}
            signature[argument] = "*" + types.get(argument, type_)
        if aligned:
            attributes[(position,)] = [["tt.divisibility", 16]]
    result = triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", target, 32),
        options={
            "num_warps": persistent.WARPS,
            "num_stages": 1,
            "launch_cooperative_grid": True,
        },
    )
    assert result.asm["cubin"]
    assert result.metadata.launch_cooperative_grid
    return result.asm["ptx"], result.metadata.shared


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled here")
@pytest.mark.parametrize("kernel", ["lstm_forward", "lstm_backward"])
def test_the_kernels_compile_for_gpus(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for target, H, rows, type_ in ((90, 1024, 32, "fp16"), (80, 256, 16, "bf16")):
        ptx, shared = compiled(kernel, target, H, rows, type_)
        assert shared <= SHARED[target]
        # What the barrier needs, in this order: wait, read the others' results, announce one's own.
        loop = ptx[ptx.index(".gpu.acquire") :]
        assert loop.index(".gpu.acquire") < loop.index("bar.sync") < loop.index("ld.global.cg")
        assert ".gpu.release" in ptx


# --- in Triton's interpreter


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(("directions", "memory"), [(1, False), (2, True)])
    def test_any_number_of_programs(self, directions: int, memory: bool) -> None:
        assert_near(cases(2, 17, 32, directions), memory=memory)

    def test_more_utterances_than_fit_at_once(self) -> None:
        assert_near(cases(2, 2 * 16 + 3, 16, 1))

    def test_a_size_that_is_no_power_of_two(self) -> None:
        assert_near(cases(2, 3, 48, 1))

    def test_one_frame_of_one_utterance_and_frames_first(self) -> None:
        assert_near(cases(1, 1, 16, 1))
        assert_near(cases(2, 2, 16, 1), batch_first=False)

    def test_nan_stays_visible_in_its_utterance(self) -> None:
        ((x, state, weights),) = cases(3, 2, 16, 1)
        x[1, 0] = torch.nan
        h = outcome(persistent.run, [(x, state, weights)], torch.float16)[0]
        assert h[0].isfinite().all()
        assert h[1:, 0].isnan().all()
        assert h[:, 1].isfinite().all()

    def test_a_layer(self) -> None:
        assert_layers_agree("cpu", FRAMES, B=2, T=3, H=16)

    def test_what_it_serves(self) -> None:
        x = torch.zeros(2, 5, 8)
        assert persistent.serves("lstm", x, torch.float16, 64, 2)
        x = x[:, :1].expand(2, 2**21, 8)  # with positions of more than 32 bits
        assert not persistent.serves("lstm", x, torch.float16, 64, 2)


def assert_layers_agree(device: str, other: str, B: int, T: int, H: int) -> None:
    """Two directions in one launch against another path, with lengths and NaN in the padding."""
    torch.manual_seed(0)
    layer = RecurrentLayer(24, H).to(device).half()
    lengths = torch.linspace(1, T, B).long().to(device)
    noise = torch.randn(B, T, 24).to(device).half()
    mask = Padded(noise, lengths).mask()[:, :, None]
    noise = noise.masked_fill(~mask, torch.nan)
    results = []
    for path in (PERSISTENT, other):
        layer.zero_grad()
        x = noise.clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RecurrentLayer, "_fastest", lambda *_, path=path: path)
            y = layer(Padded(x, lengths)).values.masked_fill(~mask, 0.0)
        y.square().sum().backward()
        gradients = [p.grad for p in layer.parameters()]
        results.append([y.detach(), x.grad, *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.isfinite().all()
        size = float(theirs.float().norm())
        assert float((ours.float() - theirs.float()).norm()) <= 5e-3 * size


# --- on a GPU


@pytest.fixture
def served() -> None:
    """Skips where the GPU has no room for the largest layers, such as one with 46 processors."""
    x = torch.zeros(32, 1, 1, device="cuda")
    if not persistent.serves("lstm", x, torch.float16, 512, 2):
        pytest.skip("two directions of 512 cells do not fit on this GPU at once")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("T", "B", "H"), [(7, 3, 64), (50, 16, 320), (33, 40, 512), (12, 8, 768)])
def test_every_size_there(
    T: int, B: int, H: int, directions: int, dtype: torch.dtype, served: None
) -> None:
    if not persistent.serves("lstm", torch.zeros(B, T, 1, device="cuda"), dtype, H, directions):
        pytest.skip("it does not fit on this GPU at once")
    assert_near(cases(T, B, H, directions), dtype, "cuda")


@pytest.mark.gpu
def test_the_largest_size_there() -> None:
    directions = 2
    if not persistent.serves("lstm", torch.zeros(9, 9, 1, device="cuda"), torch.half, 1024, 2):
        directions = 1
    if not persistent.serves("lstm", torch.zeros(9, 9, 1, device="cuda"), torch.half, 1024, 1):
        pytest.skip("1024 cells do not fit on this GPU at once")
    assert_near(cases(9, 32, 1024, directions), device="cuda")
    assert_near(cases(5, 70, 1024, directions), device="cuda")  # more than fit at once


def repeat(given: list[Case], times: int) -> None:
    """The order of all sums is fixed, so anything that differs was read too early or too late."""
    first = outcome(persistent.run, given, torch.float16, "cuda")
    for _ in range(times):
        again = outcome(persistent.run, given, torch.float16, "cuda")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.gpu
def test_no_races_there(served: None) -> None:
    repeat(cases(100, 32, 512, 2), 200)


@pytest.mark.gpu
def test_the_barrier_on_a_full_gpu(served: None) -> None:
    """As many groups as fit, while another stream keeps the GPU busy."""
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    B = persistent.ROWS[0] * (processors // (2 * 128 // persistent.CELLS))
    given, side = cases(100, B, 128, 2), torch.cuda.Stream()
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    with torch.cuda.stream(side):
        for _ in range(500):
            matrix @ matrix
    repeat(given, 20)
    torch.cuda.synchronize()


@pytest.mark.gpu
def test_a_wait_in_vain_ends_in_nan_there(served: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ((x, (h, c), weights),) = cases(20, 8, 64, 1)
    projected, weight = x.cuda().half(), weights["weight_hh"].cuda().half()
    state = h.cuda().half(), c.cuda().half()

    def too_low(*size: int, **kind: Any) -> Tensor:
        return torch.full(size, -(2**20), **kind)

    monkeypatch.setattr(torch, "zeros", too_low)  # of the counters
    with torch.no_grad():
        got = persistent.run([projected], [state], [{"weight_hh": weight}])[0][0]
    assert got.isnan().all()


@pytest.mark.gpu
@pytest.mark.parametrize("other", [LIBRARY, FRAMES])
def test_a_layer_there(other: str, served: None) -> None:
    assert_layers_agree("cuda", other, B=20, T=50, H=512)


@pytest.mark.gpu
def test_in_a_graph_there(served: None) -> None:
    ((x, (h, c), weights),) = cases(20, 8, 64, 1)
    projected, weight = x.cuda().half(), weights["weight_hh"].cuda().half()
    state = h.cuda().half(), c.cuda().half()

    def run() -> Tensor:
        with torch.no_grad():
            return persistent.run([projected], [state], [{"weight_hh": weight}])[0][0]

    wanted, graph, side = run().clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.graph(graph, stream=side):
        got = run()
    for _ in range(3):
        got.zero_()
        graph.replay()
        assert torch.equal(got, wanted)


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:recurrent layers")
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("cell", "paths"), [("lstm", 3), ("gru", 2)])
def test_the_choice_there(
    cell: str, paths: int, bidirectional: bool, served: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All paths work; each is measured once; the gradients are those of the pass itself."""
    measured: list[float] = []

    def measure(run: choice.Run) -> float:
        measured.append(choice.milliseconds(run))
        return measured[-1]

    monkeypatch.setattr(choice, "CHOICES", choice.Choices(measure))
    layer = RecurrentLayer(40, 512, cell, bidirectional=bidirectional).cuda()
    for frames in (60, 63, 61):
        x = Padded(torch.randn(16, frames, 40).cuda(), torch.full((16,), frames).cuda())
        with torch.autocast("cuda", torch.float16):
            y = layer(x).values
        assert all(p.grad is None for p in layer.parameters())
        y.float().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
        layer.zero_grad(set_to_none=True)
    assert len(measured) == paths
