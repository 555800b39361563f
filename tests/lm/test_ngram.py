"""N-gram models: estimated as KenLM does, proper distributions, whole on disk.

Covers `asr/lm/storage.py`, `asr/lm/arpa.py`, `asr/lm/estimate.py`, `asr/lm/lookup.py`,
`asr/lm/text.py`.
"""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import AsrError, LanguageModelError
from asr.io.files import read_json
from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.estimate import FALLBACK, discounts, estimate
from asr.lm.ngram import END_ID, START_ID, START_NODE, UNKNOWN_ID, NgramModel, measure_perplexity
from asr.lm.storage import ARRAYS, load_ngram, save_ngram
from asr.lm.text import read_sentences

LMPLZ = Path(__file__).parents[1] / "lmplz"
TEXT = (LMPLZ / "text.txt").read_text(encoding="utf-8").splitlines()
SMALL = ["a b a", "a c", "b a c c"]


def entries(model: NgramModel) -> dict[tuple[str, ...], tuple[float, float]]:
    """Score and backoff weight of every n-gram, to base 10."""
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    named: dict[int, tuple[str, ...]] = {0: ()}
    for node in range(len(model.words)):
        for child in range(model.first_child[node], model.first_child[node + 1]):
            named[child] = (*named[node], model.vocabulary[model.words[child]])
            scores = model.log_probs[child], model.backoffs[child]
            found[named[child]] = scores[0] / math.log(10), scores[1] / math.log(10)
    return found


def assert_same(ours: NgramModel, theirs: NgramModel, tolerance: float = 1e-5) -> None:
    a, b = entries(ours), entries(theirs)
    assert a.keys() == b.keys()
    for words in a.keys() - {("<s>",)}:
        assert a[words] == pytest.approx(b[words], abs=tolerance), words
    assert a["<s>",][1] == pytest.approx(b["<s>",][1], abs=tolerance)


def total(model: NgramModel, node: int) -> float:
    """Probability of all that can follow a context."""
    words = (w for w in range(len(model.vocabulary)) if w != START_ID)
    return math.fsum(math.exp(model.score(node, word)[0]) for word in words)


# --- estimation ---


@pytest.mark.parametrize(
    ("name", "order", "cutoffs"), [("order3", 3, []), ("order4-pruned", 4, [0, 0, 1])]
)
def test_as_lmplz_estimates(name: str, order: int, cutoffs: Sequence[int]) -> None:
    # lmplz names thresholds from single words on, and we from pairs on.
    assert_same(estimate(TEXT, order, cutoffs[1:]), read_arpa(LMPLZ / f"{name}.arpa"))


@pytest.mark.parametrize(
    ("order", "cutoffs", "closed", "min_count"),
    [
        (1, [], False, 1),
        (2, [], False, 2),
        (3, [1], True, 1),
        (4, [0, 1, 2], False, 2),
        (4, [], True, 1),
    ],
)
def test_every_context_sums_to_one(
    order: int, cutoffs: Sequence[int], closed: bool, min_count: int
) -> None:
    model = estimate(TEXT, order, cutoffs, closed, min_count)
    assert model.order == order
    for node in range(len(model.words)):
        assert total(model, node) == pytest.approx(1, abs=1e-5)
    unknown = model.log_probs[1 + UNKNOWN_ID]
    assert (unknown == -math.inf) == closed


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_any_text_gives_proper_distributions(
    sentences: list[list[str]], order: int, cutoff: int
) -> None:
    model = estimate([" ".join(words) for words in sentences], order, [cutoff])
    assert np.isfinite(model.log_probs).all()
    assert np.isfinite(model.backoffs).all()
    for node in range(len(model.words)):
        assert total(model, node) == pytest.approx(1, abs=1e-5)


def test_a_unigram_by_hand() -> None:
    # Counts a 4, b 2, c 3, </s> 3: no word is said once, so the fallback discounts are taken.
    model = estimate(SMALL, 1)
    left = FALLBACK[1] + 3 * FALLBACK[2]
    share = left / 12 / 5  # of a, b, c, </s> and <unk>
    expected = {"<unk>": share, "a": 2.5 / 12 + share, "b": 1 / 12 + share, "c": 1.5 / 12 + share}
    found = {words[0]: 10 ** scores[0] for words, scores in entries(model).items()}
    for word, probability in expected.items():
        assert found[word] == pytest.approx(probability), word


def test_discounts_are_those_of_chen_and_goodman() -> None:
    counts = np.repeat([0, 1, 2, 3, 4, 7], [5, 40, 20, 12, 8, 3])
    y = 40 / (40 + 2 * 20)
    expected = [0, 1 - 2 * y * 20 / 40, 2 - 3 * y * 12 / 20, 3 - 4 * y * 8 / 12]
    assert discounts(counts) == pytest.approx(expected)
    assert discounts(np.array([1, 1, 2])) == pytest.approx([0, *FALLBACK])


def test_rare_words_count_as_unknown() -> None:
    model = estimate(SMALL, 2, min_count=3)
    assert model.vocabulary == ("<unk>", "<s>", "</s>", "a", "c")
    assert ("a", "<unk>") in entries(model)


def test_the_order_of_the_sentences_does_not_matter() -> None:
    assert_same(estimate(TEXT, 3), estimate(TEXT[::-1], 3), 0)


@pytest.mark.parametrize(
    ("sentences", "more", "message"),
    [
        ([], {}, "expected sentences, got an empty text"),
        (["", "  "], {}, "expected sentences, got an empty text"),
        (["a", "b <s> c"], {}, "got the marker <s> in line 2"),
        (["a b", "c"], {"order": 5}, "expected an order of at most 4"),
        (["a"], {"order": 0}, "an order of at least 1"),
        (["a"], {"cutoffs": [2, 1]}, "cut-offs that never fall"),
        (["a b"], {"min_count": 2}, "expected words with 2 occurrences, got none"),
        (["a a"], {"min_count": 2, "closed": True}, "closed vocabulary of every word"),
    ],
)
def test_texts_that_cannot_be_estimated(
    sentences: list[str], more: dict[str, int], message: str
) -> None:
    with pytest.raises(AsrError, match=message):
        estimate(sentences, **{"order": 2} | more)  # type: ignore[arg-type]


def test_progress_ends_at_its_total() -> None:
    said: list[tuple[int, int]] = []
    estimate(TEXT, 3, progress=lambda done, steps: said.append((done, steps)))
    assert said[-1] == (4 * len(TEXT), 4 * len(TEXT))
    assert said == sorted(said)


# --- scores ---


def test_a_sentence_backs_off_by_the_rule() -> None:
    model = estimate(SMALL, 3)
    by_hand = entries(model)
    first, second, third, end = model.score_sentence(["b", "a", "d"])
    assert first.log10 == pytest.approx(by_hand["<s>", "b"][0])
    assert (first.length, second.length, third.length) == (2, 3, 1)
    assert second.log10 == pytest.approx(by_hand["<s>", "b", "a"][0])
    backed = by_hand["b", "a"][1] + by_hand["a",][1] + by_hand["<unk>",][0]
    assert third.log10 == pytest.approx(backed, abs=1e-5)
    assert third.unknown
    assert end.word == "</s>"
    assert end.log10 == pytest.approx(by_hand["<unk>",][1] + by_hand["</s>",][0], abs=1e-5)


def test_markers_in_a_sentence_are_unknown_words() -> None:
    model = estimate(SMALL, 2)
    assert all(score.unknown for score in model.score_sentence(["</s>", "<s>", "<unk>"])[:3])


def test_perplexity_by_hand() -> None:
    model = estimate(SMALL, 2)
    sentences = [["a", "b"], ["x"]]
    scores = [score for words in sentences for score in model.score_sentence(words)]
    found = measure_perplexity(model, sentences)
    assert (found.sentences, found.words, found.unknown) == (2, 5, 1)
    assert found.perplexity == pytest.approx(10 ** (-sum(s.log10 for s in scores) / 5))
    known = [score.log10 for score in scores if not score.unknown]
    assert found.known_perplexity == pytest.approx(10 ** (-sum(known) / 4))
    closed = measure_perplexity(estimate(SMALL, 2, closed=True), sentences)
    assert closed.perplexity == math.inf
    assert math.isfinite(closed.known_perplexity)


# --- files ---


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "folder"])
@pytest.mark.parametrize("closed", [False, True])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str, closed: bool) -> None:
    model = estimate(TEXT, 3, closed=closed)
    save_ngram(tmp_path / name, model)
    loaded = load_ngram(tmp_path / name)
    assert_same(model, loaded)
    assert loaded.vocabulary == model.vocabulary
    sentence = TEXT[3].split()
    for ours, theirs in zip(
        model.score_sentence(sentence), loaded.score_sentence(sentence), strict=True
    ):
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-5)
        assert ours.length == theirs.length
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_is_mapped_and_not_read(tmp_path: Path) -> None:
    save_ngram(tmp_path / "lm", estimate(TEXT, 3))
    loaded = load_ngram(tmp_path / "lm")
    stored = [getattr(loaded, name) for name in ARRAYS]
    assert all(isinstance(array, np.memmap) for array in stored)
    assert all(map(np.shares_memory, loaded.arrays, stored))
    assert not any(array.flags.writeable for array in loaded.arrays)


PRUNED = """
\\data\\
ngram 1=5
ngram 2=1
ngram 3=1

\\1-grams:
-99 <s> -0.5
-0.7 </s>
-0.5 a -0.1
-0.6\tb c\t-0.2
-1.0 <UNK>

\\2-grams:
-0.2 a b -0.3

\\3-grams:
-0.1 b a b

\\end\\
""".replace("-0.6\tb c\t-0.2", "-0.6\tb\t-0.2")


def test_contexts_that_a_pruned_model_lacks_change_no_score(tmp_path: Path) -> None:
    (tmp_path / "pruned.arpa").write_text(PRUNED)
    model = read_arpa(tmp_path / "pruned.arpa")
    assert model.counts == (5, 2, 1)
    assert entries(model)["b", "a"] == pytest.approx((-0.2 - 0.5, 0), abs=1e-5)
    b, a, c, again = model.score_sentence(["b", "a", "b", "zzz"])[:4]
    assert b.log10 == pytest.approx(-0.5 - 0.6)  # <s> b is unknown
    assert a.log10 == pytest.approx(-0.2 - 0.5)
    assert c.log10 == pytest.approx(-0.1)
    # After "b a b": backed off from "a b" and from "b".
    assert again.log10 == pytest.approx(-0.3 - 0.2 - 1.0)


def broken(change: tuple[str, str]) -> str:
    assert change[0] in PRUNED
    return PRUNED.replace(*change, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 0: expected an ARPA file with the line \\data\\, got none"),
        ("once upon a time", r"line 1: expected an ARPA file with the line \\data\\, got none"),
        (broken(("ngram 1=5\n", "")), r"line 3: expected ngram 1=, got ngram 2=1"),
        (broken(("ngram 2=1", "ngram 2=2")), "expected 2 n-grams of 2 words .* got 1"),
        (broken(("-0.5 a", "-0,5 a")), "line 10: expected scores that are numbers, got '-0,5 a"),
        (broken(("-0.5 a", "0.5 a")), "line 10: expected a score of at most 0"),
        (broken(("-0.5 a", "nan a")), "line 10: expected a score of at most 0"),
        (broken(("-0.5 a -0.1", "-0.5 a inf")), "line 10: expected a score of at most 0"),
        (broken(("-0.2 a b", "-0.2 a x")), "line 15: expected words of the 1-grams, got x"),
        (broken(("-0.2 a b -0.3", "-0.2 a")), "line 15: expected a score, 2 words"),
        (broken(("-0.7 </s>", "-0.5 a")), "line 10: expected every n-gram once"),
        (broken(("\\3-grams:", "\\4-grams:")), r"line 17: expected \\3-grams:"),
        (broken(("\\end\\\n", "")), "got the end of the file: it was cut short"),
        (broken(("\\end\\", "\\ende\\")), r"line 20: expected \\end\\, got"),
    ],
)
def test_a_broken_arpa_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.arpa"
    path.write_text(text)
    with pytest.raises(LanguageModelError, match=message) as raised:
        read_arpa(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_cut_and_garbled_files(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    write_arpa(path, estimate(TEXT, 2))
    whole = path.read_bytes()
    with pytest.raises(LanguageModelError, match="no such file"):
        read_arpa(tmp_path / "none.arpa")
    garbled = whole[:200] + bytes(b ^ 0x55 for b in whole[200:220]) + whole[220:]
    for damaged in (whole[: len(whole) // 2], garbled, b"\xff\xfe\x00binary\n"):
        path.write_bytes(damaged)
        with pytest.raises(LanguageModelError):
            read_arpa(path)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_arpa_file_is_an_error_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = PRUNED.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        lines[place] = data.draw(st.sampled_from(["", "\\", "a b", "-1 a", lines[place] * 2, "0"]))
    path = tmp_path_factory.getbasetemp() / "damaged.arpa"
    path.write_text("\n".join(lines))
    try:
        model = read_arpa(path)
    except LanguageModelError:
        return
    assert model.score(START_NODE, END_ID)[0] <= 0


@pytest.mark.parametrize("name", ["words.bin", "log_probs.bin", "vocabulary.txt"])
def test_a_damaged_folder_never_loads(tmp_path: Path, name: str) -> None:
    save_ngram(tmp_path / "lm", estimate(TEXT, 3))
    path = tmp_path / "lm" / name
    whole = path.read_bytes()
    flipped = bytes([whole[0] ^ 1]) + whole[1:]
    for damaged in (flipped, whole[:-1], whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(LanguageModelError, match=rf"{name}: expected \d+ bytes"):
            load_ngram(tmp_path / "lm")
    path.unlink()
    with pytest.raises(LanguageModelError, match=f"{name}, got no such file"):
        load_ngram(tmp_path / "lm")


@pytest.mark.parametrize("facts", ["", "[]", '{"format": 2}', '{"format": 1, "counts": [1]}'])
def test_a_folder_of_something_else(tmp_path: Path, facts: str) -> None:
    with pytest.raises(LanguageModelError, match="expected a language model, got"):
        load_ngram(tmp_path)
    (tmp_path / "ngram.json").write_text(facts)
    with pytest.raises(LanguageModelError, match="expected a language model of format 1"):
        load_ngram(tmp_path)


def test_text_comes_from_lines_and_manifests(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One two\n")
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("THREE\n")
    row = '{"id": "x", "audio": "x.wav", "text": "Four", "duration": 1.0, "speaker": "s"}\n'
    (tmp_path / "c.jsonl").write_text(row)
    paths = [tmp_path / name for name in ("a.txt", "b.txt.gz", "c.jsonl")]
    assert [s.strip() for s in read_sentences(paths, str.lower)] == ["one two", "three", "four"]
    for damaged in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(LanguageModelError, match="expected text, got"):
            list(read_sentences([damaged], str))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LanguageModelError, match=r"a\.txt"):
        list(read_sentences(paths, str))


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    text = "\ufeffone two\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    paths = [tmp_path / "a.txt", tmp_path / "a.txt.gz"]
    assert [s.strip() for s in read_sentences(paths, str)] == ["one two"] * 2
    write_arpa(tmp_path / "lm.arpa", estimate(TEXT, 2))
    whole = (tmp_path / "lm.arpa").read_bytes().lstrip()
    (tmp_path / "lm.arpa").write_bytes("\ufeff".encode() + whole)
    assert read_arpa(tmp_path / "lm.arpa").counts == estimate(TEXT, 2).counts


def test_a_damaged_compressed_text_is_named(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"line {i}\n" for i in range(2000)).encode())
    garbled = whole[:200] + bytes(b ^ 0x55 for b in whole[200:220]) + whole[220:]
    for damaged in (whole[: len(whole) // 2], garbled, b"no gzip"):
        (tmp_path / "a.txt.gz").write_bytes(damaged)
        with pytest.raises(LanguageModelError, match=r"a\.txt\.gz: expected text, got"):
            list(read_sentences([tmp_path / "a.txt.gz"], str))


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    model = estimate(TEXT, 3)
    save_ngram(tmp_path / "lm", model)
    facts = read_json(tmp_path / "lm" / "ngram.json")
    assert tuple(facts["counts"]) == model.counts
    sizes = [file.stat().st_size for file in sorted((tmp_path / "lm").glob("*.bin"))]
    assert sum(sizes) == sum(row["bytes"] for n, row in facts["files"].items() if "bin" in n)
    assert list(itertools.chain(facts["files"])) == sorted(facts["files"])


ODD_BLANKS = {
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "next line": "\u0085",
    "line separator": "\u2028",
    "vertical tab": "\x0b",
    "form feed": "\x0c",
    "file separator": "\x1c",
}


@pytest.mark.parametrize("blank", ODD_BLANKS.values(), ids=ODD_BLANKS)
def test_arpa_fields_are_parted_by_ascii_blanks_only(blank: str, tmp_path: Path) -> None:
    lines = [
        "\\data\\",
        "ngram 1=5",
        "ngram 2=1",
        "",
        "\\1-grams:",
        "-1.0\t<unk>",
        "-99\t<s>\t-0.3",
    ]
    lines += ["-0.8\t</s>", f"-0.7\tnew{blank}york\t-0.2", f"-0.9 \twait{blank}  -0.2", ""]
    lines += ["\\2-grams:", f"-0.3\tnew{blank}york wait{blank}", "", "\\end\\", ""]
    path = tmp_path / "lm.arpa"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    model = read_arpa(path)
    assert {f"new{blank}york", f"wait{blank}"} <= set(model.vocabulary)
    save_ngram(tmp_path / "folder", model)
    again = load_ngram(tmp_path / "folder")
    assert again.vocabulary == model.vocabulary
    save_ngram(tmp_path / "again.arpa", again)
    assert read_arpa(tmp_path / "again.arpa").vocabulary == model.vocabulary
    scores = again.score_sentence([f"new{blank}york", f"wait{blank}"])
    assert [score.length for score in scores] == [1, 2, 1]
