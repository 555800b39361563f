"""Kaldi's data folders: wav.scp and text, with segments, utt2spk or spk2utt if they exist.

Entries of wav.scp may be commands whose output Kaldi reads. No command is run here. For a command
that only decodes one file to wav, the file is read; utterances of other commands are left out.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from asr.dataset.lines import check_new, numbered_lines, shown, split_fields
from asr.dataset.source import LeftOut, Source, new_utterance
from asr.dataset.tables import find_recording, stretch
from asr.errors import AsrError

_Segment = tuple[str, float, float | None]  # recording, start and end in seconds

# Options that change neither the sound nor its duration, with their number of values.
_DECODERS = {
    "cat": {},
    "flac": {"--decode": 0, "--stdout": 0, "--silent": 0, "--totally-silent": 0},
    "sph2pipe": {"-f": 1, "-p": 0},
    "sox": {"-t": 1, "-r": 1, "-b": 1, "-e": 1, "-c": 1},
    "ffmpeg": {
        "-i": 0, "-f": 1, "-ar": 1, "-ac": 1, "-acodec": 1, "-c:a": 1, "-loglevel": 1, "-v": 1,
        "-threads": 1, "-vn": 0, "-y": 0, "-nostdin": 0, "-hide_banner": 0,
    },
}  # fmt: skip
_FLAC_LETTERS = re.compile(r"-[cdfsF]+")
_OUTPUTS = frozenset({"-", "pipe:1", "/dev/stdout"})
_ARCHIVED = re.compile(r".*\.ark:\d+(\[.*\])?")


def read_kaldi(folder: Path) -> Source:
    """The utterances of a folder with wav.scp.

    Raises AsrError or TranscriptError naming file and line for a malformed list.
    """
    recordings = _recordings(folder / "wav.scp")
    texts = _table(folder / "text")
    segments = _segments(folder / "segments") if (folder / "segments").is_file() else None
    speakers = _speakers(folder)
    found, left_out = [], []
    for name, (line, rest) in texts.items():
        words = " ".join(rest.split())
        place = _place(name, recordings, segments) if words else "no text"
        if isinstance(place, str):
            left_out.append(LeftOut(f"{name} ({folder / 'text'}:{line})", place))
        else:
            audio, start, end = place
            who = speakers.get(name, "")
            found.append(new_utterance(name, audio, words, who, start, end))
    untold = [name for name in (segments or recordings) if name not in texts]
    left_out += [LeftOut(name, f"not in {folder / 'text'}") for name in untold]
    named = ("utt2spk" if (folder / "utt2spk").is_file() else "spk2utt") if speakers else ""
    return Source("a Kaldi folder", tuple(found), tuple(left_out), named)


def _place(
    name: str, recordings: dict[str, Path | str], segments: dict[str, _Segment | str] | None
) -> tuple[Path, float, float | None] | str:
    """The segment of an utterance, or why there is none."""
    where = (name, 0.0, None) if segments is None else segments.get(name, "not in segments")
    if isinstance(where, str):
        return where
    recording, start, end = where
    audio = recordings.get(recording, f"{recording} is not in wav.scp")
    return audio if isinstance(audio, str) else (audio, start, end)


def _table(path: Path) -> dict[str, tuple[int, str]]:
    """The first word of each line, with the line number and the rest of the line."""
    found: dict[str, tuple[int, str]] = {}
    lines: dict[str, int] = {}
    for number, line in numbered_lines(path):
        name, *rest = split_fields(line, 2)
        check_new(lines, name, number, path)
        found[name] = (number, "".join(rest))
    return found


def _speakers(folder: Path) -> dict[str, str]:
    """The speaker of each utterance by utt2spk, or else by spk2utt."""
    if (folder / "utt2spk").is_file():
        speakers = {name: who for name, (_, who) in _table(folder / "utt2spk").items()}
    elif (folder / "spk2utt").is_file():
        lists = _table(folder / "spk2utt").items()
        speakers = {name: who for who, (_, names) in lists for name in split_fields(names)}
    else:
        return {}
    # In Kaldi, an unknown speaker has the name of the utterance.
    return {} if all(who == name for name, who in speakers.items()) else speakers


def _recordings(path: Path) -> dict[str, Path | str]:
    """Each recording, or why there is none; paths are relative to the list or to the working
    folder."""
    return {name: _recording(path.parent, place) for name, (_, place) in _table(path).items()}


def _recording(folder: Path, place: str) -> Path | str:
    name = place
    if place.endswith("|") or place.startswith("|"):
        name = decoded_file(place.removesuffix("|")) or ""
        if not name:
            return (
                f"its entry in wav.scp is the command {shown(place)}, and commands are not run:"
                " write its output to a file and name that"
            )
    elif _ARCHIVED.fullmatch(place):
        return f"it lies in an archive of Kaldi, {shown(place)}: write it to a file"
    found = find_recording(folder, name) or find_recording(Path(), name)
    return found or f"no such recording: {name}"


def decoded_file(command: str) -> str | None:
    """The file that a command decodes to wav on its output, if the command does nothing else.

    >>> decoded_file("flac -c -d -s a.flac"), decoded_file("sox a.wav -t wav - speed 0.9")
    ('a.flac', None)
    """
    try:
        program, *arguments = shlex.split(command)
    except ValueError:
        return None
    program = Path(program).name
    if program not in _DECODERS or any(set("|&;<>$`()*?\n") & set(a) for a in arguments):
        return None
    options = _DECODERS[program]
    files: list[str] = []
    while arguments:
        argument = arguments.pop(0)
        if program == "sox" and "-" in files:
            return None  # effects follow the output
        if argument in options:
            del arguments[: options[argument]]
        elif program == "sox" and argument == "-":
            files.append(argument)
        elif argument.startswith("-") and argument not in _OUTPUTS:
            if program != "flac" or not _FLAC_LETTERS.fullmatch(argument):
                return None
        elif argument not in _OUTPUTS:
            files.append(argument)
    files = [file for file in files if file not in _OUTPUTS]
    return files[0] if len(files) == 1 else None


def _segments(path: Path) -> dict[str, _Segment | str]:
    """The interval of each segment, or why it cannot be used."""
    found: dict[str, _Segment | str] = {}
    for name, (line, rest) in _table(path).items():
        where, fields = f"{path}:{line}", split_fields(rest)
        if len(fields) == 4:
            found[name] = "its segment names a channel: write each channel to a file of its own"
            continue
        if len(fields) != 3:
            raise AsrError(
                f"expected an utterance, its recording, start and end, got {shown(rest)} after"
                f" {shown(name)} ({where}): correct it"
            )
        start, end = fields[1:]
        # Kaldi's -1 is the end of the recording.
        try:
            times = {"start": start, "end": None if float(end) == -1 else end}
        except ValueError:
            times = {"start": start, "end": end}
        found[name] = (fields[0], *stretch(times, where))
    return found
