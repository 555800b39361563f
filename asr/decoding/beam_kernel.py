"""CTC prefix beam search, compiled by numba (Hannun et al. 2014, algorithm 1; Graves 2012, 7.5.2).

A beam holds prefixes. Each has the total probability of its paths that end with a blank, and of
those that end with its last token. Paths that lead to the same prefix are added. After each frame,
the best of all reachable prefixes are kept. Scores are natural logarithms.

K prefixes in the beam, V tokens, N nodes of the tree of all prefixes that were ever in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.decoding.fusion_kernel import (
    CHARACTER_MODEL,
    NO_MODEL,
    OFF,
    WORD_MODEL,
    Floats,
    end_word,
    look_ahead,
    match_shares,
    match_unit,
    spell_out,
    spell_unit,
    weighted,
)
from asr.jit import compiled, inner
from asr.lm.ngram import Ints

BLANK = 0


class Nodes(NamedTuple):
    """The tree of prefixes; the root is 0, and `used` is the number of nodes. Shape: each [N].

    `place` is the index of a prefix in the beam. `language` is the score of its words so far;
    `context` the n-gram context after its last complete word; `spelled` the lexicon node of its
    last, partial word; `phrase` its node of hot phrases. `end_score` and `end_context` are the
    score and context if that word ends here; `ahead` is the highest score that it may get if it
    ends later, with a share of a hot phrase's bonus.
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
    phrase: Ints
    end_score: Floats
    end_context: Ints
    ahead: Floats


class Beam(NamedTuple):
    """The prefixes in the beam; `used` is their number. Shape: each [K]."""

    used: Ints
    node: Ints
    blank: Floats
    label: Floats


class Work(NamedTuple):
    """Buffers for one frame. `first_longer` and `next_longer` list, for each prefix of the beam,
    the prefixes in it that are one token longer. Candidates are the K present prefixes and then the
    new ones: `units` are their last tokens; `spelled`, `matched` (`phrase` in `Nodes`) and
    `contexts` are as in `Nodes`; `sources` are the indices of the new ones' shorter prefixes.
    `table` finds candidates with the same future."""

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
    spelled: Ints
    matched: Ints
    contexts: Ints
    table: Ints
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
def extend(language, nodes, node, unit):
    """The score that a token adds to a prefix, and context and lexicon node after it."""
    score, context = 0.0, nodes.context[node]
    spelled = spell_unit(language, nodes.spelled[node], unit)
    if language.starts_word[unit]:
        score = nodes.end_score[node]
        if language.kind == WORD_MODEL:
            context = nodes.end_context[node]
    if language.kind == CHARACTER_MODEL:
        known, context = spell_out(language, context, unit)
        score += weighted(language, known)
    if spelled == OFF and language.lexicon_only:
        score = -np.inf
    return score, context, spelled


@inner
def add_node(language, phrases, nodes, parent, unit):
    """The node of a prefix with one more token, which may have been in the beam before."""
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
    nodes.ahead[node] = look_ahead(language, nodes.spelled[node])
    if phrases is not None:
        phrase = match_unit(language, phrases, nodes.phrase[parent], unit)
        nodes.phrase[node] = phrase
        if phrase != OFF:
            nodes.end_score[node] += phrases.bonus[phrase]
            nodes.ahead[node] += phrases.ahead[phrase]
    return node


@compiled
def kth_largest(values, count, k):
    """The k-th largest of the first `count` values, which are reordered (Hoare 1961)."""
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
def stay(row, phrases, nodes, beam, work):
    """Advance every prefix of the beam by one frame, including paths from its shorter prefix in the
    beam. Returns the best and the worst score."""
    used, best, worst = beam.used[0], -np.inf, np.inf
    units, spelled, contexts, matched = work.units, work.spelled, work.contexts, work.matched
    for i in range(used):
        work.totals[i] = logadd(beam.blank[i], beam.label[i])
        work.first_longer[i] = OFF
    for i in range(used):
        node = beam.node[i]
        units[i], spelled[i], contexts[i] = BLANK, nodes.spelled[node], nodes.context[node]
        if phrases is not None:
            matched[i] = nodes.phrase[node]
        blank, label = work.totals[i] + row[BLANK], -np.inf
        if node != 0:
            parent, unit = nodes.parent[node], nodes.unit[node]
            units[i] = unit
            label = beam.label[i] + row[unit]
            shorter = nodes.place[parent]
            if shorter >= 0:
                work.next_longer[i] = work.first_longer[shorter]
                work.first_longer[shorter] = i
                label = logadd(label, lengthened(nodes, beam, work, shorter, unit) + row[unit])
        work.blanks[i], work.labels[i] = blank, label
        score = logadd(blank, label) + nodes.language[node] + nodes.ahead[node]
        work.scores[i] = score
        best, worst = max(best, score), min(worst, score)
    return best, worst


@inner
def lengthened(nodes, beam, work, place, unit):
    """Paths of a prefix that `unit` can follow: after the same token, only those with a blank."""
    node = beam.node[place]
    doubled = node != 0 and nodes.unit[node] == unit
    return beam.blank[place] if doubled else work.totals[place]


@inner
def take(nodes, beam, work, i, value):
    """Set `taken` for the last tokens of the prefixes in the beam that are one token longer."""
    longer = work.first_longer[i]
    while longer != OFF:
        work.taken[nodes.unit[beam.node[longer]]] = value
        longer = work.next_longer[longer]


# Tokens come best first, so `propose` ends at the first that cannot reach the floor with the most
# that the language may add. Within the word no continuation exceeds the present look-ahead, with
# the best share of a hot phrase in place of the present one. A token that begins a word adds the
# score of ending this one and the look-ahead of an empty word.
@inner
def propose(row, order, nodes, beam, language, phrases, work, floor, least):
    """List the prefixes that are one token longer, not in the beam, and score more than `floor`,
    for tokens that score at least `least`. Returns the number of candidates, including those that
    stay.

    Shape: row [V], order [V]: the tokens, best first.
    """
    count = beam.used[0]
    empty = look_ahead(language, 0)
    # Otherwise the added score depends only on whether the token begins a word.
    spells = language.kind != NO_MODEL or language.lexicon_only
    # Local names here and below: access to a tuple of arrays is slow inside a loop.
    taken, scores, sources = work.taken, work.scores, work.sources
    starts_word = language.starts_word
    units, spells_to, contexts, matched = work.units, work.spelled, work.contexts, work.matched
    for i in range(beam.used[0]):
        node = beam.node[i]
        take(nodes, beam, work, i, i)
        so_far, end, ahead = nodes.language[node], nodes.end_score[node], nodes.ahead[node]
        before, total, blank = nodes.spelled[node], work.totals[i], beam.blank[i]
        last = nodes.unit[node] if node != 0 else OFF
        context, after = nodes.context[node], nodes.end_context[node]
        matching = nodes.phrase[node]
        share, share_within, share_new = match_shares(phrases, matching)
        most_within, most_new = ahead - share + share_within, end + empty + share_new
        most = total + so_far + max(most_within, most_new)
        for unit in order:
            acoustic = row[unit]
            if acoustic < least or most + acoustic <= floor:
                break
            if unit == BLANK or taken[unit] == i:
                continue
            score = (blank if unit == last else total) + acoustic + so_far
            begins, spelled = starts_word[unit], before
            if spells:
                if score + (most_new if begins else most_within) <= floor:
                    continue
                spelled = spell_unit(language, before, unit)
                if spelled == OFF and language.lexicon_only:
                    continue
                score += look_ahead(language, spelled)
                if language.kind == CHARACTER_MODEL:
                    known, _ = spell_out(language, context, unit)
                    score += weighted(language, known)
            if begins:
                score += end
            if phrases is not None:
                if score + (share_new if begins else share_within) <= floor:
                    continue
                if begins or matching != OFF:
                    matched[count] = match_unit(language, phrases, matching, unit)
                    score += match_shares(phrases, matched[count])[0]
                else:
                    matched[count] = OFF
            if score > floor:
                scores[count], sources[count], units[count] = score, i, unit
                spells_to[count], contexts[count] = spelled, after if begins else context
                count += 1
        take(nodes, beam, work, i, OFF)
    return count


@inner
def after_blank(nodes, beam, work, i):
    """Score of a candidate's paths that end with a blank."""
    if i >= beam.used[0]:
        return -np.inf
    return work.blanks[i] + nodes.language[beam.node[i]]


@inner
def recombine(phrases, nodes, beam, work, count):
    """Of candidates with the same last token, the same partial word, the same n-gram context and
    the same place in hot phrases, whose future costs are equal, keep only the best, if it is also
    the best after a blank.

    A dropped candidate might have overtaken the best by later paths. This costs far less accuracy
    than the freed places in the beam gain.
    """
    scores, units, spelled = work.scores, work.units, work.spelled
    matched, contexts, table, size = work.matched, work.contexts, work.table, 1
    while size < 2 * count:
        size *= 2
    for place in range(size):
        table[place] = OFF
    for i in range(count):
        # Odd factors only spread the entries over the table; equality is tested below.
        place = (contexts[i] * 40503 ^ spelled[i] * 9973 ^ units[i] * 31) & (size - 1)
        while table[place] != OFF:
            j = table[place]
            same = contexts[j] == contexts[i] and spelled[j] == spelled[i]
            if phrases is not None:
                same = same and matched[j] == matched[i]
            if same and units[j] == units[i]:
                break
            place = (place + 1) & (size - 1)
        better, worse = table[place], i
        if better == OFF or scores[better] < scores[i]:
            better, worse = i, better
            table[place] = i
        if worse != OFF:
            blanks = after_blank(nodes, beam, work, better), after_blank(nodes, beam, work, worse)
            if blanks[0] >= blanks[1]:
                scores[worse] = -np.inf


@inner
def keep(row, nodes, beam, language, phrases, work, count, floor):
    """Make the best of `count` candidates the beam."""
    used, size = beam.used[0], len(beam.node)
    equal = size  # how many candidates may be kept that score exactly `floor`
    if count > size:
        for i in range(count):
            work.sorted_scores[i] = work.scores[i]
        floor = max(floor, kth_largest(work.sorted_scores, count, size))
        for i in range(count):
            equal -= work.scores[i] > floor
    for i in range(used):
        nodes.place[beam.node[i]] = OFF
    kept = 0
    for i in range(count):
        score = work.scores[i]
        if score < floor or score == -np.inf:
            continue
        if score == floor:
            if equal == 0:
                continue
            equal -= 1
        if i < used:
            work.node[kept], work.blank[kept] = beam.node[i], work.blanks[i]
            work.label[kept] = work.labels[i]
        else:
            source, unit = work.sources[i], work.units[i]
            work.node[kept] = add_node(language, phrases, nodes, beam.node[source], unit)
            work.blank[kept] = -np.inf
            work.label[kept] = lengthened(nodes, beam, work, source, unit) + row[unit]
        kept += 1
    beam.used[0] = kept
    for i in range(kept):
        beam.node[i], beam.blank[i], beam.label[i] = work.node[i], work.blank[i], work.label[i]
        nodes.place[beam.node[i]] = i


@compiled
def search(
    log_probs, order, nodes, beam, work, language, phrases, beam_nats, token_nats, recombines
):
    """Process frames, and leave the best prefixes in `beam`.

    Shape: log_probs [T, V], order [T, V]: the tokens of each frame, best first. `nodes` needs space
    for K * T more. `phrases` are those of `language`; if they are None, numba compiles the search
    without them, which is a fifth faster.
    """
    for t in range(len(log_probs)):
        row = log_probs[t]
        best, worst = stay(row, phrases, nodes, beam, work)
        floor = best - beam_nats
        # No prefix worse than all in a full beam can enter it.
        bar = max(floor, worst) if beam.used[0] == len(beam.node) else floor
        least = row[order[t, 0]] - token_nats
        count = propose(row, order[t], nodes, beam, language, phrases, work, bar, least)
        if recombines and language.kind == WORD_MODEL:
            recombine(phrases, nodes, beam, work, count)
        keep(row, nodes, beam, language, phrases, work, count, floor)
