from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.dataset.manifest import (
    BadLine,
    Selection,
    Utterance,
    read_entries,
    read_manifest,
    write_manifest,
)
from asr.dataset.splits import split_speakers
from asr.errors import ManifestError

GOOD: dict[str, Any] = {"id": "u1", "audio": "wav/u1.wav", "text": "yes", "duration": 1.5}


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "m.jsonl",
        GOOD,
        GOOD | {"id": "u2", "audio": "/far/u2.wav", "speaker": "ann", "start": 1, "end": 2.5},
        GOOD | {"id": "u3", "speaker": None, "end": None, "room": "hall", "snr": [1, 2]},
    )
    first, second, third = read_manifest(path)
    assert first == Utterance("u1", tmp_path / "wav" / "u1.wav", "yes", 1.5, "", 0.0, None)
    assert (second.audio, second.speaker) == (Path("/far/u2.wav"), "ann")
    assert (second.start, second.end) == (1.0, 2.5)
    assert isinstance(second.start, float)
    assert third.extra == {"room": "hall", "snr": [1, 2]}


def test_utterances_are_made_when_asked_for(tmp_path: Path) -> None:
    # Blank lines between, no line end after the last.
    lines = [json.dumps(GOOD | {"id": f"u{n}", "duration": n + 1}) for n in range(5)]
    path = tmp_path / "m.jsonl"
    path.write_text("\n\n".join(lines))
    manifest = read_manifest(path)
    path.unlink()
    assert [u.id for u in manifest] == ["u0", "u1", "u2", "u3", "u4"]
    assert (manifest[-1].id, manifest[-1].duration) == ("u4", 5.0)
    assert [u.id for u in manifest[1::2]] == ["u1", "u3"]
    assert list(manifest.durations) == [1.0, 2.0, 3.0, 4.0, 5.0]
    chosen = Selection(manifest, [3, 0])
    assert [u.id for u in chosen] == ["u3", "u0"]
    assert [u.id for u in chosen[:1]] == ["u3"]
    with pytest.raises(IndexError):
        manifest[5]


def test_a_manifest_takes_little_more_room_than_its_file(tmp_path: Path) -> None:
    lines = (GOOD | {"id": f"u{n}", "speaker": f"s{n % 50}"} for n in range(20_000))
    path = write_lines(tmp_path / "m.jsonl", *lines)
    tracemalloc.start()
    manifest = read_manifest(path)
    room, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(manifest) == 20_000
    assert room < 1.5 * path.stat().st_size


def test_a_relative_manifest_gives_absolute_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "m.jsonl", GOOD)
    monkeypatch.chdir(tmp_path)
    assert read_manifest("m.jsonl")[0].audio == tmp_path / "wav" / "u1.wav"


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    line = json.dumps(GOOD | {"text": "\u2028 é"}, ensure_ascii=False).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line.replace(b"u1", b"u2"))
    assert [(u.id, u.text) for u in read_manifest(path)] == [("u1", "\u2028 é"), ("u2", "\u2028 é")]
    assert [line for line, _ in read_entries(path)] == [1, 4]
    mark = b"\xef\xbb\xbf"  # of two joined files
    path.write_bytes(mark + line + b"\n" + mark + line.replace(b"u1", b"u2") + b"\n")
    assert [u.id for u in read_manifest(path)] == ["u1", "u2"]
    assert [line for line, _ in read_entries(path)] == [1, 2]


WRONG = [
    ({"id": ""}, "expected 'id' to be non-empty text, got ''"),
    ({"id": " "}, "expected 'id' to be non-empty text, got ' '"),
    ({"id": 7}, "expected 'id' to be text, got 7"),
    ({"audio": None}, "expected 'audio' to be text, got None"),
    ({"audio": ""}, "expected 'audio' to be non-empty text"),
    ({"audio": "a\0.wav"}, "expected 'audio' to be non-empty text"),
    ({"text": ["yes"]}, "expected 'text' to be text, got ['yes']"),
    ({"text": "\ud800"}, "expected whole characters"),
    ({"room": "\udc00"}, "expected whole characters"),
    ({"speaker": 12}, "expected 'speaker' to be text, got 12"),
    ({"duration": "1.5"}, "expected 'duration' to be a positive number of seconds, got '1.5'"),
    ({"duration": True}, "expected 'duration' to be a positive number of seconds, got True"),
    ({"duration": 0}, "expected 'duration' to be a positive number of seconds, got 0"),
    ({"duration": -1.0}, "expected 'duration' to be a positive number of seconds, got -1.0"),
    ({"duration": float("nan")}, "expected 'duration' to be a positive number of seconds, got nan"),
    ({"duration": float("inf")}, "expected 'duration' to be a positive number of seconds, got inf"),
    ({"duration": 10**400}, "expected 'duration' to be a positive number of seconds, got 1000"),
    ({"start": -0.5}, "expected 'start' to be 0 or more seconds, got -0.5"),
    ({"start": None}, "expected 'start' to be 0 or more seconds, got None"),
    ({"start": 2, "end": 2}, "expected 'end' to be more seconds than 'start' (2), got 2"),
    ({"end": "3"}, "expected 'end' to be more seconds than 'start' (0.0), got '3'"),
    ({"packed": [0]}, "expected 'packed' to be the first byte and the number of bytes, got [0]"),
    ({"packed": [0, 0]}, "expected 'packed' to be the first byte and the number of bytes"),
    ({"packed": [True, 9]}, "expected 'packed' to be the first byte and the number of bytes"),
    ({"packed": [-1, 9]}, "expected 'packed' to be the first byte and the number of bytes"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_a_wrong_value_is_named_with_its_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "m.jsonl", GOOD, GOOD | {"id": "u2"} | change)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: {message}")
    assert "; " in str(caught.value)  # what to do
    assert len(str(caught.value)) < len(str(path)) + 200


@pytest.mark.parametrize("key", ["id", "audio", "text", "duration"])
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", {k: v for k, v in GOOD.items() if k != key})
    with pytest.raises(ManifestError, match=f"m.jsonl:1: expected the key '{key}', got "):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "expected one JSON object, got '{' (Expecting"),
        (b"u1 a.wav yes", "expected one JSON object, got 'u1 a.wav yes' (Expecting value)"),
        (b"[1]", "expected one JSON object, got [1]; write one utterance per line"),
        (b'{"text": "\xe9"}', "expected UTF-8 text, got byte 0xe9; save the manifest as UTF-8"),
        (b"[" * 100_000, "expected one JSON object, got '[[["),
        (b'{"x": ' + b"1" * 5000 + b"}", 'expected one JSON object, got \'{"x": 1'),
        ('{"id": "é"}'.encode("utf-16"), "expected UTF-8 text, got byte 0xff"),
        (b"\0", "expected one JSON object, got "),
    ],
    ids=["open", "words", "list", "latin1", "deep", "digits", "utf16", "nul"],
)
def test_a_line_that_is_no_object(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:3: {message}")
    assert str(caught.value).isprintable()


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", GOOD, GOOD | {"id": "u2"}, GOOD)
    with pytest.raises(ManifestError, match=r"m.jsonl:3: expected a new id, got 'u1' .* line 1;"):
        read_manifest(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_manifest(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(ManifestError, match="expected at least one utterance, got an empty"):
        read_manifest(tmp_path / "m.jsonl")


def test_no_manifest(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path, Path("a\0b"), Path("a" * 5000)):
        with pytest.raises(ManifestError, match="expected a manifest, got"):
            read_manifest(path)


def test_entries_go_on_past_bad_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", GOOD, [], GOOD | {"text": 1}, GOOD)
    entries = list(read_entries(path))
    assert [line for line, _ in entries] == [1, 2, 3, 4]
    assert isinstance(entries[0][1], Utterance)
    assert isinstance(entries[1][1], BadLine)
    assert isinstance(entries[2][1], BadLine)
    assert (entries[1][1].id, entries[2][1].id) == ("", "u1")
    assert entries[3][1] == entries[0][1]


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
seconds = st.floats(1e-3, 1e6)
utterance = st.builds(
    Utterance,
    id=names.filter(str.strip),
    audio=st.sampled_from(["a.wav", "b/é c.wav"]).map(Path),
    text=st.text(st.characters(exclude_categories=["Cs"])),
    duration=seconds,
    speaker=st.just("") | names,
    start=st.just(0.0) | st.floats(0, 1e-4),
    end=st.none() | seconds,
    packed=st.none() | st.tuples(st.integers(0, 1 << 50), st.integers(1, 1 << 50)),
    extra=st.dictionaries(st.sampled_from(["room", "snr"]), st.integers() | st.text("ab\n")),
)


@settings(max_examples=100)
@given(st.lists(utterance, min_size=1, max_size=5, unique_by=lambda u: u.id))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round" / "m.jsonl"
    write_manifest(path, utterances)
    expected = [u.audio.absolute() for u in utterances]
    read = read_manifest(path)
    assert [u.audio for u in read] == expected
    for one, other in zip(read, utterances, strict=True):
        for key in ("id", "text", "duration", "speaker", "start", "end", "packed", "extra"):
            assert getattr(one, key) == getattr(other, key)


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from([*GOOD, "speaker", "start", "end", "packed", "x"]), json_value),
    st.sets(st.sampled_from(sorted(GOOD))),
)
def test_any_object_is_an_utterance_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any], dropped: set[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "values.jsonl"
    record = {k: v for k, v in (GOOD | change).items() if k not in dropped or k in change}
    check_outcome(write_lines(path, record))


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_are_utterances_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    good = json.dumps(GOOD).encode()
    at = data.draw(st.integers(0, len(good)))
    path.write_bytes(good[:at] + data.draw(st.binary()) + good[at + data.draw(st.integers(0, 9)) :])
    check_outcome(path)


def check_outcome(path: Path) -> None:
    """Utterances that can be written again, or a one-line error with the line's number."""
    try:
        utterances = read_manifest(path)
    except ManifestError as error:
        message = str(error)
    else:
        write_manifest(path, utterances)
        return
    assert message.startswith(f"{path}:")
    assert message.isprintable()


def test_audio_below_the_manifest_is_written_relative(tmp_path: Path) -> None:
    inside = Utterance("in", tmp_path / "corpus" / "wav" / "a.wav", "yes", 1.0)
    beside = Utterance("out", tmp_path / "corpus2" / "b.wav", "no", 1.0)
    write_manifest(tmp_path / "corpus" / "m.jsonl", [inside, beside])
    (tmp_path / "corpus").rename(tmp_path / "moved")
    lines = (tmp_path / "moved" / "m.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"id": "in", "audio": "wav/a.wav", "text": "yes", "duration": 1}
    assert json.loads(lines[1])["audio"] == str(tmp_path / "corpus2" / "b.wav")
    moved = read_manifest(tmp_path / "moved" / "m.jsonl")
    assert [u.audio for u in moved] == [tmp_path / "moved" / "wav" / "a.wav", beside.audio]


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([], "at least one utterance"),
        ([Utterance("a", Path("a.wav"), "x", float("nan"))], "'a': expected 'duration'"),
        ([Utterance("a", Path("a.wav"), "x", 1.0, start=2.0, end=1.0)], "'a': expected 'end'"),
        ([Utterance("a", Path("a.wav"), "\ud800", 1.0)], "'a': expected whole characters"),
        ([Utterance("a", Path("a\udcff.wav"), "x", 1.0)], "'a': expected whole characters"),
        ([Utterance("a", Path("a.wav"), "x", 1.0)] * 2, "'a': expected a new id"),
        ([Utterance("a", Path("a.wav"), "x", 1.0, extra={"text": "y"})], "'a': expected extra"),
    ],
    ids=["none", "nan", "end", "surrogate", "path", "repeated", "extra"],
)
def test_nothing_is_written_that_reading_refuses(
    utterances: list[Utterance], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=message):
        write_manifest(tmp_path / "m.jsonl", utterances)
    assert not list(tmp_path.iterdir())


def test_writing_to_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="expected a writable path"):
        write_manifest(tmp_path / "file" / "m.jsonl", [Utterance("a", Path("a.wav"), "x", 1.0)])


def corpus(speakers: int) -> list[Utterance]:
    return [
        Utterance(f"u{n}", Path("a.wav"), "yes", 1.0, speaker=f"s{n % speakers}")
        for n in range(3 * speakers)
    ]


@given(st.integers(2, 12), st.data())
def test_split_holds_out_whole_speakers(count: int, data: st.DataObject) -> None:
    held = data.draw(st.integers(1, count - 1))
    seed = data.draw(st.integers(0, 100))
    utterances = corpus(count)
    rest, out = split_speakers(utterances, held, seed)
    assert len({u.speaker for u in out}) == held
    assert not {u.speaker for u in out} & {u.speaker for u in rest}
    assert sorted(rest + out, key=utterances.index) == utterances
    shuffled = data.draw(st.permutations(utterances))
    assert {u.id for u in split_speakers(shuffled, held, seed)[1]} == {u.id for u in out}


def test_split_depends_on_the_seed() -> None:
    chosen = {frozenset(u.speaker for u in split_speakers(corpus(10), 3, s)[1]) for s in range(20)}
    assert len(chosen) > 10


@pytest.mark.parametrize("held", [0, -1, 4, 5])
def test_split_needs_enough_speakers(held: int) -> None:
    with pytest.raises(ManifestError, match=f"fewer than all 4 speakers, got {held}"):
        split_speakers(corpus(4), held, seed=0)


def test_split_needs_to_know_the_speakers() -> None:
    nameless = Utterance("x", Path("a.wav"), "yes", 1.0)
    with pytest.raises(ManifestError, match="'x': expected a speaker"):
        split_speakers([*corpus(4), nameless], 1, seed=0)
