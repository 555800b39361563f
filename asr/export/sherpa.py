"""`asr export --to sherpa`: a folder that sherpa-onnx runs on phones, boards and desktops.

model.onnx        the network; its inputs and metadata are those of a kind of model that sherpa-onnx
                  runs ("slot")
model.int8.onnx   the same with weights in 8 bits
tokens.txt        one token and its id per line
graph.fst         if asked for: the n-gram model and the lexicon for sherpa-onnx's graph decoder
index.html        for graphs of samples: a page that recognises recordings in a browser
README.md         command line and Python for this folder
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import onnx

from asr.decoding.folder import load_decoder
from asr.errors import AsrError, ConfigError
from asr.export.check import Comparison, compare_words
from asr.export.decoding_graph import build_decoding_graph
from asr.export.features import check_source
from asr.export.onnx_folder import torch_scores
from asr.export.openfst import write_fst
from asr.export.quantise import quantised
from asr.export.sherpa_files import KALDI, NEMO, SAMPLES, STREAM, Slot, slot_options, tokens_text
from asr.export.sherpa_graphs import SLOT_RATE, build_graph, check_parity, graph_scores
from asr.export.sherpa_readme import readme_text
from asr.inference.onnx_model import GRAPH
from asr.inference.streaming import chunk_for, fix_chunk, latency, obstacles
from asr.io.files import atomic_path, check_replaceable
from asr.models.bundle import Bundle, load_bundle

SMALL_GRAPH = "model.int8.onnx"
DECODING_GRAPH = "graph.fst"
TOKENS = "tokens.txt"
README = "README.md"
PAGE = "index.html"
FILES = (GRAPH, SMALL_GRAPH, DECODING_GRAPH, TOKENS, README, PAGE)


@dataclass(frozen=True)
class SherpaFolder:
    """A written folder; `difference` is the largest one from torch, in nats."""

    folder: Path
    megabytes: dict[str, float]
    """The size of each graph."""
    difference: float
    recognizer: str
    """How Python makes a recogniser of it."""
    verified: bool
    """Whether sherpa-onnx, which is optional, has read the folder."""
    comparisons: dict[str, Comparison]
    """The error rates of each graph, if they were measured."""
    other_delays: tuple[float, float] | None
    """The shortest and the longest delay in seconds that a streaming graph of the model could have,
    if this one is for whole recordings."""


def export_sherpa(
    model: Path,
    out: Path,
    check: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    with_graph: bool = False,
    delay: float | None = None,
) -> SherpaFolder:
    """Write the folder atomically.

    With `check`, a manifest, the error rates of the model and both graphs are compared first, with
    calls of `progress`. `with_graph` adds the decoder of the model folder as a decoding graph.
    `delay`, in seconds, chooses the chunks of a model whose `model.chunk` is a range; without it,
    such a model is exported for whole recordings.

    Raises ConfigError for settings that sherpa-onnx cannot run, and AsrError if the graph's output
    is not that of torch, or if the installed sherpa-onnx does not read the folder.
    """
    bundle = load_bundle(model)
    other_delays = _choose_chunk(bundle, delay)
    slot = choose_slot(bundle)
    tokens = tokens_text(bundle.tokens)
    check_replaceable(out, TOKENS, FILES)
    decoder = None
    if with_graph:
        decoder = load_decoder(model, bundle.tokens, "beam", normalise=bundle.normalise)
    fst = None if decoder is None else build_decoding_graph(decoder)
    graph = build_graph(bundle, slot, exact=with_graph)
    difference = check_parity(bundle, graph, slot, exact=with_graph)
    graphs = {GRAPH: graph, SMALL_GRAPH: quantised(graph, alone=slot is SAMPLES)}
    comparisons = {}
    if check is not None:
        for name, made in graphs.items():
            scorer = partial(torch_scores, bundle.model, waveform=True)
            in_graph = graph_scores(bundle, made, slot)
            comparisons[name] = compare_words(bundle, scorer, in_graph, check, progress)
    with atomic_path(out) as folder:
        folder.mkdir()
        for name, made in graphs.items():
            onnx.save(made, str(folder / name))
        (folder / TOKENS).write_text(tokens, encoding="utf-8")
        readme = readme_text(bundle, slot, with_graph)
        (folder / README).write_text(readme, encoding="utf-8")
        if slot is SAMPLES:
            shutil.copyfile(Path(__file__).with_name("templates") / PAGE, folder / PAGE)
        if fst is not None:
            write_fst(folder / DECODING_GRAPH, fst)
        verified = find_spec("sherpa_onnx") is not None
        if verified:
            verify(folder, bundle, slot)
    sizes = {name: (out / name).stat().st_size / 1e6 for name in graphs}
    recognizer = f"{slot.recognizer}.{slot.factory}"
    return SherpaFolder(out, sizes, difference, recognizer, verified, comparisons, other_delays)


def _choose_chunk(bundle: Bundle, delay: float | None) -> tuple[float, float] | None:
    """Fix the chunks of a model with a range of sizes; for whole recordings, the delays with which
    it could stream."""
    model, delays = bundle.model, None
    if delay is not None:
        fix_chunk(model, chunk_for(model, delay))
    elif isinstance(model.config.chunk, tuple):
        if model.features.config.kind == "nemo":
            low, high = model.config.chunk
            delays = latency(model, low), latency(model, high)
        fix_chunk(model, 0)
    return delays


def choose_slot(bundle: Bundle) -> Slot:
    """The kind of model that sherpa-onnx runs this one as. Raises ConfigError if there is none."""
    features, config = bundle.model.features.config, bundle.model.config
    check_source(features)
    kind, rate = features.kind, bundle.sample_rate
    if kind not in ("kaldi", "nemo"):
        return _choose_samples(bundle)
    if (features.window_ms, features.shift_ms) != (25.0, 10.0):
        raise ConfigError(
            f"expected features.window_ms 25 and features.shift_ms 10 with features.kind {kind}, "
            f"as in sherpa-onnx, got {features.window_ms:g} and {features.shift_ms:g}: train with "
            "these to run there"
        )
    if kind == "nemo" and not obstacles(features, config):
        return STREAM
    _check_whole(config.chunk)
    if kind == "kaldi" and (rate, features.bands) != (16000, 80):
        raise ConfigError(
            "expected 80 bands at 16000 Hz with features.kind kaldi, as in sherpa-onnx, got "
            f"{features.bands} at {rate} Hz: train with features.kind nemo, which has no such limit"
        )
    return KALDI if kind == "kaldi" else NEMO


def _check_whole(chunk: int | tuple[int, int]) -> None:
    if chunk:
        raise ConfigError(
            "expected features.kind nemo, and cmvn none or global, for a model with chunks, got "
            "others: train with these to stream in sherpa-onnx"
        )


def _choose_samples(bundle: Bundle) -> Slot:
    features = bundle.model.features.config
    _check_whole(bundle.model.config.chunk)
    if features.follows_level:
        raise ConfigError(
            "expected features.cmvn utterance or level, because sherpa-onnx changes the level of "
            f"samples, got {features.cmvn}: train with features.kind kaldi or nemo to run there"
        )
    if SLOT_RATE not in (bundle.sample_rate, 2 * bundle.sample_rate):
        raise ConfigError(
            f"expected a model of 16000 or 8000 Hz, got {bundle.sample_rate} Hz: train with "
            "features.sample_rate 16000"
        )
    return SAMPLES


_TRIAL = """
import json
import sys
import numpy as np
import sherpa_onnx
from sherpa_onnx.lib import _sherpa_onnx as core
recognizer, factory, options, fst, *graphs = sys.argv[1:]
noise = np.random.default_rng(1).normal(size=16000).astype(np.float32)
for graph in graphs:
    made = getattr(getattr(sherpa_onnx, recognizer), factory)(model=graph, **json.loads(options))
    if fst:
        kind = recognizer.replace("Recognizer", "CtcFstDecoderConfig")
        made.config.ctc_fst_decoder_config = getattr(core, kind)(graph=fst)
        made.recognizer = getattr(core, recognizer)(made.config)
    stream = made.create_stream()
    stream.accept_waveform(16000, 0.1 * noise)
    if recognizer == "OfflineRecognizer":
        made.decode_stream(stream)
    else:
        while made.is_ready(stream):
            made.decode_stream(stream)
"""


def verify(folder: Path, bundle: Bundle, slot: Slot) -> None:
    """Let sherpa-onnx recognise a second of noise with both graphs.

    It ends the program on errors, hence one of its own. Raises AsrError with its words if it fails.
    """
    options = json.dumps({"tokens": str(folder / TOKENS), **slot_options(bundle, slot)})
    command = [sys.executable, "-c", _TRIAL, slot.recognizer, slot.factory, options]
    fst = folder / DECODING_GRAPH
    command += [str(fst) if fst.exists() else ""]
    command += [str(folder / graph) for graph in (GRAPH, SMALL_GRAPH)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        words = " ".join(ended.stderr.split())[-300:]
        raise AsrError(
            f"expected sherpa-onnx to read the folder, got {words or ended.returncode}: please "
            "report it"
        )
