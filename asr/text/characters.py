"""Unicode properties of characters: canonical form, invisible characters, letter case.

Sources: Unicode Standard Annex 15 (canonical equivalence); Default_Ignorable_Code_Point in
DerivedCoreProperties.txt; Annex 31, section 2.3 (where joiners matter); SpecialCasing.txt (Turkish
and Azerbaijani).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Annotated

import regex
from pydantic import BeforeValidator

UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
)
"""Letters of scripts without spaces between words: there, a whole sentence looks like a word."""

_OPENING = frozenset({"Ps", "Pi"})  # categories of brackets and quotation marks
_TIBETAN = regex.compile(r"(?V1)[\p{Tibetan}&&[\p{L}\p{M}]]")  # of one syllable, before a tsheg
# Of Thai and Lao: vowels that are written before their consonant; vowels and marks after it.
_BEFORE_CONSONANT = frozenset("\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4")
_AFTER_CONSONANT = frozenset("\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eaf\u0eb0\u0eb2\u0eb3\u0ec6")

# ZWNJ and ZWJ are part of the spelling between letters of cursive and Indic scripts, and after a
# virama. Mongolian selectors and vowel separators belong to the preceding letter.
_SHAPED = (
    r"[[[\p{L}\p{M}]&&[^\p{Indic_Syllabic_Category=Other}]]"
    r"\p{Joining_Type=Dual_Joining}\p{Joining_Type=Right_Joining}\p{Joining_Type=Left_Joining}]"
)
_VIRAMA = r"\p{Canonical_Combining_Class=9}"
_JOINER = r"[\u200c\u200d]"
_UNSEEN = regex.compile(
    r"(?V1)(?<!\p{Script=Mongolian})[\u180b-\u180f]"
    # All other default-ignorable characters, and control characters that are not white space.
    r"|[\p{Default_Ignorable_Code_Point}--[\u200c\u200d\u180b-\u180f]]|[\p{Cc}--[\s\x1c-\x1f]]"
)
_LOOSE = regex.compile(
    rf"(?V1)({_JOINER})(?=\1)|(?<!{_VIRAMA}{_JOINER}*)"
    rf"(?:(?<!{_SHAPED}\p{{M}}*{_JOINER}*){_JOINER}|{_JOINER}(?!{_JOINER}*{_SHAPED}))"
)

_TAG = regex.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_DOTTED = frozenset({"tr", "tur", "az", "aze"})  # i and dotless ı are two letters


def _checked_language(value: object) -> str:
    value = "no" if value is False else value  # YAML reads the tag of Norwegian as a boolean
    if not isinstance(value, str) or (value and not _TAG.fullmatch(value)):
        raise ValueError("expected a language tag, such as tr or az-Latn")
    return value


Language = Annotated[str, BeforeValidator(_checked_language)]
"""A language tag in the form of BCP 47, or "" for none."""


def canonical(text: str) -> str:
    """The text composed (NFC) and without invisible characters (`unseen`).

    >>> canonical("cafe\\u0301 n\\u200boir"), canonical("می\\u200cخواهم") == "می\\u200cخواهم"
    ('café noir', True)
    """
    if text.isascii() and text.isprintable():
        return text
    return unicodedata.normalize("NFC", _LOOSE.sub("", _UNSEEN.sub("", text)))


def unseen(text: str) -> Counter[str]:
    """The characters that `canonical` drops: invisible ones, such as zero-width spaces, soft
    hyphens, byte order marks, direction marks and control characters. Joiners are kept if they
    change the spelling of words in cursive and Indic scripts.

    >>> dict(unseen("n\\u200boir"))
    {'\\u200b': 1}
    """
    if text.isascii() and text.isprintable():
        return Counter()
    kept, found = _UNSEEN.sub("", text), _UNSEEN.findall(text)
    return Counter([*found, *(match.group() for match in _LOOSE.finditer(kept))])


def breakable(text: str) -> list[str]:
    """A word in the parts between which it may be divided: the characters of a script without
    spaces (in Tibetan, the syllables), each with the punctuation that belongs to it. Any other text
    is one part.

    >>> breakable("他说「好」，iphone坏了。"), breakable("don't")
    (['他', '说', '「好」，', 'iphone', '坏', '了。'], ["don't"])
    >>> breakable("བོད་སྐད"), breakable("ดีเมา")
    (['བོད་', 'སྐད'], ['ดี', 'เมา'])
    """
    if not UNSPACED.search(text):
        return [text]
    parts: list[str] = []
    for character in regex.findall(r"\X", text):
        if parts and not _may_divide(parts[-1], character):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _may_divide(before: str, character: str) -> bool:
    category = unicodedata.category(character[0])
    opening = category in _OPENING
    # Some vowel signs are clusters of their own in Unicode, as in Myanmar.
    if category.startswith("M") or character[0] in _AFTER_CONSONANT:
        return False
    if category.startswith("P") and not opening:
        return False
    if unicodedata.category(before[-1]) in _OPENING or before[-1] in _BEFORE_CONSONANT:
        return False
    if _TIBETAN.match(before[-1]) and _TIBETAN.match(character):
        return False
    return opening or bool(UNSPACED.search(before + character))


def has_dotless_i(language: Language) -> bool:
    """Whether the language pairs I with ı and İ with i, as Turkish and Azerbaijani do."""
    return language.partition("-")[0].lower() in _DOTTED


def lower(text: str, language: Language = "") -> str:
    """A composed text in lower case.

    >>> lower("DİYARBAKIR", "tr"), lower("ΟΔΟΣ")
    ('diyarbakır', 'οδος')
    """
    if has_dotless_i(language):
        text = text.replace("İ", "i").replace("I", "ı")
    lowered = text.lower()
    # Python lowers İ to i with a combining dot, which texts from other sources may contain.
    return lowered.replace("i\u0307", "i") if has_dotless_i(language) else lowered


def upper(text: str, language: Language = "") -> str:
    """A composed text in upper case.

    >>> upper("diyarbakır", "tr")
    'DİYARBAKIR'
    """
    if has_dotless_i(language):
        text = text.replace("i\u0307", "İ").replace("i", "İ")
    return text.upper()
