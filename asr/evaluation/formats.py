"""Texts by utterance id, in the file formats of other systems.

    trn:        words words (id)             sclite
    kaldi:      id words words               the file "text" of a Kaldi or ESPnet folder
    jsonl:      {"id": ..., "text": ...}     one per line; also our manifests and hypotheses
    json:       {id: text, ...}              or a list of such objects
    csv, tsv:   a header with the column id, and a text column
    ctm, stm:   words and segments with times, see `timed_formats`

The key of a text is "hypothesis" or "reference", by its role, or else "text".
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from asr.dataset.lines import check_new, numbered_lines, shown, split_fields, write_lines
from asr.dataset.records import (
    Entry,
    checked,
    is_record,
    read_csv,
    read_json,
    read_jsonl,
    read_tsv,
)
from asr.errors import TranscriptError
from asr.evaluation.optional import mark
from asr.evaluation.timed_formats import (
    check_alternation,
    ctm_texts,
    cut_texts,
    one_line,
    read_ctm,
    read_stm,
    stm_texts,
)
from asr.text.characters import canonical

Format = Literal["trn", "kaldi", "jsonl", "json", "csv", "tsv", "ctm", "stm"]
Role = Literal["reference", "hypothesis"]

_TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()]*)\)")


def read_texts(
    path: str | Path,
    format: Format | None = None,
    *,
    role: Role = "hypothesis",
    key: str | None = None,
) -> dict[str, str]:
    """The texts of a file by utterance id, in the order of the file.

    Without `format` the file name decides (`guess_format`). If an utterance may have several texts
    (jsonl, json, csv, tsv), the one under `key` is used, else the first by `role`: "reference" or
    "hypothesis", then "text". The key of the first utterance is required in all, so that a
    reference never replaces a missing hypothesis.

    A ctm file gives one text for each file and channel, an stm file one for each scored segment.

    Raises:
        TranscriptError: the first wrong line or a repeated id, as `path:line: expected ..., got
            ...; do ...`; a file that is missing, empty, not UTF-8 or of no known format.
    """
    path = Path(path)
    format = format or guess_format(path)
    if format == "ctm":
        return ctm_texts(read_ctm(path))
    if format == "stm":
        found = stm_texts(read_stm(path))
        if not found:
            raise TranscriptError(
                f"{path}:1: expected at least one segment to score, got gaps and ignored ones"
                " alone; check the file"
            )
        return found
    keys = (key,) if key is not None else (role, "text")
    if format == "json":
        return read_json(path, keys)
    readers: dict[str, Callable[[Path, Sequence[str]], Iterator[Entry]]] = {
        "trn": _read_trn,
        "kaldi": _read_kaldi,
        "jsonl": read_jsonl,
        "csv": read_csv,
        "tsv": read_tsv,
    }
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, id_, text in readers[format](path, keys):
        check_new(lines, id_, line, path)
        texts[id_] = text
    if not texts:
        raise TranscriptError(f"{path}:1: expected at least one utterance, got none; add them")
    return texts


def read_pair(
    reference: str | Path,
    hypothesis: str | Path,
    reference_format: Format | None = None,
    hypothesis_format: Format | None = None,
    *,
    reference_key: str | None = None,
    hypothesis_key: str | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """The texts of both files, each read by `read_texts`; both may be the same file.

    With an stm reference, the words of a ctm hypothesis are first assigned to the segments of the
    reference (`cut_texts`). Optional words of trn, stm and ctm, (uh), are marked (`optional`).

    Raises TranscriptError as `read_texts`, and if no word lies in a segment.
    """
    reference, hypothesis = Path(reference), Path(hypothesis)
    reference_format = reference_format or guess_format(reference)
    hypothesis_format = hypothesis_format or guess_format(hypothesis)
    expected = read_texts(reference, reference_format, role="reference", key=reference_key)
    expected = _with_marks(expected, reference_format)
    if (reference_format, hypothesis_format) != ("stm", "ctm"):
        got = read_texts(hypothesis, hypothesis_format, role="hypothesis", key=hypothesis_key)
        got = _with_marks(got, hypothesis_format)
        return expected, _named_alike(got, expected)
    words = read_ctm(hypothesis)
    try:
        return expected, _with_marks(cut_texts(words, read_stm(reference)), "ctm")
    except TranscriptError as error:
        raise TranscriptError(f"{hypothesis}: {error}") from None


def _with_marks(texts: Mapping[str, str], format: Format) -> dict[str, str]:
    """The texts with their optional words marked (`optional`), if the format has such words."""
    nist = format in ("trn", "stm", "ctm")
    return {id_: mark(text) if nist else text for id_, text in texts.items()}


def _named_alike(texts: Mapping[str, str], like: Iterable[str]) -> dict[str, str]:
    """The texts under the ids of `like` if these are canonically equivalent: file names from macOS
    are decomposed. An id that matches exactly stays."""
    own = set(like)
    spelled = {canonical(id_): id_ for id_ in own}
    named: dict[str, str] = {}
    for id_, text in texts.items():
        other = id_ if id_ in own else spelled.get(canonical(id_), id_)
        named[id_ if other in texts or other in named else other] = text
    return named


def guess_format(path: str | Path) -> Format:
    """The format by the name of a file: its ending, or kaldi for .txt and a file named text.

    Raises TranscriptError for an unknown name.

    >>> guess_format("exp/ref.trn"), guess_format("data/test/text")
    ('trn', 'kaldi')
    """
    path = Path(path)
    for known in get_args(Format):
        if path.suffix.lower() == f".{known}" and known != "kaldi":
            return known
    if path.name == "text" or path.suffix.lower() == ".txt":
        return "kaldi"
    raise TranscriptError(
        f"{path}: expected a name that ends in .txt (Kaldi),"
        f" {', '.join(f'.{known}' for known in get_args(Format) if known != 'kaldi')}, got"
        f" {shown(path.name)}; rename it or give the format"
    )


# --- one text per line ---


def _read_trn(path: Path, keys: Sequence[str]) -> Iterator[Entry]:
    for number, line in numbered_lines(path, comments=True):
        found = _TRN.fullmatch(line)
        if not found or not found["id"].strip():
            raise TranscriptError(
                f"{path}:{number}: expected words and then (id), got {shown(line)}; add the id"
            )
        text = " ".join(found["text"].split())
        try:
            check_alternation(text)
        except ValueError as error:
            raise TranscriptError(f"{path}:{number}: {error}") from None
        yield number, found["id"].strip(), text


def _read_kaldi(path: Path, keys: Sequence[str]) -> Iterator[Entry]:
    for number, line in numbered_lines(path):
        id_, *words = split_fields(line, 2)
        yield number, id_, " ".join(" ".join(words).split())


# --- writing ---


def write_texts(path: str | Path, texts: Mapping[str, str], format: Format) -> None:
    """Write texts by id, atomically, so that `read_texts` returns them.

    Texts go under "text" in formats with keys. In trn and kaldi, spaces are collapsed.

    Raises:
        TranscriptError: an id or a text that the format cannot hold, no texts, an unwritable path,
        or ctm and stm, which need times (`write_ctm`, `write_stm`).
    """
    if format in ("ctm", "stm"):
        raise TranscriptError(
            f"{path}: expected a format of texts, got {format}, which has times;"
            " choose trn, kaldi, jsonl, json, csv or tsv"
        )
    if format == "json" and is_record(texts, ()):
        raise TranscriptError(
            f"{path}: expected other ids for json, got 'id' beside a name of texts; choose jsonl"
        )
    lines = []
    for id_, text in texts.items():
        checked(id_, text, "text", f"{path}: utterance {shown(id_)}")
        try:
            lines.append(_line(id_, text, format))
        except ValueError as error:
            raise TranscriptError(f"{path}: utterance {shown(id_)}: {error}") from None
    if lines and format == "json":
        lines = [json.dumps(dict(texts), indent=2, ensure_ascii=False)]
    elif lines and format in ("csv", "tsv"):
        lines.insert(0, "id,text" if format == "csv" else "id\ttext")
    write_lines(path, lines)


def _line(id_: str, text: str, format: Format) -> str:
    """The line of an utterance. Raises ValueError if the format cannot hold it."""
    if format in ("jsonl", "json"):
        return json.dumps({"id": id_, "text": text}, ensure_ascii=False)
    if id_ != id_.strip():
        raise ValueError("expected an id without spaces around it, got some; rename it")
    if format in ("csv", "tsv"):
        return _row(id_, text, format)
    if format == "kaldi":
        if split_fields(id_) != [id_]:
            raise ValueError("expected an id without spaces for kaldi, got some; rename it")
        return f"{id_} {one_line(text)}".rstrip()
    if re.search(r"[()\n\r]", id_):
        raise ValueError("expected an id without parentheses for trn, got some; rename it")
    line = f"{one_line(text)} ({id_})".lstrip()
    if line.startswith(";;"):
        raise ValueError(f"expected a text for trn, got a comment, {shown(line)}; leave out the ;;")
    check_alternation(line)
    return line


def _row(id_: str, text: str, format: Format) -> str:
    if format == "tsv" and re.search(r"[\t\n\r]", id_ + text):
        raise ValueError(
            f"expected neither tabs nor several lines for tsv, got {shown(text)}; choose csv"
        )
    # With the default line end, which is removed again, the writer quotes texts of several lines.
    row = io.StringIO(newline="")
    csv.writer(row, delimiter="\t" if format == "tsv" else ",").writerow([id_, text])
    return row.getvalue().removesuffix("\r\n")
