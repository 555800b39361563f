"""Optionally deletable words of trn and stm references."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from asr.errors import TranscriptError
from asr.evaluation.compare import compare_reports
from asr.evaluation.confusions import errors_by_frequency
from asr.evaluation.error_rate import Scores, score
from asr.evaluation.normalise import BUILT_IN, Profile, Rules
from asr.evaluation.optional import Pair, align_optional, bracket, is_optional, mark, plain
from asr.evaluation.report_folder import read_report, write_report
from asr.evaluation.report_texts import write_report_texts
from asr.evaluation.scoring import Scoring, score_files

NONE = Scoring(units="words")


def scored(tmp_path: Path, reference: str, hypothesis: str, scoring: Scoring = NONE) -> Scores:
    """The scores of trn files of one utterance."""
    (tmp_path / "ref.trn").write_text(f"{reference} (ann-1)\n", encoding="utf-8")
    (tmp_path / "hyp.trn").write_text(f"{hypothesis} (ann-1)\n", encoding="utf-8")
    return score_files(tmp_path / "ref.trn", tmp_path / "hyp.trn", scoring).scores


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("i (uh) think so", "i think so", "0.00 % (0/4: 0 S, 0 D, 0 I)"),
        ("i (uh) think so", "i uh think so", "0.00 % (0/4: 0 S, 0 D, 0 I)"),
        ("i (uh) think so", "i ah think so", "25.00 % (1/4: 1 S, 0 D, 0 I)"),
        ("i (uh) think so", "i think", "25.00 % (1/4: 0 S, 1 D, 0 I)"),
        ("i (uh) think", "i uh uh think", "33.33 % (1/3: 0 S, 0 D, 1 I)"),
        ("(%hesitation) no", "no", "0.00 % (0/2: 0 S, 0 D, 0 I)"),
        ("(uh) (um)", "", "0.00 % (0/2: 0 S, 0 D, 0 I)"),
        ("(uh)", "yes", "100.00 % (1/1: 1 S, 0 D, 0 I)"),
        ("(a) a", "a", "0.00 % (0/2: 0 S, 0 D, 0 I)"),
        ("(uh) x", "y", "50.00 % (1/2: 1 S, 0 D, 0 I)"),
        ("yes", "yes (uh)", "0.00 % (0/1: 0 S, 0 D, 0 I)"),  # in a hypothesis
        ("yes uh", "yes (uh)", "0.00 % (0/2: 0 S, 0 D, 0 I)"),
        ("item (2 of 3", "item (2 of 3", "0.00 % (0/4: 0 S, 0 D, 0 I)"),  # no optional word
        ("f(x) (", "f(x) (", "0.00 % (0/2: 0 S, 0 D, 0 I)"),
    ],
)
def test_an_optional_word_may_be_missing(
    reference: str, hypothesis: str, expected: str, tmp_path: Path
) -> None:
    scores = scored(tmp_path, reference, hypothesis)
    assert str(scores.words) == expected
    assert (scores.words.errors == 0) == (scores.characters.errors == 0)


def test_the_alignment_has_as_few_errors_as_any_choice_of_optional_words(tmp_path: Path) -> None:
    words = ["a", "b", "(a)", "(b)"]
    said = [" ".join(h) for n in range(4) for h in itertools.product("ab", repeat=n)]
    for reference in itertools.product(words, repeat=3):
        choices = [(w.strip("()"), "") if w.startswith("(") else (w,) for w in reference]
        for hypothesis in said[::3]:
            found = scored_in_memory(" ".join(reference), hypothesis)
            best = min(
                score({"u": " ".join(c)}, {"u": hypothesis}).words.errors
                for c in itertools.product(*choices)
            )
            assert found == best, (reference, hypothesis)


def scored_in_memory(reference: str, hypothesis: str) -> int:
    bracketed = reference.replace("(", "❨").replace(")", "❩")
    return score({"u": bracketed}, {"u": hypothesis}).words.errors


@pytest.mark.parametrize(
    "scoring",
    [
        Scoring(BUILT_IN["english"], "words"),
        Scoring(Profile("p", Rules(lowercase=True, remove_punctuation=True)), "words"),
        Scoring(Profile("p", Rules(unicode="NFKC", lowercase=True)), "characters"),
    ],
)
def test_normalisation_keeps_words_optional(scoring: Scoring, tmp_path: Path) -> None:
    assert scored(tmp_path, "I (Well,) don't know", "i don't know", scoring).words.errors == 0
    assert scored(tmp_path, "I (Well,) don't know", "i well, don't know", scoring).words.errors == 0
    assert scored(tmp_path, "I (Well,) don't know", "i no", scoring).words.errors > 0


def test_rules_for_words_apply_to_optional_words(tmp_path: Path) -> None:
    english = Scoring(BUILT_IN["english"], "words")
    assert scored(tmp_path, "(two) dogs (colour)", "two dogs color", english).words.errors == 0
    assert scored(tmp_path, "(two) dogs (colour)", "dogs", english).words.errors == 0


def test_optional_words_do_not_change_the_unit(tmp_path: Path) -> None:
    text = "今天天气很好 (呃) 我们一起去公园玩吧好不好"
    scores = scored(tmp_path, text, text.replace("(呃) ", ""), Scoring())
    assert scores.words.reference_length > 10  # characters
    assert scores.words.errors == 0


def test_optional_words_are_known_from_training(tmp_path: Path) -> None:
    scores = scored(tmp_path, "i (uh) think", "i uh think", Scoring(units="words"))
    rows = errors_by_frequency(scores.utterances, {"i": 5, "uh": 500, "think": 5})
    assert [(row.label, row.words) for row in rows] == [
        ("1 to 9 times", 2),
        ("100 to 999 times", 1),
    ]


def test_stm_and_ctm_have_optional_words_and_alternatives_are_refused(tmp_path: Path) -> None:
    stm, ctm = tmp_path / "ref.stm", tmp_path / "hyp.ctm"
    stm.write_text("talk 1 ann 0 2 <o> i (uh) think\ntalk 1 ann 2 4 <o> (uh) no\n")
    ctm.write_text("talk 1 0.1 0.2 i\ntalk 1 1.0 0.2 think\ntalk 1 2.1 0.2 no\n")
    assert str(score_files(stm, ctm, NONE).scores.words) == "0.00 % (0/5: 0 S, 0 D, 0 I)"
    stm.write_text("talk 1 ann 0 2 <o> i { uh / um / @ } think\n")
    with pytest.raises(TranscriptError, match=r"ref.stm:1: expected one text, got the alternat"):
        score_files(stm, ctm, NONE)


def test_other_formats_have_no_optional_words(tmp_path: Path) -> None:
    (tmp_path / "ref.txt").write_text("u i (uh) think\n")
    (tmp_path / "hyp.txt").write_text("u i think\n")
    report = score_files(tmp_path / "ref.txt", tmp_path / "hyp.txt", NONE)
    assert report.scores.words.deletions == 1


def test_reports_with_optional_words_are_read_again_compared_and_written(tmp_path: Path) -> None:
    (tmp_path / "ref.trn").write_text("i (uh) think so (a)\n(uh) yes (b)\n")
    (tmp_path / "one.trn").write_text("i think so (a)\nuh yes (b)\n")
    (tmp_path / "two.trn").write_text("i uh think so (a)\nyet (b)\n")
    for name in ("one", "two"):
        report = score_files(tmp_path / "ref.trn", tmp_path / f"{name}.trn", NONE)
        write_report(report, tmp_path / name)
        assert read_report(tmp_path / name).scores == report.scores
    assert read_report(tmp_path / "two").scores.words.errors == 1
    compare_reports([tmp_path / "one", tmp_path / "two"])
    write_report_texts(read_report(tmp_path / "one"), tmp_path / "out", "trn")
    assert "i (uh) think so (a)" in (tmp_path / "out" / "reference.trn").read_text()


def test_a_long_text_is_aligned_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    reference = [f"{bracket(mark('(uh)'))}" if i % 7 == 0 else f"w{i % 50}" for i in range(400)]
    hypothesis = [w for w in reference if random.random() > 0.2 and w.startswith("w")]
    hypothesis[::9] = ["x"] * len(hypothesis[::9])

    def errors(pairs: list[Pair]) -> int:
        return sum(
            plain(word or "") != (said or "") and not (said is None and is_optional(word or ""))
            for word, said in pairs
        )

    whole = align_optional(reference, hypothesis)
    monkeypatch.setattr("asr.evaluation.optional.MOST_CELLS", 100)
    divided = align_optional(reference, hypothesis)
    assert errors(divided) == errors(whole) > 50
    for pairs in (whole, divided):
        assert [word for word, _ in pairs if word is not None] == reference
        assert [said for _, said in pairs if said is not None] == hypothesis


def test_long_texts_take_little_memory() -> None:
    words = [f"w{i % 997}" for i in range(5000)]
    tracemalloc.start()
    pairs = align_optional([*words, bracket(mark("(uh)"))], words[1:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pairs[0] == ("w0", None)
    assert peak < 60e6  # a table of all costs takes 200
