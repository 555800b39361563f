"""Corpora on the Hugging Face hub: a split as sound files, fetched by row.

Recordings are taken as bytes (`Audio(decode=False)`) and decoded by this package. Every written row
is recorded in the split's journal, so that a stopped run resumes, and a finished one needs no
network. Datasets with their own code are refused by `datasets`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import soundfile

from asr.audio.load import SAMPLE_RATE, load_audio
from asr.audio.pcm import to_int16
from asr.dataset.manifest import Utterance
from asr.errors import AsrError, AudioError
from asr.io.caches import set_cache_folders
from asr.io.files import atomic_path
from asr.io.structured import parse_record
from data.corpus import Progress, Say

JOURNAL = "fetched.jsonl"
STATE_EVERY = 100  # rows; after a stop this many are read again, but not written again
FOLDER_HOLDS = 1000  # recordings


@dataclass(frozen=True)
class Split:
    """A split of a dataset on the hub, or of a local copy of one."""

    dataset: str
    """Its name on the hub, or a folder written by `save_to_disk`, or one with the parquet files of
    the hub's repository, CONFIG/NAME-*.parquet."""
    config: str
    name: str

    def __str__(self) -> str:
        return f"{self.dataset} ({self.config}, {self.name})"


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset for the keys of a manifest; "" for one that it lacks."""

    text: str
    audio: str = "audio"
    id: str = ""
    """Without it, rows are numbered. A repeated id also gets its row number."""
    speaker: str = ""
    extra: tuple[str, ...] = ()


def materialise(
    split: Split,
    columns: Columns,
    folder: Path,
    progress: Progress | None = None,
    say: Say = print,
) -> list[Utterance]:
    """The utterances of a split, with recordings below `folder` as 16-bit FLAC at 16 kHz.

    Rows are streamed: nothing is downloaded as a whole. Rows without text and recordings that
    cannot be decoded are left out, and their number is reported. Raises AsrError if the dataset, a
    column or the network is missing, and if `folder` holds another split.
    """
    journal = folder / JOURNAL
    header = {"split": asdict(split), "columns": asdict(columns)}
    done = _read_journal(journal, json.loads(json.dumps(header)))
    if not done.complete:
        folder.mkdir(parents=True, exist_ok=True)
        with journal.open("a", encoding="utf-8") as notes:
            if not journal.stat().st_size:
                _note(notes, header)
            _fetch(split, columns, folder, done, notes, progress)
        done = _read_journal(journal, json.loads(json.dumps(header)))
    if done.left_out:
        say(f"left out of {split}: {done.left_out} of {done.rows} rows, without text or sound")
    return [replace(u, audio=folder / u.audio) for u in done.utterances.values()]


# --- the journal: a header, one line per row, the position in the dataset, an end line ---


@dataclass
class _Done:
    utterances: dict[int, Utterance]
    state: Mapping[str, Any] | None = None
    rows: int = 0
    complete: bool = False

    @property
    def left_out(self) -> int:
        return self.rows - len(self.utterances)


def _note(notes: IO[str], record: Mapping[str, Any]) -> None:
    notes.write(json.dumps(record, ensure_ascii=False) + "\n")
    notes.flush()


def _read_journal(path: Path, header: Mapping[str, Any]) -> _Done:
    """The results of earlier runs; an incomplete last line is removed from the file."""
    done = _Done({})
    if not path.exists():
        return done
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    lines = whole.splitlines()
    if len(lines) == 1:  # nothing was fetched: the request may be changed
        path.unlink()
        return done
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_record(line)
            if number == 1:
                _check_header(record, header, path)
                continue
            _take(done, record)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AsrError(
                f"expected a note of what was fetched, got '{line[:40].decode(errors='replace')}' "
                f"({path}:{number}): delete {path.parent} and run again"
            ) from None
        if "audio" in record and not (path.parent / record["audio"]).is_file():
            raise AsrError(
                f"expected {record['audio']}, got no such file ({path}:{number}): delete "
                f"{path.parent} and run again"
            )
    return done


def _check_header(found: Mapping[str, Any], header: Mapping[str, Any], path: Path) -> None:
    """Raise AsrError naming the differences from the request for which the folder was created."""
    differing = [
        f"{key}={found[part].get(key)}"
        for part, settings in header.items()
        for key, value in settings.items()
        if found[part].get(key) != value
    ]
    if differing:
        raise AsrError(
            f"expected a request as the one that began {path}, with {', '.join(differing)}, got "
            "another: name another folder, or delete this one"
        )


def _take(done: _Done, record: dict[str, Any]) -> None:
    if "state" in record:
        done.state, done.rows = record["state"], record["rows"]
    elif "rows" in record:
        done.rows, done.complete = record["rows"], True
    else:
        row = record.pop("row")
        done.utterances[row] = Utterance(**record | {"audio": Path(record["audio"])})


# --- rows ---


def _fetch(
    split: Split,
    columns: Columns,
    folder: Path,
    done: _Done,
    notes: IO[str],
    progress: Progress | None,
) -> None:
    set_cache_folders(folder.absolute())
    rows, total, names = _open(split, columns)
    if done.state is not None:
        rows.load_state_dict(dict(done.state))
    ids = {utterance.id for utterance in done.utterances.values()}
    row = done.rows
    for values in _guarded(rows, split):
        if row not in done.utterances:
            _check_columns(columns, values, split)
            utterance = _written(row, values, columns, split, names, ids, folder)
            if utterance is not None:
                ids.add(utterance.id)
                record = {k: v for k, v in asdict(utterance).items() if v not in ("", None, {})}
                _note(notes, {"row": row} | record | {"audio": str(utterance.audio)})
        row += 1
        if row % STATE_EVERY == 0:
            _note(notes, {"rows": row, "state": rows.state_dict()})
            if progress:
                progress(row, total)
    _note(notes, {"rows": row})


def _open(split: Split, columns: Columns) -> tuple[Any, int, dict[str, Any]]:
    """A dataset with a resumable position, its rows (0: unknown), and its class columns."""
    from datasets import Audio, Dataset, load_dataset, load_from_disk

    try:
        local = Path(split.dataset)
        parquet = sorted(str(p) for p in (local / split.config).glob(f"{split.name}-*.parquet"))
        if parquet:
            files = {split.name: parquet}
            loaded = load_dataset("parquet", data_files=files, split=split.name, streaming=True)
        elif local.is_dir():
            saved = load_from_disk(split.dataset)
            loaded = saved if isinstance(saved, Dataset) else saved[split.name]
        else:
            loaded = load_dataset(split.dataset, split.config, split=split.name, streaming=True)
        known = (loaded.info.splits or {}).get(split.name)
        total = len(loaded) if isinstance(loaded, Dataset) else known.num_examples if known else 0
        rows = loaded.cast_column(columns.audio, Audio(decode=False))
        if isinstance(rows, Dataset):
            rows = rows.to_iterable_dataset()
    except Exception as error:  # the library raises almost any exception
        raise _unreadable(split, error) from None
    kinds = {name: kind for name, kind in (loaded.features or {}).items() if hasattr(kind, "names")}
    return rows, total, kinds


def _guarded(rows: Any, split: Split) -> Iterator[dict[str, Any]]:
    iterator = iter(rows)
    while True:
        try:
            values = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # so can network code
            raise _unreadable(split, error) from None
        yield values


def _unreadable(split: Split, error: Exception) -> AsrError:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return AsrError(
        f"expected {split} from the hub or a local copy, got '{words}': check the name and the "
        "network, and run again to resume"
    )


def _check_columns(columns: Columns, values: Mapping[str, Any], split: Split) -> None:
    wanted = [columns.text, columns.audio, columns.id, columns.speaker, *columns.extra]
    missing = [name for name in wanted if name and name not in values]
    if missing:
        raise AsrError(
            f"expected the column {missing[0]} in {split}, got {', '.join(values)}: name the "
            "columns that it has"
        )


def _written(
    row: int,
    values: Mapping[str, Any],
    columns: Columns,
    split: Split,
    names: Mapping[str, Any],
    taken: set[str],
    folder: Path,
) -> Utterance | None:
    """One row as an utterance with its recording written; None without text or sound."""
    text = " ".join(str(values[columns.text] or "").split())
    sound = values[columns.audio] or {}
    content, path = sound.get("bytes"), sound.get("path") or ""
    if content is None and path and Path(path).is_file():
        content = Path(path).read_bytes()
    if not text or not content:
        return None
    # Files are named by row: ids may be invalid as file names, or lead out of the folder.
    audio = Path(f"{row // FOLDER_HOLDS:04}", f"{row:07}.flac")
    try:
        duration = _write_audio(folder / audio, content)
    except AudioError:
        return None
    identity = str(values[columns.id]) if columns.id else f"{split.name}-{row:07}"
    extra = {name: _plain(values[name], names.get(name)) for name in columns.extra}
    return Utterance(
        identity if identity not in taken else f"{identity}-{row}",
        audio,
        text,
        duration,
        str(values[columns.speaker] or "") if columns.speaker else "",
        extra={name: value for name, value in extra.items() if value not in (None, "")},
    )


def _plain(value: Any, kind: Any) -> Any:
    """A class by its name instead of its number."""
    return (
        kind.names[value] if kind is not None and isinstance(value, int) and value >= 0 else value
    )


def _write_audio(path: Path, content: bytes) -> float:
    """Write a recording atomically and return its seconds. Raises AudioError."""
    samples = load_audio(content)
    sound = io.BytesIO()  # soundfile's own error does not report a full disk
    soundfile.write(sound, to_int16(samples), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with atomic_path(path) as temporary:
        temporary.write_bytes(sound.getvalue())
    return len(samples) / SAMPLE_RATE
