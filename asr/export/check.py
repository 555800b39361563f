"""The error rates of a model and of its exported graph on the same recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asr.dataset.manifest import read_manifest
from asr.dataset.shards import load_recording
from asr.decoding.greedy import greedy_decode
from asr.errors import AsrError
from asr.evaluation.error_rate import ErrorCounts, score
from asr.inference.onnx_model import Floats, LogProbs
from asr.models.bundle import Bundle

MOST_WORSE = 0.5  # percentage points of word error rate

Score = Callable[[list[Floats]], list[LogProbs]]


@dataclass(frozen=True)
class Comparison:
    """Word errors with greedy decoding, by torch and by the graph."""

    torch: ErrorCounts
    graph: ErrorCounts
    same: int
    """Recordings whose texts are equal."""
    total: int

    def __str__(self) -> str:
        return (
            f"WER {self.graph} exported, {self.torch} in torch; "
            f"{self.same} of {self.total} texts are equal"
        )


def compare_words(
    bundle: Bundle,
    in_torch: Score,
    in_graph: Score,
    manifest: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Recognize a manifest with both, greedily, one utterance at a time.

    Raises AsrError for a bad manifest or recording, and if the graph is worse by more than
    `MOST_WORSE`.
    """
    utterances = read_manifest(manifest)
    references: dict[str, str] = {}
    texts: tuple[dict[str, str], dict[str, str]] = {}, {}
    for done, u in enumerate(utterances, start=1):
        wave = load_recording(u.audio, bundle.sample_rate, u.start, u.end, u.packed)
        references[u.id] = bundle.normalise(u.text)
        for found, scores in zip(texts, (in_torch, in_graph), strict=True):
            (ids,) = greedy_decode([row.log_probs for row in scores([wave])])
            found[u.id] = bundle.tokens.decode(ids)
        progress(done, len(utterances))
    counts = [score(references, found).words for found in texts]
    same = sum(texts[0][name] == texts[1][name] for name in references)
    result = Comparison(counts[0], counts[1], same, len(references))
    if 100 * (result.graph.rate - result.torch.rate) > MOST_WORSE:
        raise AsrError(
            f"expected an exported model at most {MOST_WORSE:g} points worse, got {result}: export "
            "it without --int8"
        )
    return result
