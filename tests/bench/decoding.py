"""Beam search: ours against flashlight-text's C++ decoder, on the same log-probabilities.

The peer is installed by `make bench` alone. Neither drops units within a frame, both drop prefixes
25 nats below the best. What is compared is the score of the best text, added up over all its paths
by an algorithm that neither uses: CTC's forward pass.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from asr.decoding.beam import beam_decode
from asr.decoding.config import BeamConfig, LanguageConfig
from asr.decoding.fusion import build_language
from asr.decoding.fusion_kernel import Language
from asr.lm.estimate import estimate
from asr.lm.ngram import NgramModel
from asr.lm.storage import save_ngram
from asr.padded import pad
from asr.text.tokens import BLANK, BLANK_ID, WORD_START, Tokens
from tests.bench.timing import interleave, print_table, threads, verdict

T = 400
SILENCE = "#"  # a unit that is never heard: flashlight asks for one
TOKENS = Tokens((BLANK, WORD_START, *"abcdefghijklmnopqrstuvwxyz", "'", "-", ".", SILENCE))
WORDS, SENTENCES = 5000, 20000
WEIGHT, BONUS, NATS = 0.5, 1.0, 25.0
NEVER = -1e4
ROUNDS = 3
SLACK = 1e-2  # nats, of float32 sums

Decode = Callable[[Sequence[np.ndarray]], list[str]]


@dataclass(frozen=True)
class Task:
    """A beam size, how many utterances to decode with it, how many times as fast is the goal."""

    size: int
    utterances: int
    goal: float
    lexicon: bool


TASKS = (
    Task(50, 20, 5, False),
    Task(500, 4, 5, False),
    Task(50, 20, 1, True),
    Task(500, 4, 1, True),
)


def run() -> None:
    """Print a table for each task, or say that the peer is missing."""
    try:
        import flashlight.lib.text.decoder as peer
    except ImportError:
        print("\ndecoding: flashlight-text is not installed (make bench installs it)")
        return
    random = np.random.default_rng(0)
    words = _words(random)
    model = estimate([" ".join(_sentence(words, random)) for _ in range(SENTENCES)], 3)
    rows = [_heard(" ".join(_sentence(words, random)), random) for _ in range(20)]
    with tempfile.TemporaryDirectory() as folder, threads(1):
        arpa = Path(folder) / "lm.arpa"
        save_ngram(arpa, model)
        for task in TASKS:
            _race(peer, task, words, model, arpa, rows[: task.utterances])


def _words(random: np.random.Generator) -> list[str]:
    """Made-up words of two to nine letters."""
    letters = [unit for unit in TOKENS.units if unit.isalpha() and unit.isascii()]
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found["".join(random.choice(letters, random.integers(2, 10)))] = None
    return list(found)


def _sentence(words: Sequence[str], random: np.random.Generator) -> list[str]:
    """Some are frequent, most are rare."""
    places = np.minimum(random.zipf(1.3, random.integers(3, 20)) - 1, len(words) - 1)
    return [words[i] for i in places]


def _heard(text: str, random: np.random.Generator) -> np.ndarray:
    """Log-probabilities of a recogniser that is often unsure. Shape: [T, V]."""
    units = TOKENS.encode(text)[: T // 3]
    logits = 1.5 * random.standard_normal((T, len(TOKENS)))
    logits[:, BLANK_ID] += 4
    places = np.sort(random.choice(T // 2, len(units), replace=False)) * 2
    logits[places, units] += 6
    logits[:, TOKENS.units.index(SILENCE)] = NEVER
    log_probs: np.ndarray = torch.from_numpy(logits).log_softmax(dim=1).float().numpy()
    return log_probs


def _race(
    peer: Any,
    task: Task,
    words: Sequence[str],
    model: NgramModel,
    arpa: Path,
    rows: Sequence[np.ndarray],
) -> None:
    if task.lexicon:
        language = build_language(
            TOKENS, model, LanguageConfig(weight=WEIGHT, word_bonus=BONUS), words
        )
        theirs = _with_lexicon(peer, task.size, words, arpa)
        name = f"lexicon of {WORDS} words, 3-gram"
    else:
        language = build_language(TOKENS)
        theirs = _without(peer, task.size)
        name = "no lexicon"
    contestants: dict[str, Decode] = {
        "ours": lambda some: [_ours([row], task.size, language)[0] for row in some],
        "flashlight": theirs,
        "ours, two threads": lambda some: _ours(some, task.size, language),
        "flashlight, two threads": lambda some: _in_two(theirs, some),
    }
    scores = {
        who: [
            _score(text, row, model if task.lexicon else None)
            for text, row in zip(texts, rows, strict=True)
        ]
        for who, texts in ((who, decode(rows)) for who, decode in contestants.items())
    }
    seconds = interleave({who: _bound(decode, rows) for who, decode in contestants.items()}, ROUNDS)
    print_table(
        f"decoding: T={T} V={len(TOKENS)}, {name}, beam {task.size}, {len(rows)} utterances, "
        f"median of {ROUNDS}",
        ["", "utterances a second", "mean score of the best text, nats"],
        [
            [who, f"{len(rows) / s:.1f}", f"{np.mean(scores[who]):.3f}"]
            for who, s in seconds.items()
        ],
    )
    pairs = list(zip(scores["ours"], scores["flashlight"], strict=True))
    worse = sum(mine < other - SLACK for mine, other in pairs)
    better = sum(mine > other + SLACK for mine, other in pairs)
    print(f"  ours is better in {better} of {len(pairs)} utterances, worse in {worse}")
    gain = seconds["flashlight"] / seconds["ours"]
    verdict("speed, one thread", gain, f">= {task.goal:g}", gain >= task.goal)
    gain = seconds["flashlight, two threads"] / seconds["ours, two threads"]
    verdict("speed, two threads", gain, f">= {task.goal:g}", gain >= task.goal)


def _bound(decode: Decode, rows: Sequence[np.ndarray]) -> Callable[[], object]:
    return lambda: decode(rows)


def _ours(rows: Sequence[np.ndarray], size: int, language: Language) -> list[str]:
    config = BeamConfig(size=size, nats=NATS, token_nats=1e4)
    found = beam_decode(pad([torch.from_numpy(row) for row in rows]), language, config)
    return [TOKENS.decode(best[0].ids) for best in found]


def _in_two(decode: Decode, rows: Sequence[np.ndarray]) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(decode, (rows[::2], rows[1::2]))
    texts = [""] * len(rows)
    texts[::2], texts[1::2] = halves
    return texts


def _score(text: str, row: np.ndarray, model: NgramModel | None) -> float:
    """Of all paths that write the text, and of its words."""
    targets = torch.tensor([TOKENS.encode(text)])
    lengths = torch.tensor([len(row)]), torch.tensor([targets.shape[1]])
    log_probs = torch.from_numpy(row).double()[:, None]
    score = -functional.ctc_loss(log_probs, targets, *lengths, reduction="sum").item()
    if model is None:
        return score
    known = math.fsum(word.log_prob for word in model.score_sentence(text.split()))
    return score + WEIGHT * known + BONUS * len(text.split())


# --- the peer ---


def _without(peer: Any, size: int) -> Decode:
    options = peer.LexiconFreeDecoderOptions(
        beam_size=size,
        beam_size_token=len(TOKENS),
        beam_threshold=NATS,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=peer.CriterionType.CTC,
    )
    silence = TOKENS.units.index(SILENCE)

    def decode(rows: Sequence[np.ndarray]) -> list[str]:
        decoder = peer.LexiconFreeDecoder(options, peer.ZeroLM(), silence, BLANK_ID, [])
        return [_text(decoder.decode(row.ctypes.data, *row.shape)[0].tokens) for row in rows]

    return decode


def _with_lexicon(peer: Any, size: int, words: Sequence[str], arpa: Path) -> Decode:
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    known = Dictionary([*words, "<unk>"])
    language = KenLM(str(arpa), known)
    silence = TOKENS.units.index(SILENCE)
    trie, start = peer.Trie(len(TOKENS), silence), language.start(False)
    for word in words:
        place = known.get_index(word)
        _, score = language.score(start, place)
        trie.insert(TOKENS.encode(word), place, score)
    trie.smear(peer.SmearingMode.MAX)
    options = peer.LexiconDecoderOptions(
        beam_size=size,
        beam_size_token=len(TOKENS),
        beam_threshold=NATS,
        lm_weight=WEIGHT * math.log(10),  # KenLM scores in decades
        word_score=BONUS,
        unk_score=-math.inf,
        sil_score=0.0,
        log_add=True,
        criterion_type=peer.CriterionType.CTC,
    )
    unknown = known.get_index("<unk>")

    def decode(rows: Sequence[np.ndarray]) -> list[str]:
        decoder = peer.LexiconDecoder(
            options, trie, language, silence, BLANK_ID, unknown, [], False
        )
        return [_text(decoder.decode(row.ctypes.data, *row.shape)[0].tokens) for row in rows]

    return decode


def _text(path: Sequence[int]) -> str:
    """Repeated units once, blanks and silences not at all."""
    silence = TOKENS.units.index(SILENCE)
    edges = [i for i, unit in enumerate(path) if i == 0 or path[i - 1] != unit]
    return TOKENS.decode(path[i] for i in edges if path[i] not in (BLANK_ID, silence))
