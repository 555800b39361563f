"""What is fuzzed: for each kind valid files or folders, and how the project reads them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from asr.audio.load import audio_duration, load_audio
from asr.dataset.importers import read_source
from asr.dataset.manifest import Utterance, read_entries, read_manifest, write_manifest
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import load_decoder, save_decoder
from asr.evaluation.error_rate import score
from asr.evaluation.formats import Format, read_texts
from asr.evaluation.normalise import load_profile
from asr.evaluation.report import RunFacts, build_report
from asr.evaluation.report_folder import read_report, write_report
from asr.features.pretrained_files import load_network, read_network
from asr.features.pretrained_network import build
from asr.inference.transcribe import transcribe
from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.estimate import estimate
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, load_neural, save_neural
from asr.lm.storage import load_ngram, save_ngram
from asr.lm.words import read_hot_words, read_word_list
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.models.classifier import Classifier, ClassifierBundle, load_classifier, save_classifier
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from asr.training.recipe import read_recipe
from tests.pretrained import LARGE, WAVLM, write_network
from tests.tones import FEATURES, MODEL, RATE, WORDS, speak

TEXTS = ["low high", "up down low", "high", "down up up low"]


@dataclass(frozen=True)
class Kind:
    """`make` writes valid inputs into a folder, each a file or a folder of its own; `read` takes
    the path of one."""

    make: Callable[[Path], None]
    read: Callable[[Path], object]


def _audio(folder: Path) -> None:
    samples = speak(TEXTS[0])
    for name in ("a.wav", "b.flac", "c.ogg", "d.mp3", "e.aiff", "f.w64", "g.au", "h.caf"):
        soundfile.write(folder / name, samples, RATE)
    soundfile.write(folder / "i.wav", np.stack([samples, -samples], axis=1), RATE, "FLOAT")


def _read_audio(path: Path) -> None:
    load_audio(path, RATE)
    audio_duration(path)


def _manifest(folder: Path) -> None:
    rows = [
        Utterance(f"u{i}", folder / f"{i}.wav", text, 1.0 + i, f"s{i % 2}", extra={"room": i})
        for i, text in enumerate(TEXTS)
    ]
    write_manifest(folder / "a.jsonl", rows)


def _read_manifest(path: Path) -> None:
    for _ in read_entries(path):
        pass
    list(read_manifest(path))


def _transcripts(folder: Path) -> None:
    ids = [f"ann-{i}" for i in range(len(TEXTS))]
    rows = list(zip(ids, TEXTS, strict=True))
    contents = {
        "a.trn": [f"{text} ({id_})" for id_, text in rows],
        "a.kaldi": [f"{id_} {text}" for id_, text in rows],
        "a.jsonl": [json.dumps({"id": id_, "text": text}) for id_, text in rows],
        "a.json": [json.dumps(dict(rows))],
        "a.csv": ["id,text", *(f'{id_},"{text}"' for id_, text in rows)],
        "a.tsv": ["id\ttext", *(f"{id_}\t{text}" for id_, text in rows)],
        "a.ctm": [
            f"{id_} 1 {i}.5 0.25 {w} 0.9" for id_, t in rows for i, w in enumerate(t.split())
        ],
        "a.stm": [f"{id_} 1 ann {i}.0 {i}.9 <o,f0> {text}" for i, (id_, text) in enumerate(rows)],
    }
    for name, lines in contents.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def _read_transcripts(path: Path) -> None:
    formats: dict[str, Format] = {f".{f}": f for f in Format.__args__}  # type: ignore[attr-defined]
    read_texts(path, formats[path.suffix])


def _arpa(folder: Path) -> None:
    model = estimate(TEXTS, 3)
    write_arpa(folder / "a.arpa", model)
    write_arpa(folder / "b.arpa", estimate(TEXTS, 2, closed=True))
    (folder / "c.arpa").write_bytes(gzip.compress((folder / "a.arpa").read_bytes(), mtime=0))


def _use_ngram(path: Path) -> None:
    model = read_arpa(path) if path.is_file() else load_ngram(_sealed(path))
    model.score_sentence(["low", "high", "zzz", "up", "down"])


def _sealed(folder: Path) -> Path:
    """Checksums made right where the index still can be read: the arrays are the point."""
    try:
        facts = json.loads((folder / "ngram.json").read_text())
        for name in facts["files"]:
            content = (folder / name).read_bytes()
            facts["files"][name] = {"bytes": len(content), "crc32": zlib.crc32(content)}
        (folder / "ngram.json").write_text(json.dumps(facts))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return folder


def _ngram(folder: Path) -> None:
    save_ngram(folder / "a", estimate(TEXTS, 3))


def _bundle(folder: Path) -> None:
    torch.manual_seed(0)
    tokens = build_tokens(TEXTS, TokenConfig())
    small = ModelConfig(channels=(2,), strides=(3,), layers=1, hidden=4, cell="gru")
    lexicon = tuple(WORDS)
    for name, config, model, kind in (
        ("a", MODEL, None, "greedy"), ("b", small, estimate(TEXTS, 2), "beam")
    ):  # fmt: skip
        bundle = Bundle(AcousticModel(FEATURES, config, len(tokens)).eval(), tokens, TextConfig())
        save_bundle(folder / name, bundle)
        settings = DecoderConfig.model_validate({"kind": kind, "hot_words": {"up": 2.0}})
        if kind == "beam":
            save_decoder(folder / name, Decoder(tokens, settings, model, lexicon))
    soundfile.write(folder.parent / "tone.wav", speak(TEXTS[0]), RATE)


def _use_bundle(path: Path) -> None:
    bundle = load_bundle(path)
    if (path / "lm").is_dir():
        _sealed(path / "lm")
    decoder = load_decoder(path, bundle.tokens, normalise=bundle.normalise)
    list(transcribe(bundle, [Path(__file__).parent / "none.wav", *_tone(path)], decoder, True))


def _tone(path: Path) -> list[Path]:
    return [parent / "tone.wav" for parent in path.parents if (parent / "tone.wav").exists()]


def _neural(folder: Path) -> None:
    torch.manual_seed(0)
    tokens = build_tokens(TEXTS, TokenConfig())
    model = NeuralModel(NeuralConfig(hidden=4), len(tokens)).eval()
    save_neural(folder / "a", NeuralLm(model, tokens))


def _classifier(folder: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(channels=(2,), strides=(3,), layers=1, hidden=4)
    model = Classifier(FEATURES, config, 2)
    save_classifier(folder / "a", ClassifierBundle(model, ("yes", "no")))


def _network(folder: Path) -> None:
    write_network(folder / "a")
    write_network(folder / "b", "wavlm", **LARGE, **WAVLM)


def _use_network(path: Path) -> None:
    load_network(build(read_network(path, "x")), path)


def _recipe(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "recipes" / "an4" / "recipe.yaml").read_text()
    (folder / "a.yaml").write_text(text)
    (folder / "b.yaml").write_text(
        "data: &d {train: a.jsonl, dev: b.jsonl}\nout: x\nmodel: {channels: [8, 8], hidden: 32}\n"
        "train: {epochs: 3, seed: 7, learning_rate: 1.0e-3}\naugment: {speeds: [0.9, 1.1]}\n"
    )
    (folder / "c.yaml").write_text("lowercase: true\nremove: ['[.,]']\nreplace: [['a', 'b']]\n")


def _read_recipe(path: Path) -> None:
    load_profile(path) if path.name == "c.yaml" else read_recipe(path)


def _report(folder: Path) -> None:
    scores = score({"a": "low high", "b": "up"}, {"a": "low up", "b": "up"})
    facts = RunFacts(
        model="m", manifest="t.jsonl", manifest_sha256="x", date="2026-01-01", decoder="greedy"
    )
    write_report(build_report(scores, {}, facts, "words"), folder / "a")
    for page in (folder / "a").glob("*.html"):
        page.unlink()


def _words(folder: Path) -> None:
    (folder / "lexicon.txt").write_text("low\nhigh\th ai\nup\n")
    (folder / "hot.txt").write_text("low 2.5\nhigh\nup -1\n")


def _read_words(path: Path) -> None:
    read_hot_words(path) if path.name == "hot.txt" else read_word_list(path)


def _table(folder: Path) -> None:
    soundfile.write(folder.parent / "tone.wav", speak(TEXTS[0]), RATE)
    rows = [(f"../tone{n}.wav", text) for n, text in zip(("", 1, 2, 3), TEXTS, strict=True)]
    csv = [("audio", "text"), *rows]
    (folder / "a.csv").write_text("".join(f'"{name}","{text}"\n' for name, text in csv))
    tsv = [("path", "sentence"), *rows]
    (folder / "b.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in tsv))
    records = [{"audio_filepath": name, "text": text, "offset": 0.5} for name, text in rows]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    (folder / "d.json").write_text(json.dumps(records))


KINDS = {
    "audio": Kind(_audio, _read_audio),
    "manifest": Kind(_manifest, _read_manifest),
    "transcripts": Kind(_transcripts, _read_transcripts),
    "arpa": Kind(_arpa, _use_ngram),
    "ngram": Kind(_ngram, _use_ngram),
    "bundle": Kind(_bundle, _use_bundle),
    "lstm": Kind(_neural, load_neural),
    "classifier": Kind(_classifier, load_classifier),
    "network": Kind(_network, _use_network),
    "recipe": Kind(_recipe, _read_recipe),
    "report": Kind(_report, read_report),
    "table": Kind(_table, read_source),
    "words": Kind(_words, _read_words),
}
