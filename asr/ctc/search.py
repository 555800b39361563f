"""CTC prefix beam search, compiled by numba (Hannun et al. 2014, algorithm 1; Graves 2012, 7.5.2).

A beam holds prefixes, and of each the probability of all paths that write it and end with a blank,
and of those that end with its last unit. Paths that meet in one prefix are added, and what is kept
after a frame are the best of all prefixes that can be reached. Scores are natural logarithms.

K prefixes in the beam, V units, N nodes of the tree of all prefixes that were ever in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.lm.lookup import advance, compiled, inner
from asr.lm.ngram import Arrays, Ints

Floats = NDArray[np.float64]

NO_MODEL, WORD_MODEL, CHARACTER_MODEL = range(3)
BLANK = 0
OFF = -1  # a word that is not in the lexicon, a prefix that is not in the beam, no child


class Language(NamedTuple):
    """What is known of text besides sound; see `asr.ctc.language`, which builds it.

    `kind` says what the n-gram model is of; a sentence begins at its node `start` and ends with its
    word `end`. The lexicon is a trie: the children of a node stand
    together, sorted by their character; `word` is the model's id of the word that ends there, or
    `OFF`. A unit's characters are places in the alphabet, mark of a word's start included.
    """

    kind: int
    ngram: Arrays
    start: int
    end: int
    first_child: Ints
    character: Ints
    word: Ints
    boost: Floats
    lexicon_only: bool
    unit_characters: Ints
    unit_first: Ints
    starts_word: NDArray[np.bool_]
    character_words: Ints
    weight: float
    word_bonus: float
    unknown_score: float


class Nodes(NamedTuple):
    """The tree of prefixes; the root is 0, and `used` says how many there are. Shape: each [N].

    `place` is where in the beam a prefix is. `language` is the score of its words so far; `context`
    the n-gram context after its last whole word, `spelled` the node of the lexicon that its last
    word has come to; `end_score` and `end_context` are what the end of that word brings.
    """

    used: Ints
    parent: Ints
    unit: Ints
    child: Ints
    sibling: Ints
    place: Ints
    language: Floats
    context: Ints
    spelled: Ints
    end_score: Floats
    end_context: Ints


class Beam(NamedTuple):
    """The prefixes held, of which `used` says the number. Shape: each [K]."""

    used: Ints
    node: Ints
    blank: Floats
    label: Floats


class Work(NamedTuple):
    """Room for one frame. `first_longer` and `next_longer` list, for each prefix of the beam, those
    in it that are one unit longer; candidates are the K that stay and then the new ones, of which
    `sources` are the places of the shorter prefixes and `units` what is added."""

    totals: Floats
    blanks: Floats
    labels: Floats
    first_longer: Ints
    next_longer: Ints
    taken: Ints
    scores: Floats
    sorted_scores: Floats
    sources: Ints
    units: Ints
    node: Ints
    blank: Floats
    label: Floats


@compiled
def logadd(a, b):
    if a < b:
        a, b = b, a
    if b == -np.inf:
        return a
    return a + np.log1p(np.exp(b - a))


@inner
def spell(language, spelled, character):
    """The lexicon's node one character on, or OFF."""
    if spelled < 0:
        return OFF
    for child in range(language.first_child[spelled], language.first_child[spelled + 1]):
        if language.character[child] == character:
            return child
    return OFF


@inner
def end_word(language, context, spelled):
    """What the end of a word adds to the score, and the context after it."""
    if spelled == 0:
        return 0.0, context  # nothing was spelled
    word = OFF if spelled < 0 else language.word[spelled]
    if word == OFF and language.lexicon_only:
        return -np.inf, context
    score = language.word_bonus
    if word != OFF:
        score += language.boost[spelled]
    if language.kind == WORD_MODEL:
        known, context = advance(*language.ngram, context, max(word, 0))
        score += language.weight * known
        if word <= 0:
            score += language.unknown_score
    return score, context


@inner
def extend(language, nodes, node, unit):
    """What a unit adds to the score of a prefix, and context and lexicon node after it."""
    score, context, spelled = 0.0, nodes.context[node], nodes.spelled[node]
    first, last = language.unit_first[unit], language.unit_first[unit + 1]
    if language.starts_word[unit]:
        score, spelled = nodes.end_score[node], 0
        if language.kind == WORD_MODEL:
            context = nodes.end_context[node]
    for i in range(first, last):
        character = language.unit_characters[i]
        if language.kind == CHARACTER_MODEL:
            known, context = advance(*language.ngram, context, language.character_words[character])
            score += language.weight * known
        if i > first or not language.starts_word[unit]:
            spelled = spell(language, spelled, character)
    if spelled == OFF and language.lexicon_only:
        score = -np.inf
    return score, context, spelled


@inner
def add_node(language, nodes, parent, unit):
    """The node of a prefix one unit longer, which may have been in the beam before."""
    node = nodes.child[parent]
    while node >= 0:
        if nodes.unit[node] == unit:
            return node
        node = nodes.sibling[node]
    node = nodes.used[0]
    nodes.used[0] += 1
    nodes.parent[node], nodes.unit[node] = parent, unit
    nodes.sibling[node], nodes.child[parent] = nodes.child[parent], node
    nodes.child[node] = nodes.place[node] = OFF
    score, nodes.context[node], nodes.spelled[node] = extend(language, nodes, parent, unit)
    nodes.language[node] = nodes.language[parent] + score
    nodes.end_score[node], nodes.end_context[node] = end_word(
        language, nodes.context[node], nodes.spelled[node]
    )
    return node


@compiled
def kth_largest(values, count, k):
    """The k-th largest of the first `count` values, which are put in another order (Hoare 1961)."""
    low, high, target = 0, count - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return values[target]


@inner
def stay(row, nodes, beam, work):
    """Every prefix of the beam one frame on, paths from its shorter prefix in the beam included.
    The score of the best, and that of the worst."""
    used, best, worst = beam.used[0], -np.inf, np.inf
    for i in range(used):
        work.totals[i] = logadd(beam.blank[i], beam.label[i])
        work.first_longer[i] = OFF
    for i in range(used):
        node = beam.node[i]
        blank, label = work.totals[i] + row[BLANK], -np.inf
        if node != 0:
            parent, unit = nodes.parent[node], nodes.unit[node]
            label = beam.label[i] + row[unit]
            shorter = nodes.place[parent]
            if shorter >= 0:
                work.next_longer[i] = work.first_longer[shorter]
                work.first_longer[shorter] = i
                label = logadd(label, lengthened(nodes, beam, work, shorter, unit) + row[unit])
        work.blanks[i], work.labels[i] = blank, label
        score = logadd(blank, label) + nodes.language[node]
        work.scores[i] = score
        best, worst = max(best, score), min(worst, score)
    return best, worst


@inner
def lengthened(nodes, beam, work, place, unit):
    """Paths of a prefix that `unit` can follow: after the same unit, only those with a blank."""
    node = beam.node[place]
    doubled = node != 0 and nodes.unit[node] == unit
    return beam.blank[place] if doubled else work.totals[place]


@inner
def propose(row, order, nodes, beam, language, work, floor, least):
    """List the prefixes that are one unit longer, not in the beam, and score more than `floor`, of
    units that score `least`; how many candidates there are, those that stay included.

    Shape: row [V], order [V]: the units, best first.
    """
    count = beam.used[0]
    for i in range(beam.used[0]):
        node = beam.node[i]
        longer = work.first_longer[i]
        while longer != OFF:
            work.taken[nodes.unit[beam.node[longer]]] = i
            longer = work.next_longer[longer]
        so_far, end = nodes.language[node], nodes.end_score[node]
        most = work.totals[i] + so_far + max(0.0, end)
        for unit in order:
            if row[unit] < least or most + row[unit] <= floor:
                break
            if unit == BLANK or work.taken[unit] == i:
                continue
            score = lengthened(nodes, beam, work, i, unit) + row[unit] + so_far
            if language.kind == CHARACTER_MODEL or language.lexicon_only:
                score += extend(language, nodes, node, unit)[0]
            elif language.starts_word[unit]:
                score += end
            if score > floor:
                work.scores[count], work.sources[count], work.units[count] = score, i, unit
                count += 1
        longer = work.first_longer[i]
        while longer != OFF:
            work.taken[nodes.unit[beam.node[longer]]] = OFF
            longer = work.next_longer[longer]
    return count


@inner
def keep(row, nodes, beam, language, work, count, floor):
    """Make the best of `count` candidates the beam."""
    used, size = beam.used[0], len(beam.node)
    if count > size:
        for i in range(count):
            work.sorted_scores[i] = work.scores[i]
        floor = max(floor, kth_largest(work.sorted_scores, count, size))
    for i in range(used):
        nodes.place[beam.node[i]] = OFF
    kept = 0
    for i in range(count):
        if work.scores[i] < floor or work.scores[i] == -np.inf or kept == size:
            continue
        if i < used:
            work.node[kept], work.blank[kept] = beam.node[i], work.blanks[i]
            work.label[kept] = work.labels[i]
        else:
            source, unit = work.sources[i], work.units[i]
            work.node[kept] = add_node(language, nodes, beam.node[source], unit)
            work.blank[kept] = -np.inf
            work.label[kept] = lengthened(nodes, beam, work, source, unit) + row[unit]
        kept += 1
    beam.used[0] = kept
    for i in range(kept):
        beam.node[i], beam.blank[i], beam.label[i] = work.node[i], work.blank[i], work.label[i]
        nodes.place[beam.node[i]] = i


@compiled
def search(log_probs, order, nodes, beam, work, language, beam_nats, token_nats):
    """Read frames, and leave the best prefixes after them in `beam`.

    Shape: log_probs [T, V], order [T, V]: the units of each frame, best first. `nodes` needs room
    for K * T more.
    """
    for t in range(len(log_probs)):
        row = log_probs[t]
        best, worst = stay(row, nodes, beam, work)
        floor = best - beam_nats
        # Where the beam is full, no prefix worse than all in it can come in.
        bar = max(floor, worst) if beam.used[0] == len(beam.node) else floor
        least = row[order[t, 0]] - token_nats
        count = propose(row, order[t], nodes, beam, language, work, bar, least)
        keep(row, nodes, beam, language, work, count, floor)
