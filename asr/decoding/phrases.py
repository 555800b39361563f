"""Hot words and phrases as an automaton over characters, for the beam search.

The automaton is that of Aho and Corasick 1975, "Efficient string matching: an aid to bibliographic
search". The context graphs of icefall and sherpa-onnx apply it to tokens. Over characters it does
not depend on how a word is cut into tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from asr.decoding.fusion_kernel import OFF, Floats, Phrases
from asr.decoding.trie import best_below, build_trie
from asr.lm.ngram import Ints
from asr.text.tokens import WORD_START


def build_phrases(
    bonuses: Mapping[str, float], alphabet: Mapping[str, int], longest_unit: int
) -> Phrases:
    """The automaton of hot words and phrases, at least one, with their bonuses in nats.

    Words of a phrase are separated by single spaces. Their characters and the word-start mark are
    in `alphabet`. `longest_unit` is the largest number of characters in a token.
    """
    spelled = [phrase.replace(" ", WORD_START) for phrase in bonuses]
    first_child, characters, ends, parents = build_trie(spelled, alphabet)
    mark, parent = alphabet[WORD_START], np.concatenate(parents)
    begins_word = characters == mark
    begins_word[0] = True
    fallback = _fallbacks(characters, parent, mark)
    sizes = [len(level) for level in parents]
    levels = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]

    def combine(values: Floats, operation: np.ufunc) -> Floats:
        """The value of each node combined with those of its fallbacks, which are less deep."""
        for level in levels:
            others = np.where(fallback[level] >= 0, values[fallback[level]], 0.0)
            values[level] = operation(values[level], others)
        return values

    bonus = np.zeros(len(characters))
    bonus[ends] = list(bonuses.values())
    bonus = combine(bonus, np.add)
    depth = np.repeat(np.arange(float(len(levels))), sizes)
    share = best_below(parents, ends, bonus[ends] / np.maximum(depth[ends], 1))
    ahead = combine(depth * np.maximum(share, 0.0), np.maximum)
    # The largest share within the characters of one token: its first leads to a child, each of the
    # others at most one node further.
    reach = ahead
    for _ in range(longest_unit - 1):
        longer = reach.copy()
        np.maximum.at(longer, parent[1:], reach[1:])
        reach = combine(longer, np.maximum)
    within, new = np.zeros(len(ahead)), np.where(begins_word, reach, reach[0])
    for most, steps in ((within, characters != mark), (new, characters == mark)):
        steps[0] = False
        np.maximum.at(most, parent[steps], reach[steps])
        combine(most, np.maximum)
    return Phrases(
        mark=mark,
        first_child=first_child,
        character=characters,
        fallback=fallback,
        begins_word=begins_word,
        bonus=bonus,
        ahead=ahead,
        ahead_within=within,
        ahead_new=new,
    )


def _fallbacks(characters: Ints, parent: NDArray[np.int64], mark: int) -> Ints:
    """For every node, the node of its longest proper suffix that begins with a whole word. Without
    one it is the root after a word-start mark, and `OFF` within a word. Shape: [N]."""
    keys = list(zip(parent.tolist(), characters.tolist(), strict=True))
    child = {key: node for node, key in enumerate(keys) if node}
    fallback = [OFF]
    for above, character in keys[1:]:
        shorter = fallback[above]
        while shorter != OFF and (shorter, character) not in child:
            shorter = fallback[shorter]
        none = 0 if character == mark else OFF
        fallback.append(none if shorter == OFF else child[shorter, character])
    return np.array(fallback, np.int32)
