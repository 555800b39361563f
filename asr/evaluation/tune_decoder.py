"""Tuning of the language model weights on a development set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from asr.dataset.manifest import read_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.dataset.splits import refuse_test_set
from asr.decoding.beam import beam_decode
from asr.decoding.config import RescoreConfig
from asr.decoding.decoder import Decoder
from asr.decoding.fusion_kernel import Language
from asr.decoding.rescoring import attended, rescored, text_scores
from asr.errors import AsrError
from asr.evaluation.confidence import fit_scale
from asr.evaluation.error_rate import score
from asr.evaluation.report import Units
from asr.evaluation.scoring import Scoring
from asr.inference.decode import score_dataset
from asr.io.files import atomic_path, write_json
from asr.lm.neural import NeuralLm
from asr.lm.onnx_lm import OnnxLm
from asr.models.acoustic import AcousticModel
from asr.models.attention_decoder import Attended
from asr.models.bundle import Bundle, load_bundle
from asr.padded import Padded, pad
from asr.plotting import pyplot

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)
BONUSES = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SIZES = (8, 16, 32, 64, 128)  # of the beam; a smaller one has no alternatives for confidences
SEARCH_SIZE = 16  # while weight and bonus are tuned
RANKED_SIZE = 64  # of the beam whose texts are rescored, in addition to that of the best


@dataclass(frozen=True)
class Trial:
    """Errors on the development set with one setting."""

    weight: float
    bonus: float
    size: int
    errors: int
    rescore: RescoreConfig | None = None
    attention: float | None = None
    """Weight of the model's attention decoder, if it has one."""


@dataclass(frozen=True)
class Tuning:
    """All trials, the number of words, and the best decoder. With characters as units, "words" are
    characters throughout."""

    trials: tuple[Trial, ...]
    words: int
    best: Trial
    decoder: Decoder
    units: Units = "words"


def tune(
    model: Path,
    manifest: Path,
    decoder: Decoder,
    progress: Callable[[int, int], None] = lambda done, total: None,
    bundle: Bundle | None = None,
) -> Tuning:
    """Try every weight with every word bonus, and then beams of every size; the recordings are
    recognised once. Of settings with equally few errors, the one whose neighbours have fewest wins,
    then the smallest beam; an attention decoder or a recurrent language model may rescore a larger
    one. `bundle` is the model if it is already loaded.

    Raises AsrError for a test set, and like the readers of model and manifest.
    """
    bundle = bundle or load_bundle(model)
    utterances = read_manifest(manifest)
    refuse_test_set(model, manifest, utterances)
    bundle.on_device()
    dataset = SpeechDataset(utterances, None, bundle.text, bundle.sample_rate)
    if decoder.language is None:
        raise AsrError("expected a decoder with a beam, got a greedy one: give --lm")
    if decoder.config.rescore.every_step:
        raise AsrError("expected rescoring of the n-best list, got rescore.every_step: omit it")
    if not any(dataset.references):
        raise AsrError(f"expected words in {manifest}, got none: give one with transcripts")
    names, scores = _scored(bundle.model, dataset)
    references = {u.id: text for u, text in zip(utterances, dataset.references, strict=True)}
    scoring = Scoring().with_units(dataset.references)
    units, said = scoring.units or "words", scoring.apply_all(references)

    def count(texts: Sequence[str]) -> int:
        hypotheses = scoring.apply_all(dict(zip(names, texts, strict=True)))
        return score(said, hypotheses).words.errors

    attempt = partial(_trial, scores, count, decoder, decoder.language)
    total = len(WEIGHTS) * len(BONUSES) + len(SIZES)
    trials = []
    for weight in WEIGHTS:
        for bonus in BONUSES:
            trials.append(attempt(weight, bonus, SEARCH_SIZE))
            progress(len(trials), total)
    best = _most_robust(trials)
    beams = []
    for size in SIZES:
        beams.append(attempt(best.weight, best.bonus, size))
        progress(len(trials) + len(beams), total)
    best = min(beams, key=lambda trial: (trial.errors, trial.size))
    larger = [beam for beam in beams if beam.size == RANKED_SIZE > best.size]
    if isinstance(scores, Attended):
        by_attention = partial(_attended, decoder, scores, count)
        best, *larger = map(by_attention, [best, *larger])
        if decoder.neural is None:
            best = min([best, *larger], key=lambda trial: (trial.errors, trial.size))
    if decoder.neural is not None:
        decoder, best = _ranked(decoder, decoder.neural, scores, count, [best, *larger])
    words = sum(len(text.split()) for text in said.values())
    tuned = _settled(decoder, best, f"{manifest.name}: {best.errors} errors in {words} {units}")
    scaled = _with_confidence_scale(tuned, scores, names, references)
    return Tuning((*trials, *beams), words, best, scaled, units)


def _scored(model: AcousticModel, dataset: SpeechDataset) -> tuple[list[str], Padded]:
    """The names of all utterances, and their scores on the CPU."""
    names: list[str] = []
    rows, frames = [], []
    for ids, log_probs in score_dataset(model, dataset):
        names += ids
        rows += [row.cpu() for row in log_probs.unpad()]
        if isinstance(log_probs, Attended):
            frames += [row.half().cpu() for row in log_probs.frames.unpad()]  # of the whole dev set
    scores = pad(rows)
    if model.attention_decoder is None:
        return names, scores
    return names, Attended(
        scores.values, scores.lengths, pad(frames), model.attention_decoder.cpu()
    )


def _attended(
    decoder: Decoder, scores: Padded, count: Callable[[Sequence[str]], int], best: Trial
) -> Trial:
    """The best weight of the attention decoder, and with it of the n-gram model. Of equals, the
    smallest change wins."""
    trials = [replace(best, attention=0.0)]
    for weight in (weight for weight in reversed(WEIGHTS) if weight <= best.weight):
        first = replace(best, weight=weight, bonus=best.bonus if weight else 0.0)
        alone = replace(_settled(decoder, first, ""), neural=None)
        found = alone.n_best(scores, best.size)
        own = alone.by_attention(scores, found)
        for factor in WEIGHTS[1:]:
            texts = [rows[0].text for rows in attended(found, own, factor)]
            trials.append(replace(first, errors=count(texts), attention=factor))
        if decoder.ngram is None:  # the weight of nothing
            break
    return min(trials, key=lambda trial: trial.errors)


def _ranked(
    decoder: Decoder,
    neural: NeuralLm | OnnxLm,
    scores: Padded,
    count: Callable[[Sequence[str]], int],
    beams: Sequence[Trial],
) -> tuple[Decoder, Trial]:
    """The best beam with rescoring by a recurrent language model, and the decoder without that
    model if it does not help."""
    ranked = [_rescored(decoder, neural, scores, count, beam) for beam in beams]
    best = min(ranked, key=lambda trial: (trial.errors, trial.size))
    if best.rescore is not None and best.rescore.weight == 0:
        decoder = replace(decoder, neural=None)
    return decoder, best


def _rescored(
    decoder: Decoder,
    neural: NeuralLm | OnnxLm,
    scores: Padded,
    count: Callable[[Sequence[str]], int],
    best: Trial,
) -> Trial:
    """Tune weight and word bonus of the recurrent language model, jointly with a lower or equal
    weight of the n-gram model. Of equal results, the smallest change wins."""
    trials = [replace(best, rescore=RescoreConfig(weight=0, word_bonus=0))]
    for weight in (weight for weight in reversed(WEIGHTS) if weight <= best.weight):
        first = replace(best, weight=weight, bonus=best.bonus if weight else 0.0)
        alone = replace(_settled(decoder, first, ""), neural=None)
        found = alone.n_best(scores, best.size)
        known = text_scores(neural, found)
        for own, bonus in itertools.product(WEIGHTS[1:], BONUSES):
            config = RescoreConfig(weight=own, word_bonus=bonus)
            texts = [rows[0].text for rows in rescored(found, known, config)]
            trials.append(replace(first, errors=count(texts), rescore=config))
    return min(trials, key=lambda trial: trial.errors)


def _settled(decoder: Decoder, best: Trial, tuned: str) -> Decoder:
    """The decoder with the settings of a trial; `tuned` describes the data."""
    config = decoder.config
    weights = {"weight": best.weight, "word_bonus": best.bonus}
    changes = {
        "language": config.language.model_copy(update=weights),
        "beam": config.beam.model_copy(update={"size": best.size}),
        "rescore": best.rescore or config.rescore,
        "attention_weight": best.attention or 0.0,
        "tuned": tuned,
    }
    return replace(decoder, config=config.model_copy(update=changes))


def _with_confidence_scale(
    decoder: Decoder, scores: Padded, names: Sequence[str], references: Mapping[str, str]
) -> Decoder:
    """The decoder with the confidence scale of the highest likelihood on the dev set."""
    found = dict(zip(names, decoder.evidence(scores), strict=True))
    judged = score(references, {name: text for name, (text, _) in found.items()}).utterances
    evidence = [found[row.id][1] for row in judged]
    scale = fit_scale(evidence, [row.right for row in judged])
    return replace(decoder, config=decoder.config.model_copy(update={"confidence_scale": scale}))


def _trial(
    scores: Padded,
    count: Callable[[Sequence[str]], int],
    decoder: Decoder,
    language: Language,
    weight: float,
    bonus: float,
    size: int,
) -> Trial:
    weighed = language._replace(weight=weight, word_bonus=bonus)
    beam = decoder.config.beam.model_copy(update={"size": size})
    found = beam_decode(scores, weighed, beam)
    texts = [decoder.tokens.decode(best[0].ids) for best in found]
    return Trial(weight, bonus, size, count(texts))


def _most_robust(trials: Sequence[Trial]) -> Trial:
    """The fewest errors; of equals, the middle of the best neighbourhood."""
    errors = {(trial.weight, trial.bonus): trial.errors for trial in trials}

    def around(trial: Trial) -> float:
        i, j = WEIGHTS.index(trial.weight), BONUSES.index(trial.bonus)
        near = [
            errors[weight, bonus]
            for weight in WEIGHTS[max(0, i - 1) : i + 2]
            for bonus in BONUSES[max(0, j - 1) : j + 2]
        ]
        return sum(near) / len(near)

    return min(trials, key=lambda trial: (trial.errors, around(trial)))


def picture_folder(model: Path) -> Path:
    """A folder beside the model's folder, with its name, since other models may be there too. The
    model's folder itself is replaced when it is trained again."""
    named = model if model.name not in ("", "..") else model.resolve()
    return named.with_name(f"{named.name}-tuning")


def write_tuning(result: Tuning, out: Path) -> None:
    """Write tuning.json and tuning.png: errors by weight, word bonus and beam, and the choice."""
    out.mkdir(parents=True, exist_ok=True)
    values = {
        "units": result.units,
        "words": result.words,
        "best": _plain(result.best),
        "trials": [_plain(trial) for trial in result.trials],
    }
    write_json(out / "tuning.json", values)
    _draw(result, out / "tuning.png")


def to_text(result: Tuning, name: str) -> str:
    """The choice, and its result on the development set of this name."""
    best, rescoring = result.best, ""
    if best.attention is not None:
        rescoring = f", attention decoder with weight {best.attention:g}"
    if best.rescore is not None and best.rescore.weight == 0:
        rescoring += ", not rescored (no gain)"
    elif best.rescore is not None:
        rescoring += f", rescored with weight {best.rescore.weight:g}, "
        rescoring += f"word bonus {best.rescore.word_bonus:g}"
    return (
        f"weight {best.weight:g}, word bonus {best.bonus:g}, beam {best.size}{rescoring}: "
        f"{best.errors} errors in {result.words} {result.units} of {name}"
    )


def _plain(trial: Trial) -> dict[str, object]:
    rescore = None if trial.rescore is None else trial.rescore.model_dump()
    return asdict(trial) | {"rescore": rescore}


def _draw(result: Tuning, path: Path) -> None:
    plt = pyplot(path)
    surface = result.trials[: len(WEIGHTS) * len(BONUSES)]
    errors = {(trial.weight, trial.bonus): trial.errors for trial in surface}
    rates = [[100 * errors[w, b] / result.words for w in WEIGHTS] for b in BONUSES]
    lowest = min(map(min, rates))
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    # Above three times the best, all errors are equally bad.
    image = axes.imshow(rates, origin="lower", cmap="viridis_r", vmax=3 * max(lowest, 1))
    for i, row in enumerate(rates):
        for j, rate in enumerate(row):
            colour = "white" if rate > 2 * max(lowest, 1) else "black"
            axes.text(j, i, f"{rate:.1f}", ha="center", va="center", fontsize=8, color=colour)
    place = WEIGHTS.index(result.best.weight), BONUSES.index(result.best.bonus)
    axes.plot(*place, "s", markersize=30, markerfacecolor="none", markeredgecolor="tab:red")
    axes.set_xticks(range(len(WEIGHTS)), [f"{weight:g}" for weight in WEIGHTS])
    axes.set_yticks(range(len(BONUSES)), [f"{bonus:g}" for bonus in BONUSES])
    axes.set_xlabel("weight of the language model")
    axes.set_ylabel("bonus for a word, nats")
    what = f"{result.units.removesuffix('s')} error rate"
    axes.set_title(f"{what} on dev, %, with a beam of {SEARCH_SIZE}; the choice is framed")
    figure.colorbar(image, label=f"{what}, %")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
