"""The GPU path against the reference loop: interpreted without a GPU, and on one where there is.

Triton decides when it is imported whether it interprets, so those tests run in a process of their
own. That the kernels compile for real GPUs can be seen without one.

Covers `asr/models/kernels/gpu.py`, `asr/models/kernels/gpu_loops.py`,
`asr/models/kernels/triton_gates.py`, `asr/models/kernels/triton_layer_norm.py`,
`asr/models/kernels/streams.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.models.cells import CELLS, State
from asr.models.kernels import gpu, graphs, reference
from asr.models.kernels.gates import GATES
from asr.models.kernels.gpu_loops import BLOCK, Forward, Kernels, kernels
from asr.models.kernels.graphs import Graphs, Tape
from tests.interpreter import INTERPRETED, run_interpreted
from tests.models.test_kernels import Case, Run, Weights, assert_equal, drawn, outcome

triton = pytest.importorskip("triton")

# In float16 a sum beside a kink may fall on its other side, so not every element can be compared.
ROOM = {torch.float32: 2e-4, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def path(name: str) -> Run:
    return lambda x, state, weights: gpu.run(name, CELLS[name], x, state, weights)


def plain(name: str) -> Run:
    return lambda x, state, weights: reference.run(CELLS[name], x, state, weights)


def outputs_alone(run: Run) -> Run:
    return lambda x, state, weights: run(x, state, weights)[:1]


def sized(name: str, T: int, B: int, H: int, seed: int) -> Case:
    return drawn(name, T, B, H, max(1, H // 2) if CELLS[name].projects else H, seed)


def there(case: Case) -> Case:
    x, state, weights = case
    on_gpu = {name: weight.cuda() for name, weight in weights.items()}
    return x.cuda(), [part.cuda() for part in state], on_gpu


def assert_as_exact_as_the_reference(
    name: str, case: Case, dtype: torch.dtype, device: str = "cpu", select: Any = lambda run: run
) -> None:
    """No output and no gradient is further from float64 than the plain loop in the same type."""
    expected = outcome(select(plain(name)), case, torch.float64)
    loop = outcome(select(plain(name)), case, dtype)
    given_case = there(case) if device == "cuda" else case
    got = outcome_on(device, select(path(name)), given_case, dtype)
    for ours, theirs, wanted in zip(got, loop, expected, strict=True):
        assert ours.shape == wanted.shape
        size = float(wanted.norm()) + 1e-6
        allowed = 2 * float((theirs - wanted).norm()) / size + ROOM[dtype]
        assert float((ours - wanted).norm()) / size <= allowed


def outcome_on(device: str, run: Run, case: Case, dtype: torch.dtype) -> list[Tensor]:
    """`outcome`, whose losses are drawn on the CPU."""

    def brought_back(x: Tensor, state: State, weights: Weights) -> State:
        return tuple(part.cpu() for part in run(x, state, weights))

    return [v.cpu() for v in outcome(brought_back if device == "cuda" else run, case, dtype)]


def assert_nan_stays_visible(name: str, device: str) -> None:
    x, state, weights = sized(name, 3, 2, 4, 0)
    x[1, 0, :] = torch.nan
    x_ = x.to(device, torch.float32).requires_grad_()
    states = path(name)(
        x_,
        tuple(s.to(device, torch.float32) for s in state),
        {name: weight.to(device, torch.float32) for name, weight in weights.items()},
    )
    assert states[0][0].isfinite().all()
    assert states[0][1:, 0].isnan().all()
    assert states[0][:, 1].isfinite().all()
    states[0].sum().backward()
    assert x_.grad is not None
    assert x_.grad[:, 1].isfinite().all()


# --- everywhere


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the other process")
def test_the_kernels_in_the_interpreter() -> None:
    run_interpreted(__file__)


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled here")
@pytest.mark.parametrize("half", ["fp16", "fp32"])
@pytest.mark.parametrize("name", GATES)
def test_the_kernels_compile_for_gpus(
    name: str, half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pair = kernels()[name]
    for kernel in (pair.forward, pair.backward):
        for capability in (80, 90):
            assert compiled(kernel, pair, half, direct=name != "projected", target=capability)


def compiled(kernel: Any, pair: Kernels, half: str, direct: bool, target: int) -> bytes:
    """Machine code of a kernel, for arrays as large and aligned as they usually are."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    full = {"c", "dc", "carry", "p", "dp", "bias_n", "dbias_n"}
    full |= {"gain_h", "gain_c", "bias_c", "dgain_h", "dgain_c", "dbias_c"}
    constants = {"BLOCK": 4 * BLOCK if pair.whole else BLOCK, "DIRECT": direct, **pair.constants}
    signature, attributes = {}, {}
    for position, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in ("t", "H"):
            signature[argument] = "i32"
        else:
            signature[argument] = "*fp32" if argument in full else f"*{half}"
            attributes[(position,)] = [["tt.divisibility", 16]]
    constants = {key: value for key, value in constants.items() if key in signature}
    source = ASTSource(kernel, signature, constants, attributes)
    result = triton.compile(source, target=GPUTarget("cuda", target, 32))
    code: bytes = result.asm["cubin"]
    return code


@pytest.mark.skipif(INTERPRETED, reason="it serves there")
def test_without_a_gpu_it_serves_nothing() -> None:
    assert not any(gpu.serves(name, torch.zeros(1, 1, 4)) for name in CELLS)


def test_every_cell_has_a_pair() -> None:
    assert set(kernels()) == set(GATES) == set(CELLS)


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="Triton works here")
def test_where_triton_does_not_work_it_serves_nothing_and_says_why() -> None:
    gpu._works.cache_clear()
    with pytest.warns(UserWarning, match="run as a plain loop.*Triton does not work on cpu: "):
        assert not gpu._works(torch.device("cpu"))
    gpu._works.cache_clear()


# --- in Triton's interpreter


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.mark.parametrize("name", sorted(GATES))
    def test_any_size(self, name: str) -> None:
        smallest = 4 if name == "layer_norm" else 1  # a deviation of fewer amplifies every rounding

        @settings(max_examples=3, phases=[Phase.generate])  # it shrinks for minutes
        @given(
            st.integers(1, 4), st.integers(1, 4), st.integers(smallest, 70), st.integers(0, 2**16)
        )
        def check(T: int, B: int, H: int, seed: int) -> None:
            assert_equal(name, path(name), sized(name, T, B, H, seed), tolerance=1e-4)

        check()

    @pytest.mark.parametrize("name", ["peephole", "layer_norm"])
    def test_more_cells_than_a_block_has(self, name: str) -> None:
        assert_equal(name, path(name), sized(name, 2, 1, BLOCK + 33, 0), tolerance=1e-4)

    @pytest.mark.parametrize("name", sorted(GATES))
    def test_half_precision(self, name: str) -> None:
        assert_as_exact_as_the_reference(name, sized(name, 3, 2, 21, 0), torch.float16)

    def test_the_other_half_precision(self) -> None:
        assert_as_exact_as_the_reference("gru", sized("gru", 4, 2, 21, 0), torch.bfloat16)

    def test_the_memory_stays_in_float32(self) -> None:
        x, state, weights = sized("peephole", 2, 2, 6, 0)
        half = {name: weight.half() for name, weight in weights.items()}
        h, c = gpu.run(
            "peephole", CELLS["peephole"], x.half(), tuple(s.half() for s in state), half
        )
        assert (h.dtype, c.dtype) == (torch.float16, torch.float32)

    def test_mixed_precision(self) -> None:
        case = sized("layer_norm", 3, 2, 8, 0)

        def mixed(x: Tensor, state: State, weights: Weights) -> State:
            with torch.autocast("cpu", torch.bfloat16):
                h, c = path("layer_norm")(x, state, weights)
            assert (h.dtype, c.dtype) == (torch.bfloat16, torch.float32)
            return h, c

        expected = outcome(plain("layer_norm"), case, torch.float64)
        for ours, wanted in zip(outcome(mixed, case, torch.float32), expected, strict=True):
            assert float((ours - wanted).norm() / wanted.norm()) <= 0.05

    @pytest.mark.parametrize("name", ["peephole", "light_gru", "projected"])
    def test_outputs_alone_may_be_wanted(self, name: str) -> None:
        assert_as_exact_as_the_reference(
            name, sized(name, 3, 2, 6, 0), torch.float32, select=outputs_alone
        )

    @pytest.mark.parametrize("name", sorted(GATES))
    def test_nan_stays_visible(self, name: str) -> None:
        assert_nan_stays_visible(name, "cpu")

    @pytest.fixture
    def in_chunks(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """Loops run in chunks as they do in graphs, on memory full of another batch's garbage."""
        replayed: list[str] = []

        def capture(tape: Tape) -> Callable[[], None]:
            parts = tape.parts()
            for v in (*parts.start, *parts.reads, *parts.writes, *parts.end):
                v.fill_(torch.nan)

            def again() -> None:
                replayed.append(type(tape).__name__)
                tape.run()
                tape.carry_state()

            return again

        def run(tape: Any, x: Tensor) -> None:
            captured = store.captured(tape)
            assert captured is not None
            graphs.replay(tape, *captured)

        store = Graphs()
        monkeypatch.setattr(graphs, "capture", capture)
        monkeypatch.setattr(graphs, "FRAMES", 2)
        monkeypatch.setattr(graphs, "rounded", lambda rows: 2)
        monkeypatch.setattr(gpu, "_run", run)
        yield replayed
        assert len(store._kept) == 2

    @pytest.mark.parametrize("name", ["gru", "layer_norm", "light_gru", "peephole", "projected"])
    def test_chunks_make_a_whole(self, name: str, in_chunks: list[str]) -> None:
        for B in (1, 2):
            assert_equal(name, path(name), sized(name, 5, B, 5, seed=B), tolerance=1e-4)
        assert in_chunks == 2 * (3 * ["Forward"] + 3 * ["Backward"])

    def test_chunks_of_outputs_alone(self, in_chunks: list[str]) -> None:
        assert_as_exact_as_the_reference(
            "peephole", sized("peephole", 3, 1, 6, 0), torch.float32, select=outputs_alone
        )

    def test_what_it_serves(self) -> None:
        assert all(gpu.serves(name, torch.zeros(1, 1, 1)) for name in CELLS)
        assert not gpu.serves("peephole", torch.zeros(1, 1, 1, dtype=torch.float64))
        assert not gpu.serves("transformer", torch.zeros(1, 1, 1))


# --- on a GPU


@pytest.fixture
def new_graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr(gpu, "GRAPHS", Graphs())
    return gpu.GRAPHS


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:recurrent layers")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", sorted(GATES))
def test_every_cell_there(name: str, dtype: torch.dtype, new_graphs: Graphs) -> None:
    assert gpu.serves(name, torch.zeros(1, 1, 1, device="cuda", dtype=dtype))
    assert_as_exact_as_the_reference(name, sized(name, 50, 16, 320, 0), dtype, "cuda")
    assert len(new_graphs._kept) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(GATES))
def test_graphs_give_what_the_loop_gives(
    name: str, new_graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches after one another on the same graphs: what one leaves must not reach the next.
    cases = [there(sized(name, T, B, 65, seed)) for seed, (T, B) in enumerate([(40, 13), (5, 11)])]
    x = cases[0][0]
    x[35, 3] = torch.nan
    through = [outcome_on("cuda", path(name), case, torch.float32) for case in cases]
    monkeypatch.setattr(gpu, "_run", lambda tape, x: tape.run())
    for case, got in zip(cases, through, strict=True):
        for ours, wanted in zip(
            got, outcome_on("cuda", path(name), case, torch.float32), strict=True
        ):
            torch.testing.assert_close(ours, wanted, equal_nan=True, rtol=2e-3, atol=2e-3)
    assert len(new_graphs._kept) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(GATES))
def test_nan_stays_visible_there(name: str) -> None:
    assert_nan_stays_visible(name, "cuda")


@pytest.mark.gpu
def test_mixed_precision_there(new_graphs: Graphs) -> None:
    case = there(sized("layer_norm", 8, 4, 64, 0))

    def mixed(x: Tensor, state: State, weights: Weights) -> State:
        with torch.autocast("cuda", torch.float16):
            h, c = path("layer_norm")(x, state, weights)
        assert (h.dtype, c.dtype) == (torch.float16, torch.float32)
        return h, c

    h, c, *gradients = outcome_on("cuda", mixed, case, torch.float32)
    wanted_h, wanted_c = reference.run(CELLS["layer_norm"], case[0], tuple(case[1]), case[2])
    torch.testing.assert_close(h, wanted_h.cpu(), rtol=0.05, atol=0.05)
    torch.testing.assert_close(c, wanted_c.cpu(), rtol=0.05, atol=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.gpu
def test_in_inference_and_then_in_training(new_graphs: Graphs) -> None:
    case = there(sized("peephole", 40, 3, 32, 0))
    x, state, weights = case[0].float(), [s.float() for s in case[1]], case[2]
    single = {name: weight.float() for name, weight in weights.items()}
    with torch.inference_mode():
        shown = path("peephole")(x, tuple(state), single)[0].clone()
    got = outcome_on("cuda", path("peephole"), case, torch.float32)
    torch.testing.assert_close(shown.cpu().double(), got[0], rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_another_stream_has_graphs_of_its_own(new_graphs: Graphs) -> None:
    case = there(sized("coupled", 40, 3, 32, 0))
    expected = outcome_on("cuda", path("coupled"), case, torch.float32)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        got = outcome_on("cuda", path("coupled"), case, torch.float32)
    torch.cuda.synchronize()
    for ours, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    assert len(new_graphs._kept) == 4


@pytest.mark.gpu
def test_in_a_graph_of_someone_else(new_graphs: Graphs) -> None:
    x, state, weights = there(sized("light_gru", 6, 3, 32, 0))
    single = {name: weight.float() for name, weight in weights.items()}
    tape = Forward.over(
        "light_gru", x.float(), state[0].float(), None, single["weight_hh"], None, ()
    )
    new_graphs.run(tape)
    wanted = tape.hs.clone()
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        tape.run()
    with torch.cuda.graph(graph, stream=side):
        new_graphs.run(tape)
    tape.hs[1:].zero_()
    graph.replay()
    torch.testing.assert_close(tape.hs, wanted)
