"""Segments of an utterance, cut at the quietest moments between its words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from asr.audio.silence import Gap, cuts
from asr.dataset.manifest import Utterance
from asr.text.characters import breakable


@dataclass(frozen=True)
class WordPart:
    """A normalised word, or a token of a long one; `glued` continues the word before."""

    text: str
    glued: bool = False


def segments(
    u: Utterance,
    parts: Sequence[WordPart],
    gaps: Sequence[Gap],
    duration: float,
    seconds: float,
    normalise: Callable[[str], str],
) -> Iterator[Utterance]:
    """An utterance of `duration` seconds, cut into segments of about `seconds` with the ids ID-1,
    ID-2 and so on; a short one stays whole. `parts` are the words of its normalised text, `gaps[i]`
    is the quietest moment between parts i and i + 1."""
    written = _written(u.text, parts, normalise)
    places = [i for i in range(len(gaps)) if written[i + 1] is not None]
    chosen = [places[i] for i in cuts([gaps[place] for place in places], duration, seconds)]
    if not chosen:
        yield u
        return
    bounds = [(0, 0.0), *((i + 1, gaps[i].second) for i in chosen), (len(parts), duration)]
    for number, ((first, start), (last, end)) in enumerate(itertools.pairwise(bounds), start=1):
        yield replace(
            u,
            id=f"{u.id}-{number}",
            text=_joined(
                (text, part.glued)
                for text, part in zip(written[first:last], parts[first:last], strict=True)
                if text is not None
            ),
            duration=round(end - start, 4),
            start=round(u.start + start, 4),
            end=u.end if last == len(parts) else round(u.start + end, 4),
        )


def _joined(parts: Iterable[tuple[str, bool]]) -> str:
    return "".join(text if glued else f" {text}" for text, glued in parts).strip()


def _written(
    text: str, parts: Sequence[WordPart], normalise: Callable[[str], str]
) -> list[str | None]:
    """What the text has for each part: None within a written word, which is divided in scripts
    without spaces only, and then as it is normalised.

    A dash, of which normalisation leaves nothing, is written with the word before it. The
    normalised parts themselves, if they are not those of the written words.
    """
    found: list[str | None] = []
    ahead = ""  # of the first word
    for word in text.split():
        spoken = normalise(word)
        if not spoken:
            last = next((i for i in reversed(range(len(found))) if found[i] is not None), None)
            if last is None:
                ahead += f"{word} "
            else:
                found[last] = f"{found[last]} {word}"
            continue
        own = _of_word(spoken, parts[len(found) :])
        if own is None:
            break
        found += _divided(word, own)
        if ahead:
            first = len(found) - len(own)
            found[first], ahead = f"{ahead}{found[first]}", ""
    return found if len(found) == len(parts) else [part.text for part in parts]


def _divided(word: str, own: Sequence[WordPart]) -> list[str | None]:
    """What a written word has for each of its parts. Only one that is divided loses what
    normalisation removes."""
    spoken = "".join(part.text for part in own)
    ends = set(itertools.accumulate(map(len, breakable(spoken))))
    found: list[str | None] = []
    place = last = 0  # in the spoken word; the part that the text of others is added to
    for number, part in enumerate(own):
        if number and part.glued and place not in ends:
            found.append(None)
            found[last] = f"{found[last]}{part.text}"
        else:
            found.append(part.text)
            last = number
        place += len(part.text)
    whole: list[str | None] = [word, *[None] * (len(own) - 1)]
    return whole if len(breakable(word)) == 1 or not any(found[1:]) else found


def _of_word(spoken: str, parts: Sequence[WordPart]) -> Sequence[WordPart] | None:
    """The first parts, which together are a normalised written word; None if they are others."""
    place = 0  # in the word
    for count, part in enumerate(parts, start=1):
        text = part.text if part.glued or not place else f" {part.text}"
        if not spoken.startswith(text, place):
            return None
        place += len(text)
        if place == len(spoken):
            return parts[:count]
    return None
