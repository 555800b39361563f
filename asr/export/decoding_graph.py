"""The n-gram model and the lexicon of a decoder as one graph for sherpa-onnx.

Its graph decoder (Kaldi's) seeks the cheapest path for the frames of an utterance. Labels are token
ids plus 1, as 0 is the empty label; a frame costs its negative log-probability. The graph is what
others compose of a CTC topology H, a lexicon L and a grammar G, built directly:

- A state for each context of the n-gram model, in which the blank may repeat. An empty arc leads to
  the shorter context at the cost of backing off.
- From each context a tree of the words that the model knows after it, as tokens. The shortest
  context has all words. Costs are pushed towards the root (weight pushing), which narrows the
  search.
- Each node of the tree is two states: the token, which may repeat, and the blank after it, which
  equal neighbours need between them.
- After a word of a single token the same word needs a blank, and others do not. So beside a context
  there is one without blank and without that word. (Otherwise one long token could be taken for
  several words, each with its bonus.)

Without a lexicon, words that are not in the model are spelled by the characters among the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from asr.decoding.decoder import Decoder
from asr.errors import ConfigError, LanguageModelError
from asr.export.openfst import EPSILON, Fst
from asr.lm.ngram import END_ID, SPECIAL, START_NODE, UNKNOWN_ID, NgramModel
from asr.text.tokens import BLANK_ID, WORD_START, Tokens

BLANK = BLANK_ID + 1
MOST_ARCS = 20_000_000  # 320 MB


def build_decoding_graph(decoder: Decoder) -> Fst:
    """The graph of a decoder's n-gram model and lexicon; hot words are left out.

    Raises ConfigError for a decoder without both, or whose model is of characters, and
    LanguageModelError if the graph is too large.
    """
    if decoder.ngram is None and decoder.lexicon is None:
        raise ConfigError(
            "expected a decoder with an n-gram model or a lexicon, got one without: store one in "
            "the model folder with asr tune, or leave out --graph"
        )
    if decoder.ngram is not None and WORD_START in decoder.ngram.ids:
        raise ConfigError(
            "expected an n-gram model of words, got one of characters: estimate one of words with "
            "asr lm estimate"
        )
    return _Builder(decoder).build()


@dataclass
class _Node:
    """A node of a tree of words: the lowest cost below, and the words that end here."""

    best: float = float("inf")
    children: dict[int, _Node] = field(default_factory=dict)
    ends: list[tuple[float, int]] = field(default_factory=list)
    """The cost of a word, and the context after it."""


class _Builder:
    def __init__(self, decoder: Decoder) -> None:
        self._fst = Fst()
        self._tokens, self._model = decoder.tokens, decoder.ngram
        self._settings = decoder.config.language
        self._lexicon = decoder.lexicon
        self._states: dict[int, int] = {}
        self._contexts: list[int] = []  # of the states, in their order
        self._direct: dict[tuple[int, int], int] = {}
        self._direct_keys: list[tuple[int, int]] = []
        """The state of a context directly after a token that was the whole last word."""
        self._speller: tuple[int, float, int] | None = None
        """Of unknown words: the mark with which they begin, its cost, and the state after it."""
        self._tops: dict[int, dict[int, tuple[float, int]]] = {}
        """For each context, the first tokens of its words: cost and state."""
        spelling = self._spellings(decoder)
        self._words = {
            -1 if self._model is None else self._model.id(word): ids
            for word, ids in spelling.items()
        }
        # Several words of the lexicon may be unknown to the model.
        self._unknown = [
            ids
            for word, ids in spelling.items()
            if self._model is None or self._model.id(word) == UNKNOWN_ID
        ]
        self._words.pop(UNKNOWN_ID, None)
        self._words.pop(-1, None)

    def _spellings(self, decoder: Decoder) -> dict[str, list[int]]:
        words: Iterable[str] = decoder.lexicon or ()
        if decoder.lexicon is None and self._model is not None:
            words = self._model.vocabulary[len(SPECIAL) :]
        return {w: self._tokens.encode(w) for w in words if not self._tokens.missing(w)}

    def build(self) -> Fst:
        start = START_NODE if self._model is not None else 0
        self._state(self._context(start)[1])
        for context in self._contexts:  # which grows
            self._add_context(context)
            if len(self._fst.arcs) > MOST_ARCS:
                raise LanguageModelError(
                    f"expected a decoding graph of at most {MOST_ARCS:,} arcs, got more: estimate "
                    "a smaller model with asr lm estimate, by a lower --order or higher --cutoff"
                )
        self._add_direct()
        return self._fst

    def _add_direct(self) -> None:
        for context, token in self._direct_keys:  # which grows
            state = self._direct[context, token]
            for other, (cost, end) in self._tops[context].items():
                if other != token:
                    self._fst.add_arc(state, other + 1, cost, end)
            if not context and self._speller is not None:
                mark, cost, begun = self._speller
                self._fst.add_arc(state, mark + 1, cost, begun)
            if context:
                cost, shorter = self._backoff(context)
                self._fst.add_arc(state, EPSILON, cost, self._direct_state(shorter, token))

    def _direct_state(self, context: int, token: int) -> int:
        if (context, token) not in self._direct:
            self._direct[context, token] = self._fst.add_state()
            self._direct_keys.append((context, token))
        return self._direct[context, token]

    def _backoff(self, context: int) -> tuple[float, int]:
        """The cost of the next shorter context, and that context."""
        assert self._model is not None
        cost, shorter = self._context(int(self._model.suffixes[context]))
        return cost + self._cost(self._model.backoffs[context]), shorter

    def _cost(self, log_prob: float) -> float:
        """Of a score of the n-gram model; 0 times minus infinity is 0 here."""
        weight = self._settings.weight
        return -weight * float(log_prob) if weight else 0.0

    def _state(self, context: int) -> int:
        if context not in self._states:
            self._states[context] = self._fst.add_state()
            self._contexts.append(context)
        return self._states[context]

    def _context(self, node: int) -> tuple[float, int]:
        """The longest suffix of an n-gram that is a context, and the cost of backing off to it."""
        if self._model is None:
            return 0.0, 0
        cost = 0.0
        while node and self._model.first_child[node] == self._model.first_child[node + 1]:
            cost += self._cost(self._model.backoffs[node])
            node = int(self._model.suffixes[node])
        return cost, node

    def _followers(self, model: NgramModel, context: int) -> Iterable[tuple[int, int]]:
        """The words after a context, and the node of each."""
        for node in range(int(model.first_child[context]), int(model.first_child[context + 1])):
            yield int(model.words[node]), node

    def _add_context(self, context: int) -> None:
        fst, state, root = self._fst, self._state(context), _Node()
        fst.add_arc(state, BLANK, 0.0, state)
        bonus = self._settings.word_bonus
        if self._model is None:
            fst.finals[state] = 0.0
        else:
            for word, node in self._followers(self._model, context):
                cost = self._cost(self._model.log_probs[node])
                if math.isinf(cost):
                    continue
                if word == END_ID:
                    fst.finals[state] = cost
                elif word in self._words:
                    after = self._context(node)
                    _insert(root, self._words[word], cost - bonus + after[0], after[1])
            if context:
                cost, shorter = self._backoff(context)
                fst.add_arc(state, EPSILON, cost, self._state(shorter))
        if not context:
            cost, after_unknown = self._unknown_word()
            if math.isfinite(cost):  # a closed model has no unknown words
                for ids in self._unknown:
                    _insert(root, ids, cost, after_unknown)
                if self._lexicon is None:
                    self._add_speller(state, cost, after_unknown)
        self._tops[context] = {
            token: (child.best, self._add_tree(child, token, [(state, child.best)], first=True))
            for token, child in root.children.items()
        }

    def _unknown_word(self) -> tuple[float, int]:
        """The cost of a word that the model does not know, and the context after it."""
        if self._model is None:
            return -self._settings.word_bonus, 0
        node = 1 + UNKNOWN_ID
        cost, after = self._context(node)
        cost += self._cost(self._model.log_probs[node])
        return cost - self._settings.unknown_score - self._settings.word_bonus, after

    def _add_tree(
        self, node: _Node, token: int, entries: list[tuple[int, float]], first: bool = False
    ) -> int:
        """The state of a node, entered from other states at a cost, with those below."""
        fst = self._fst
        state = self._add_token(token, entries)
        for cost, context in node.ends:
            if first:
                self._add_single_end(state, cost - node.best, context, token)
            else:
                fst.add_arc(state, EPSILON, cost - node.best, self._state(context))
        if not node.children:
            return state
        blank = fst.add_state()
        fst.add_arc(state, BLANK, 0.0, blank)
        fst.add_arc(blank, BLANK, 0.0, blank)
        for other, child in node.children.items():
            cost = child.best - node.best
            both = [(blank, cost)] if other == token else [(blank, cost), (state, cost)]
            self._add_tree(child, other, both)
        return state

    def _add_token(self, token: int, entries: list[tuple[int, float]]) -> int:
        """A state after a token, which may repeat."""
        state = self._fst.add_state()
        for origin, cost in entries:
            self._fst.add_arc(origin, token + 1, cost, state)
        self._fst.add_arc(state, token + 1, 0.0, state)
        return state

    def _add_single_end(self, state: int, cost: float, context: int, token: int) -> None:
        """The end of a word of a single token."""
        self._fst.add_arc(state, BLANK, cost, self._state(context))
        self._fst.add_arc(state, EPSILON, cost, self._direct_state(context, token))
        final = cost + self._end_cost(context)
        self._fst.finals[state] = min(final, self._fst.finals.get(state, final))

    def _end_cost(self, context: int) -> float:
        """The cost of the end of the sentence after a context."""
        if self._model is None:
            return 0.0
        return self._cost(self._model.score(context, END_ID)[0])

    def _add_speller(self, state: int, cost: float, context: int) -> None:
        """Any word, spelled by tokens of one character."""
        fst = self._fst
        letters = _letters(self._tokens)
        mark = self._tokens.units.index(WORD_START)
        begun = self._add_token(mark, [(state, cost)])
        self._speller = mark, cost, begun
        blank = fst.add_state()
        fst.add_arc(begun, BLANK, 0.0, blank)
        fst.add_arc(blank, BLANK, 0.0, blank)
        states = {
            letter: self._add_token(letter, [(begun, 0.0), (blank, 0.0)]) for letter in letters
        }
        for letter, origin in states.items():
            fst.add_arc(origin, BLANK, 0.0, blank)
            fst.add_arc(origin, EPSILON, 0.0, self._state(context))
            for other, end in states.items():
                if other != letter:
                    fst.add_arc(origin, other + 1, 0.0, end)


def _letters(tokens: Tokens) -> list[int]:
    return [i for i, unit in enumerate(tokens.units) if len(unit) == 1 and unit != WORD_START]


def _insert(root: _Node, ids: list[int], cost: float, context: int) -> None:
    node = root
    for token in ids:
        node = node.children.setdefault(token, _Node())
        node.best = min(node.best, cost)
    node.ends.append((cost, context))
