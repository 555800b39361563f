"""A synthetic speech corpus: voice commands spoken by espeak-ng.

The demo needs no recordings and no network: a small grammar generates the sentences, a formant
synthesiser speaks them in many voices, and one seed determines all random numbers. The same seed
gives the same bytes in every run.

Requires the extra `demo`: `pip install 'lstm-asr[demo]'`.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soxr

from asr.audio.load import SAMPLE_RATE, write_wav
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, ManifestError
from asr.io.files import atomic_path, read_json, write_json
from asr.text.espeak import RATE, library, set_voice

# Raised whenever the same seed would give another corpus, so that an old one is not reused.
VERSION = 1

# A voice is an accent and a speaker: "en-us+f3". The part after the plus sign sets formants, pitch
# and timbre, that is, the speaker; no speaker occurs in two splits. Whispering, robotic and
# noise-driven voices are left out, and so are near copies of the ones below.
VOICES: dict[str, tuple[str, ...]] = {
    "train": (
        *("en-us+m1", "en-us+f2", "en-us+Annie", "en-us+pedro", "en-us+grandma"),
        *("en+m4", "en+aunty", "en+Mario", "en+shelby", "en+max"),
        *("en-gb-x-rp+m8", "en-gb-x-rp+f3", "en-gb-x-rp+rob"),
        *("en-gb-scotland+m2", "en-gb-scotland+belinda", "en-gb-scotland+marcelo"),
        *("en-029+Michael", "en-029+anika", "en-029+quincy"),
        *("en-gb-x-gbclan+Andrea", "en-gb-x-gbclan+boris"),
        *("en-gb-x-gbcwmd+steph", "en-gb-x-gbcwmd+RicishayMax"),
        *("en-us-nyc+caleb", "en-us-nyc+Hugo"),
    ),
    "dev": ("en-us+f1", "en+m5", "en-gb-x-rp+miguel", "en-us-nyc+linda"),
    "test": ("en-us+m3", "en+f5", "en-gb-scotland+f4", "en-029+m7"),
}
UTTERANCES_PER_VOICE: dict[str, int] = {"train": 30, "dev": 12, "test": 20}

WORDS_PER_MINUTE = (140, 200)
PITCH = (35, 65)  # espeak's own scale: 0 to 99, 50 is the voice's natural pitch
LEVEL_DB = (-32.0, -18.0)  # of the speech, relative to full scale (RMS)
SNR_DB = (18.0, 40.0)
SILENCE_S = (0.1, 0.4)  # before and after the speech

_STAMP = "corpus.json"

_UNITS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty")
_SLOTS: dict[str, tuple[str, ...]] = {
    "number": (*_UNITS, *_TEENS, *_TENS, *(f"{a} {b}" for a in _TENS for b in _UNITS)),
    "hour": (*_UNITS, "ten", "eleven", "twelve"),
    "minute": ("ten", "fifteen", "twenty", "thirty", "forty", "fifty"),
    "percent": ("ten", *_TENS, "sixty", "seventy", "eighty", "ninety"),
    "switch": ("on", "off"),
    "room": ("kitchen", "bedroom", "bathroom", "garden", "hall", "garage", "office"),
    "device": ("lights", "lamp", "fan", "heater", "radio", "television"),
    "opening": ("door", "window", "curtains"),
    "move": ("open", "close", "lock"),
    "music": ("jazz", "rock", "folk", "piano", "dance", "guitar"),
    "order": ("next", "previous", "last", "first"),
    "track": ("song", "album", "station"),
    "span": ("seconds", "minutes", "hours"),
    "time": ("morning", "afternoon", "evening"),
    "day": ("today", "tomorrow", "on monday", "on tuesday", "on friday", "on sunday"),
    "name": ("anna", "david", "maria", "peter", "susan", "robert"),
    "place": ("bank", "hospital", "hotel", "market", "school", "airport", "station"),
    "city": ("london", "paris", "boston", "dublin", "berlin", "chicago"),
    "side": ("left", "right"),
    "mark": ("bridge", "corner", "church", "river"),
    "travel": ("drive", "walk", "ride"),
    "food": ("apples", "bread", "butter", "cheese", "eggs", "rice"),
    "drink": ("coffee", "juice", "milk", "tea"),
    "sum": ("plus", "minus", "times"),
    "sky": ("rain", "snow"),
    "task": ("water the plants", "feed the cat", "pay the rent", "clean the oven"),
}
_TEMPLATES: tuple[str, ...] = (
    "turn {switch} the {room} {device}",
    "turn the {room} {device} {switch}",
    "{move} the {room} {opening}",
    "set the {room} temperature to {number} degrees",
    "dim the {room} lights to {percent} percent",
    "play some {music} music in the {room}",
    "play the {order} {track}",
    "play the {order} {track} by {name}",
    "set the volume to {percent} percent",
    "set a timer for {number} {span}",
    "set an alarm for {hour} {minute} in the {time}",
    "wake me at {hour} {minute} {day}",
    "call {name} {day} at {hour} {minute}",
    "send a message to {name} {day}",
    "{travel} to the nearest {place}",
    "{travel} to the {place} in {city}",
    "turn {side} at the {mark} in {number} steps",
    "how far is the {place} from the {mark}",
    "what is the weather in {city} {day}",
    "will it {sky} in {city} {day}",
    "add {food} and {drink} to the shopping list",
    "remind me to {task} {day}",
    "what is {number} {sum} {number}",
)


def sentences(count: int, seed: int) -> list[str]:
    """`count` different voice commands, drawn evenly from all patterns of the grammar.

    Raises AsrError if the grammar has fewer sentences than `count`.

    >>> sentences(3, seed=0) == sentences(3, seed=0)
    True
    """
    generator = np.random.default_rng(seed)
    queues = [[pattern[i] for i in generator.permutation(len(pattern))] for pattern in _grammar()]
    # One from each pattern in turn, so that patterns with thousands of sentences do not dominate.
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    drawn = list(itertools.islice(dict.fromkeys(s for s in rounds if s is not None), count))
    if len(drawn) < count:
        raise AsrError(
            f"spoken corpus: expected at most {len(drawn)} different sentences, got a request for "
            f"{count}; ask for fewer utterances per voice"
        )
    return [drawn[i] for i in generator.permutation(count)]


def _grammar() -> list[list[str]]:
    """Every sentence of each pattern."""
    patterns = []
    for template in _TEMPLATES:
        choices = [_SLOTS[w[1:-1]] if w.startswith("{") else (w,) for w in template.split()]
        patterns.append([" ".join(words) for words in itertools.product(*choices)])
    return patterns


def synthesise(
    text: str, voice: str = "en-us", words_per_minute: int = 175, pitch: int = 50
) -> np.ndarray:
    """Speak `text`: float32 samples in [-1, 1] at 16 kHz.

    `voice` is an espeak-ng accent, alone or with a variant ("en-gb-scotland+f3"); `pitch` ranges
    from 0 to 99. The result depends only on the arguments, not on earlier calls.

    Shape: [S] samples.

    Raises AsrError if espeakng-loader is missing or does not have the voice, and for a text without
    words.
    """
    return synthesise_with_times(text, voice, words_per_minute, pitch)[0]


def synthesise_with_times(
    text: str, voice: str = "en-us", words_per_minute: int = 175, pitch: int = 50
) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """As `synthesise`, with the start of each word: (word, seconds from the first sample).

    Words that espeak-ng joins ("on the") are one entry.
    """
    pcm, starts = _speak(text, voice, words_per_minute, pitch)
    samples = np.frombuffer(pcm, dtype=np.int16).astype(np.float32) / 32768
    resampled = soxr.resample(samples, RATE, SAMPLE_RATE).astype(np.float32)
    ends = [position for position, _ in starts[1:]] + [len(text)]
    times = [
        (text[position:end].strip(), milliseconds / 1000)
        for (position, milliseconds), end in zip(starts, ends, strict=True)
    ]
    return np.clip(resampled, -1.0, 1.0), times


# espeak-ng's C interface (speak_lib.h).
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_EVENT_LIST_TERMINATED, _EVENT_WORD = 0, 1


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def _speak(
    text: str, voice: str, words_per_minute: int, pitch: int
) -> tuple[bytes, list[tuple[int, int]]]:
    """16-bit PCM at 22.05 kHz, and (character offset, milliseconds) of each word."""
    chunks: list[bytes] = []
    starts: list[tuple[int, int]] = []

    def collect(wave: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        if wave and count:
            chunks.append(ctypes.string_at(wave, 2 * count))
        for i in itertools.count():
            if events[i].type == _EVENT_LIST_TERMINATED:
                break
            if events[i].type == _EVENT_WORD:
                starts.append((events[i].text_position - 1, events[i].audio_position))
        return 0

    callback = _Callback(collect)
    with library() as loaded:
        loaded.espeak_SetSynthCallback(callback)
        set_voice(loaded, voice)
        loaded.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
        loaded.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
        data = ctypes.create_string_buffer(text.encode())
        size = ctypes.c_size_t(len(data))
        loaded.espeak_Synth(data, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
    if not starts:
        raise AsrError(f"speech synthesis: expected words to speak, got {text!r}; give a text")
    return b"".join(chunks), starts


def make_corpus(
    folder: str | Path,
    seed: int = 0,
    per_voice: Mapping[str, int] = UTTERANCES_PER_VOICE,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Speak a corpus into `folder` and return its manifests: "train", "dev" and "test".

    Voices and sentences are disjoint between the three. Speed, pitch, level, background noise and
    the silence around the speech vary between utterances. The folder is created atomically; an
    existing one with the same seed and sizes is reused. `progress` is called with (utterances
    spoken, utterances in total).

    Raises AsrError if espeakng-loader is missing, or `folder` holds anything else.
    """
    folder = Path(folder)
    stamp = {"version": VERSION, "seed": seed, "per_voice": dict(per_voice)}
    manifests = {split: folder / f"{split}.jsonl" for split in VOICES}
    if _reusable(folder, stamp, manifests):
        return manifests
    orders = _orders(seed, per_voice)
    with atomic_path(folder) as temporary:
        spoken: dict[str, list[Utterance]] = {split: [] for split in VOICES}
        for i, (split, voice, text) in enumerate(orders):
            (temporary / split).mkdir(parents=True, exist_ok=True)
            path = temporary / split / f"{voice.replace('+', '-')}-{i:04d}.wav"
            spoken[split].append(_record(path, voice, text, np.random.default_rng([seed, i])))
            if progress is not None:
                progress(i + 1, len(orders))
        for split, utterances in spoken.items():
            write_manifest(temporary / f"{split}.jsonl", utterances)
        write_json(temporary / _STAMP, stamp)
    return manifests


def _reusable(folder: Path, stamp: dict[str, object], manifests: Mapping[str, Path]) -> bool:
    """Whether `folder` is this corpus. Raises AsrError if it is something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = read_json(folder / _STAMP)
    except (OSError, ValueError):
        raise AsrError(
            f"{folder}: expected a new folder or an earlier spoken corpus, got something else; "
            "choose another folder or remove it"
        ) from None
    if isinstance(found, dict) and found.get("version") == VERSION and found != stamp:
        raise AsrError(
            f"{folder}: expected the corpus of seed {stamp['seed']} and {stamp['per_voice']}, got "
            "another; choose another folder or remove it"
        )
    try:
        utterances = [u for path in manifests.values() for u in read_manifest(path)]
    except ManifestError:
        return False
    return found == stamp and all(u.audio.is_file() for u in utterances)


def _orders(seed: int, per_voice: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """(split, voice, text) of every utterance."""
    total = sum(len(voices) * per_voice[split] for split, voices in VOICES.items())
    speakers = [voice.partition("+")[2] for voices in VOICES.values() for voice in voices]
    texts = sentences(total, seed)
    # Each speaker and each sentence is in one split only.
    assert len(set(speakers)) == len(speakers)
    assert len(set(texts)) == len(texts)
    places = [(s, v) for s, voices in VOICES.items() for v in voices for _ in range(per_voice[s])]
    return [(*place, text) for place, text in zip(places, texts, strict=True)]


def _record(path: Path, voice: str, text: str, generator: np.random.Generator) -> Utterance:
    """Speak one utterance, add silence and noise, and write it."""
    words_per_minute = int(generator.integers(*WORDS_PER_MINUTE, endpoint=True))
    pitch = int(generator.integers(*PITCH, endpoint=True))
    samples = _surround(synthesise(text, voice, words_per_minute, pitch), generator)
    write_wav(path, samples, SAMPLE_RATE)
    duration = len(samples) / SAMPLE_RATE
    return Utterance(path.stem, path.absolute(), text, duration, voice.replace("+", "-"))


def _surround(speech: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Set the level, add silence before and after, and background noise of random colour."""
    before, after = (int(s * SAMPLE_RATE) for s in generator.uniform(*SILENCE_S, size=2))
    level = 10 ** (generator.uniform(*LEVEL_DB) / 20)
    padded = np.pad(speech / _rms(speech), (before, after))
    # A power spectrum of 1/f^slope: white at 0, pink at 1, a distant rumble at 2.
    slope = generator.uniform(0.0, 2.0)
    size = 1 << len(padded).bit_length()  # a transform of prime length would be slow
    spectrum = np.fft.rfft(generator.standard_normal(size))
    spectrum /= np.arange(1, len(spectrum) + 1) ** (slope / 2)
    noise = np.fft.irfft(spectrum)[: len(padded)]
    noise *= 10 ** (-generator.uniform(*SNR_DB) / 20) / _rms(noise)
    return np.clip(level * (padded + noise), -1.0, 1.0).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
