"""Preparation of a training run: data, precision, and checks that they fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from asr.dataset.cuts import Corpus
from asr.dataset.labels import confidences, join, usable
from asr.dataset.manifest import Joined, Selection, Utterance, read_manifest
from asr.dataset.remote import RemoteShards, fetch_all, remote_shards
from asr.dataset.speech_dataset import SpeechDataset, Stamp, stamp
from asr.errors import AsrError, TrainingError
from asr.features.extractor import OF_TRAINING
from asr.io.extras import installed_version
from asr.io.files import restore_folders
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.models.files import weights_digest
from asr.models.kernels.dense import trains_lstm_in
from asr.text.normalise import TextConfig, as_units, normalise
from asr.text.tokens import Tokens, build_tokens
from asr.training import distributed
from asr.training.finetune import preserved_tokens
from asr.training.health import fastest_speeds, infeasible
from asr.training.recipe import Recipe

# Settings that may change when a run is resumed: paths, its end, what it keeps, the model card, and
# how steps are computed.
FREE = {
    "about",
    "out",
    "data",
    "tokens.lexicon",
    "features.pretrained",
    "features.cache_gb",
    "init.interpolation",
    "train.epochs",
    "train.patience",
    "train.average",
    "train.save_seconds",
    "train.cuda_graphs",
}

OF_PRETRAINED = {f"features.{key}" for key in (*OF_TRAINING, "network")}

# Each setting has no effect while the setting on the right is off. It is then left out of the
# identity, so that runs that began before it existed can be resumed.
ONLY_WITH = {
    "init.preserve": "init.preserve",
    "model.attention_decoder": "model.attention_decoder",
    "train.attention_weight": "model.attention_decoder",
    "model.intermediate_ctc": "model.intermediate_ctc",
    "model.self_conditioning": "model.intermediate_ctc",
    "train.intermediate_ctc_weight": "model.intermediate_ctc",
    "train.ema": "train.ema",
    "train.entropy_target": "train.entropy_target",
}

# Settings that apply only to these kinds of tokens.
OF_KINDS = {"tokens.size": ("bpe", "unigram"), "tokens.espeak": ("phones",)}


def precision(choice: str, say: Callable[[str], None]) -> str:
    """accelerate's name for the precision of training: no, bf16 or fp16.

    Raises TrainingError for a precision that the device does not support.
    """
    gpu = torch.cuda.is_available()
    if choice == "fp16" and not gpu:
        raise TrainingError("expected a GPU for fp16, got none: set train.precision to auto")
    if choice == "bf16" and gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError(
            "expected a GPU that computes in bf16, got one that does not: "
            "set train.precision to auto"
        )
    if choice == "bf16" and not gpu and not trains_lstm_in(torch.bfloat16):
        raise TrainingError(
            "expected a processor that trains an LSTM in bf16, got one that does not: "
            "set train.precision to auto"
        )
    if choice != "auto":
        return {"fp32": "no"}.get(choice, choice)
    if gpu:
        return "fp16"
    # Emulated bf16 is slower than fp32: use it only if the processor supports it.
    if torch.cpu._is_avx512_bf16_supported() and trains_lstm_in(torch.bfloat16):
        return "bf16"
    say("precision: fp32, because this processor does not compute LSTMs in bf16")
    return "no"


def datasets(
    recipe: Recipe, say: Callable[[str], None]
) -> tuple[Tokens, TextConfig, SpeechDataset, SpeechDataset]:
    """The tokens, their characters, the training set and the dev set. `say` reports labels that are
    left out. Raises AsrError for unusable data."""
    train = read_manifest(recipe.data.train, recipe.shards)
    dev = read_manifest(recipe.data.dev, recipe.shards)
    labels = recipe.data.labels and read_manifest(recipe.data.labels, recipe.shards)
    _refuse_shared(train.speakers, dev.speakers, "train")
    stamps: dict[Path, Stamp] = {}  # shards that are fetched have digests
    if recipe.shards is not None:
        fetch_all(recipe.data.origin, recipe.shards, dev)
    else:
        stamps |= _require_audio(recipe.data.train, train)
        stamps |= _require_audio(recipe.data.dev, dev)
        if recipe.data.labels and labels:
            stamps |= _require_audio(recipe.data.labels, labels)
    # Only espeak needs the words of labels; with a lexicon, labels with other words are left out.
    parts = (train, dev, (labels or ()) if recipe.tokens.espeak else ())
    text = as_units(recipe.text, recipe.tokens, (u.text for part in parts for u in part))
    texts = [normalise(u.text, text) for u in train]
    if recipe.init.preserve and recipe.init.model is not None:
        tokens = preserved_tokens(recipe.init.model, texts)
    else:
        tokens = build_tokens(texts, recipe.tokens)
    rate = recipe.features.sample_rate
    dev_set = SpeechDataset(dev, None, text, rate, stamps=stamps)
    if not any(dev_set.references):
        raise TrainingError(
            f"expected words in the transcripts of {recipe.data.dev}, got none: without them no "
            "error rate can be measured"
        )
    if not (recipe.data.labels and labels):
        return tokens, text, SpeechDataset(train, tokens, text, rate, stamps=stamps), dev_set
    sure = confidences(recipe.data.labels, labels)
    missing = partial(_missing, tokens, text)
    kept = usable(labels, Joined(train, dev), missing, say)
    _refuse_shared((labels.speakers[i] for i in kept.places), dev.speakers, "data.labels")
    weights = [1.0] * len(train) + [recipe.data.label_weight * sure[i] for i in kept.places]
    both = join(train, recipe.data.labels, kept)
    return tokens, text, SpeechDataset(both, tokens, text, rate, weights, stamps), dev_set


def _missing(tokens: Tokens, config: TextConfig, text: str) -> set[str]:
    """What the tokens cannot write of a text; all of it, if a word has no phones."""
    try:
        return tokens.missing(normalise(text, config))
    except AsrError:
        return {text}


def _refuse_shared(speakers: Iterable[str], dev: Iterable[str], where: str) -> None:
    if shared := set(speakers) & set(dev) - {""}:
        raise TrainingError(
            f"expected dev speakers that are not in {where}, got {len(shared)} in both "
            f"({', '.join(sorted(shared)[:5])}): split by speaker"
        )


def _require_audio(manifest: Path, utterances: Sequence[Utterance]) -> dict[Path, Stamp]:
    """The stamps of all recordings. Raises TrainingError if some are missing."""
    # Before the first step, not hours later in the first batch that needs it.
    first: dict[Path, str] = {}  # utterance of each file; an archive has many
    for utterance in utterances:
        first.setdefault(utterance.audio, utterance.id)
    stamps = {audio: found for audio in first if (found := stamp(audio)) is not None}
    missing = [(audio, id_) for audio, id_ in first.items() if audio not in stamps]
    if missing:
        audio, id_ = missing[0]
        elsewhere = "" if audio.suffix != ".tar" else "; remote shards need data.origin"
        raise TrainingError(
            f"{manifest}: expected every recording, got {len(missing)} of {len(first)} files "
            f"missing, first {audio} of {id_}: `asr check {manifest}` lists them{elsewhere}"
        )
    return stamps


def without_infeasible(
    recipe: Recipe,
    bundle: Bundle,
    data: SpeechDataset,
    say: Callable[[str], None],
) -> SpeechDataset:
    """Leave out, by name, targets that fit at no speed. Raises TrainingError if these are most."""
    slowest = min(recipe.augment.speeds) * min(1.0, *recipe.augment.tempos)
    bad = infeasible(bundle.model, data, slowest)
    for name, why in bad.items():
        say(f"left out, transcript does not fit: {name}: {why}")
    if not bad:
        return data
    places = [i for i, u in enumerate(data.utterances) if u.id not in bad]
    if len(bad) > len(places):
        raise TrainingError(
            f"expected transcripts that fit their recordings, got {len(bad)} of {len(data)} that "
            "cannot: check that they belong together, or lower model.strides"
        )
    kept = Selection(data.utterances, places)
    weights = data.weights and [data.weights[i] for i in places]
    return SpeechDataset(kept, bundle.tokens, bundle.text, data.sample_rate, weights, data.stamps)


def remote_training_shards(
    recipe: Recipe, data: SpeechDataset, dev: SpeechDataset
) -> RemoteShards | None:
    """The origin of the shards of the training set; None if they are not fetched."""
    if recipe.shards is None:
        return None
    restore_folders(recipe.shards)
    room = round(recipe.data.keep_gb * 1e9)
    return remote_shards(recipe.data.origin, recipe.shards, data.utterances, room, dev.utterances)


def training_corpus(
    recipe: Recipe, model: AcousticModel, data: SpeechDataset, shards: RemoteShards | None = None
) -> Corpus:
    """The corpus for the plan of batches. If not all shards fit, half of the space is for those in
    use, half for the next ones."""
    augment = recipe.augment
    # A tempo is lowered to 1 where a target would not fit else.
    speeds = {s * tempo for s in augment.speeds for tempo in (1.0, *augment.tempos)}
    corpus = Corpus(
        durations=data.durations,
        speakers=data.speakers,
        fastest=fastest_speeds(model, data, sorted(speeds)),
    )
    if shards is None:
        return corpus
    sizes = [shard.bytes for shard in shards.shards]
    room = shards.room if sum(sizes) <= shards.room else shards.room // 2
    return replace(corpus, shards=shards.of, shard_bytes=sizes, room=room)


def identity(
    recipe: Recipe, tokens: Tokens, train: SpeechDataset, dev: SpeechDataset
) -> dict[str, Any]:
    """The settings by key, and the data, that must be the same to resume a run. This includes the
    dev set, whose errors rank epochs."""
    settings = recipe.model_dump(mode="json")
    flat = {k: v for k, v in settings.items() if not isinstance(v, dict)}
    for section, values in settings.items():
        if isinstance(values, dict):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
    kept = {k: v for k, v in flat.items() if k not in FREE and k.split(".")[0] not in FREE}
    for key, kinds in OF_KINDS.items():
        if recipe.tokens.kind not in kinds:
            del kept[key]
    if recipe.features.kind == "pretrained":
        del kept["features.network"]["name"]
    else:
        kept = {k: v for k, v in kept.items() if k not in OF_PRETRAINED}
    kept = {k: v for k, v in kept.items() if k not in ONLY_WITH or flat[ONLY_WITH[k]]}
    if recipe.data.origin:  # the plan depends on it
        kept["data.keep_gb"] = recipe.data.keep_gb
    if recipe.init.model is not None:
        kept["init.weights"] = _weights_of(recipe.init.model)
    kept["tokens.units"] = hashlib.sha256(json.dumps(tokens.units).encode()).hexdigest()[:16]
    as_units = recipe.tokens.kind == "phones"
    return kept | {"data.train": _digest(train, as_units), "data.dev": _digest(dev, as_units)}


def _weights_of(initial: Path) -> str | None:
    """The digest of an initial model, since another may have been put in its place; None if it is
    gone, as it may once a run has begun."""
    return weights_digest(initial) or None


def dev_share(data: SpeechDataset, text: TextConfig) -> SpeechDataset:
    """The part of the dev set that this process recognises: all of it, unless there are others."""
    if not distributed.is_joined():
        return data
    longest_first = sorted(range(len(data)), key=lambda place: -data.durations[place])
    chosen = Selection(data.utterances, distributed.own(longest_first))
    return SpeechDataset(chosen, None, text, data.sample_rate, stamps=data.stamps)


def alike(recipe: Recipe, computed: str) -> dict[str, Any]:
    """What must be the same in all processes of a training, in addition to its `identity`."""
    train, init = recipe.train, recipe.init
    return {
        "init.interpolation": init.interpolation,
        "train.epochs": train.epochs,
        "train.patience": train.patience,
        "precision": computed,
        "version of asr": installed_version(),
        "version of torch": torch.__version__,
    }


def _digest(data: SpeechDataset, as_units: bool) -> str:
    """A digest of all training data; `as_units`: with phones, since another lexicon gives other
    data."""
    total = hashlib.sha256()
    for i, (u, units) in enumerate(zip(data.utterances, data.references, strict=True)):
        row = [u.id, units if as_units else u.text, u.duration, u.speaker]
        row += [data.weights[i]] if data.weights else []
        total.update((", " if i else "[").encode() + json.dumps(row).encode())
    total.update(b"]")
    return total.hexdigest()[:16]
