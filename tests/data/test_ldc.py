"""TIMIT and WSJ, of which only local copies are read: tiny imitations of their trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import timit, wsj
from tests.data.prepared import disjoint, read, refused, silent
from tests.recordings import litter, sphere, tone

SPHERE = sphere((1000 * tone(0.1, 16000)).astype("i2"), 16000, "01")


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# --- TIMIT ---


def write_timit(root: Path, upper: bool, converted: bool = False) -> Path:
    """Four speakers, one of them in no set, two sentences and a dialect sentence each."""
    speakers = ("train/dr1/fcjf0", "test/dr1/faks0", "test/dr1/mdab0", "test/dr1/mreb1")
    for speaker in speakers:
        for sentence in ("sa1", "si1027", "sx37"):
            place = f"{speaker}/{sentence}"
            files: dict[str, str | bytes] = {
                ".phn": "0 100 h#\n100 200 sh\n200 300 ix\n300 400 tcl\n400 500 q\n500 600 ao\n",
                ".wrd": "100 300 she\n400 600 ought\n",
                ".txt": "0 600 She ought.\n",
                ".wav": SPHERE,
            }
            for suffix, content in files.items():
                name = place + suffix
                write(root / (name.upper() if upper else name), content)
            if converted:
                write(root / f"{place.upper()}.WAV.wav", SPHERE)
    return root


def test_timit_in_either_case(tmp_path: Path) -> None:
    said: list[str] = []
    lower = timit.prepare(
        tmp_path / "a", write_timit(tmp_path / "lower" / "timit", False).parent, say=said.append
    )
    upper = timit.prepare(tmp_path / "b", write_timit(tmp_path / "upper", True), say=silent)
    parts = read(lower)
    assert {name: [u.id for u in part] for name, part in parts.items()} == {
        "train": ["fcjf0_si1027", "fcjf0_sx37"],
        "dev": ["faks0_si1027", "faks0_sx37"],
        "test": ["mdab0_si1027", "mdab0_sx37"],
    }
    assert disjoint(parts)
    first = parts["test"][0]
    assert first.text == "sil sh ih sil aa"
    assert first.extra == {
        "phones": "h# sh ix tcl q ao",
        "dialect": "dr1",
        "gender": "m",
        "words": "she ought",
        "part": "test",
    }
    assert first.duration == pytest.approx(0.1)
    assert said[0] == "not the whole published set: train, 2 of 3696 sentences"
    for name, part in read(upper).items():
        assert [(u.id, u.text, u.extra) for u in part] == [
            (u.id, u.text, u.extra) for u in parts[name]
        ]
    again = timit.prepare(tmp_path / "c", tmp_path / "upper", say=silent)
    assert again["dev"].read_bytes() == upper["dev"].read_bytes()


def test_discs_copied_by_a_mac(tmp_path: Path) -> None:
    trees = {timit: write_timit(tmp_path / "t", True), wsj: write_wsj(tmp_path / "w", True)}
    for module, source in trees.items():
        clean = read(module.prepare(tmp_path / "clean", source, say=silent))
        litter(source)
        assert read(module.prepare(tmp_path / "data", source, say=silent)) == clean


def test_converted_recordings_of_timit_come_first(tmp_path: Path) -> None:
    source = write_timit(tmp_path / "timit", True, converted=True)
    parts = read(timit.prepare(tmp_path / "data", source, say=silent))
    assert {u.audio.name for u in parts["test"]} == {"SI1027.WAV.wav", "SX37.WAV.wav"}


def test_61_phones_become_39() -> None:
    assert len(timit.FOLDED) == 61
    assert len(set(timit.FOLDED.values()) - {""}) == 39
    assert len(timit.CORE_TEST.split()) == 24
    assert len(timit.DEV.split()) == 50
    assert len(timit.SPEAKERS) == 74
    assert set(map(len, timit.SPEAKERS)) == {5}


def test_timit_refuses(tmp_path: Path) -> None:
    prepare, data = timit.prepare, tmp_path / "data"
    assert "get LDC93S1 and give its folder with --source" in refused(prepare, data, None)
    assert "expected TRAIN/DR1/FCJF0/SI1027.PHN" in refused(prepare, data, tmp_path / "absent")
    source = write_timit(tmp_path / "timit", False)
    labels = source / "train" / "dr1" / "fcjf0" / "si1027.phn"
    for line, problem in (
        ("600 700 xx", "si1027.phn:7: expected one of TIMIT's 61 phones, got 'xx'"),
        ("600 aa", "si1027.phn:7: expected two samples and a label"),
    ):
        kept = labels.read_text()
        labels.write_text(kept + line)
        assert problem in refused(prepare, data, source)
        labels.write_text(kept)
    labels.with_suffix(".wav").unlink()
    assert "expected a recording beside" in refused(prepare, data, source)
    for path in source.glob("train/**/*.phn"):
        path.unlink()
    assert "expected utterances in train, got none" in refused(prepare, data, source)


# --- WSJ ---

INDICES = {
    "11-13.1/wsj0/doc/indices/train/tr_s_wv1.ndx": (
        ";; comment\n11_1_1:wsj0/si_tr_s/011/011c0201.wv1\n11_2_1:wsj0/si_tr_s/401/401c0201.wv1\n"
    ),
    "13-34.1/wsj1/doc/indices/si_tr_s.ndx": (
        "13_1_1: wsj1/si_tr_s/46a/46ac0201.wv1\n13_1_1: wsj1/si_tr_s/46u/46uc030b.wv1\n"
    ),
    "13-34.1/wsj1/doc/indices/h1_p0.ndx": "13_16_1:wsj1/si_dt_20/4k0/4k0c0301.wv1\n",
    "13-32.1/wsj1/doc/indices/wsj1/eval/h1_p0.ndx": "13_32_1:wsj1/si_et_h1/wsj64k/4oa/4oac0201\n",
    "11-13.1/wsj0/doc/indices/test/nvp/si_et_20.ndx": (
        "11_14_1:wsj0/si_et_20/440/440c0401\n11_14_1:wsj0/si_et_20/440/440c0402\n"
    ),
}
AUDIO = {
    "11-1.1/wsj0/si_tr_s/011/011c0201": "The *firm* \\'s [<cough] I\\. B\\. M\\. ,COMMA .",
    "13-1.1/wsj1/si_tr_s/46a/46ac0201": "[loud_breath] \"DOUBLE-QUOTE <and> 'CAUSE ex:ample ~",
    "13-1.1/wsj1/si_tr_s/46u/46uc030b": "~~",  # an empty recording
    "13-16.1/wsj1/si_dt_20/4k0/4k0c0301": "--DASH well-known %PERCENT .POINT 'SINGLE-QUOTE",
    "11-14.1/wsj0/si_et_20/440/440c0401": "(LEFT-PAREN A. ?QUESTION-MARK",
}


def write_wsj(root: Path, one_tree: bool) -> Path:
    def place(name: str) -> Path:
        return root / (name.partition("/")[2] if one_tree else name)

    for name, content in INDICES.items():
        write(place(name), content)
    for name, text in AUDIO.items():
        write(place(name + (".wav" if one_tree else ".WV1")), SPHERE)
        write(place(name + ".wv2"), SPHERE)
        session, utterance = name.rpartition("/")[2][:6], name.rpartition("/")[2]
        suffix = "lsn" if "440" in name else "dot"
        line = f"{text} ({utterance.upper() if suffix == 'lsn' else utterance})\n"
        write(place(f"11-13.1/wsj0/transcrp/{session}00.{suffix}"), line)
    return root


@pytest.mark.parametrize("one_tree", [True, False])
def test_wsj_in_either_tree(tmp_path: Path, one_tree: bool) -> None:
    source, said = write_wsj(tmp_path / "wsj", one_tree), list[str]()
    manifests = wsj.prepare(tmp_path / "data", source, say=said.append)
    parts = read(manifests)
    assert {name: [(u.id, u.speaker, u.text) for u in part] for name, part in parts.items()} == {
        "train": [
            ("011c0201", "011", "THE FIRM 'S I. B. M. COMMA"),
            ("46ac0201", "46a", "DOUBLE QUOTE AND 'CAUSE EXAMPLE"),
        ],
        "dev": [("4k0c0301", "4k0", "DASH WELL-KNOWN PERCENT POINT SINGLE QUOTE")],
        "test": [("440c0401", "440", "LEFT PAREN A. QUESTION MARK")],
    }
    assert disjoint(parts)
    assert "left out of train: 1 recordings without words" in said
    assert said[-1] == "not the whole published set: test, 1 of 333 recordings"
    before = {name: path.read_bytes() for name, path in manifests.items()}
    again = wsj.prepare(tmp_path / "data", source, say=silent)
    assert {name: path.read_bytes() for name, path in again.items()} == before


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("'QUOTE X 'END-INNER-QUOTE", "QUOTE X END INNER QUOTE"),
        ("'SINGLE-CLOSE-QUOTE 'APOSTROPHE", "SINGLE CLOSE QUOTE APOSTROPHE"),
        ("'CAUSE 'QUOTED 'S 'EM", "'CAUSE 'QUOTED 'S 'EM"),
    ],
)
def test_wsj_has_the_words_for_single_quotes(written: str, said: str) -> None:
    assert wsj.clean(written) == said


def test_wsj_refuses(tmp_path: Path) -> None:
    prepare, data = wsj.prepare, tmp_path / "data"
    assert "give their folder with --source" in refused(prepare, data, None)
    message = refused(prepare, data, tmp_path / "absent")
    assert "expected wsj0/doc/indices/train/tr_s_wv1.ndx in" in message
    source = write_wsj(tmp_path / "wsj", True)
    index = source / "wsj1" / "doc" / "indices" / "h1_p0.ndx"
    kept = index.read_text()
    index.write_text(kept + "nonsense\n")
    assert "h1_p0.ndx:2: expected disc:folder/recording" in refused(prepare, data, source)
    index.write_text(kept)
    transcript = source / "wsj0" / "transcrp" / "4k0c0300.dot"
    transcript.write_text("no id at the end\n")
    assert "4k0c0300.dot:1: expected a sentence and (id)" in refused(prepare, data, source)
    transcript.unlink()
    assert "expected 4k0c0301 in a .dot or .lsn file" in refused(prepare, data, source)
    index.unlink()
    assert "h1_p0.ndx in" in refused(prepare, data, source)
