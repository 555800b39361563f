"""espeak-ng, loaded from the package espeakng-loader: C library, voices, and phones.

Requires the extra `demo`: `pip install 'lstm-asr[demo]'`.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from asr.errors import AsrError
from asr.io.extras import extras_explained

RATE = 22050  # Hz of its output

# From its C interface (speak_lib.h).
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_IPA = 0x02
_DATA_PATH_LIMIT = 140  # a longer path overflows a fixed buffer, and espeak-ng searches elsewhere

_APART = ord("_")  # separates phones, which may have several letters
_STRESS = re.compile("[ˈˌ]")
_LANGUAGE = re.compile(r"\([^)]*\)")  # such as (en) before a foreign word

_library_lock = threading.Lock()


@contextmanager
def library() -> Iterator[ctypes.CDLL]:
    """A newly loaded espeak-ng, unloaded at exit.

    Pitch flutter, gain control and noise are static variables that no call resets. A library that
    stays loaded would therefore speak the second utterance differently from the first. Loading
    takes about four milliseconds.
    """
    with extras_explained():
        import espeakng_loader
    path, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    process = ctypes.CDLL(None)
    process.dlclose.argtypes = [ctypes.c_void_p]
    with _library_lock, ExitStack() as stack:
        if len(data.encode()) > _DATA_PATH_LIMIT:
            opened = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, opened)
            data = f"/proc/self/fd/{opened}"  # short, and needs no folder for temporary files
        try:
            loaded = ctypes.CDLL(path)
        except OSError as error:
            raise AsrError(
                f"espeak-ng: expected a loadable espeak-ng, got {error}; "
                "reinstall it with: pip install --force-reinstall espeakng-loader"
            ) from None
        stack.callback(process.dlclose, loaded._handle)
        rate = loaded.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), _INITIALIZE_DONT_EXIT
        )
        stack.callback(loaded.espeak_Terminate)
        if rate != RATE:
            raise AsrError(
                f"espeak-ng: expected espeak-ng at {RATE} Hz, got {rate} from "
                f"{data}; reinstall it with: pip install --force-reinstall espeakng-loader"
            )
        process.srand(1)
        loaded.espeak_ng_SetRandSeed(ctypes.c_long(1))
        yield loaded


def set_voice(library: ctypes.CDLL, voice: str) -> None:
    """Select the voice. Raises AsrError for a voice that espeak-ng does not have."""
    import espeakng_loader

    _, plus, variant = voice.partition("+")
    # espeak-ng ignores an unknown variant silently.
    known = not plus or Path(espeakng_loader.get_data_path(), "voices", "!v", variant).is_file()
    if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise AsrError(
            f"espeak-ng: expected a voice of espeak-ng, got {voice!r}; "
            "take an accent such as en-us or en-gb-scotland, alone or with a variant such as +f3"
        )


def phones_of(words: Iterable[str], voice: str) -> dict[str, str]:
    """The phones of each word alone, in IPA without stress, separated by spaces; none for text that
    espeak-ng does not speak.

    Raises AsrError if espeakng-loader is missing or does not have the voice.
    """
    found = {}
    with library() as loaded:
        set_voice(loaded, voice)
        convert = loaded.espeak_TextToPhonemes
        convert.restype = ctypes.c_char_p
        convert.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        for word in words:
            # The call moves the pointer to the next clause, and to null after the last.
            rest, said = ctypes.c_char_p(word.encode()), []
            while rest.value:
                clause = convert(ctypes.byref(rest), _CHARS_UTF8, _IPA | _APART << 8)
                said.append((clause or b"").decode())
            plain = _STRESS.sub("", _LANGUAGE.sub(" ", " ".join(said)))
            found[word] = " ".join(plain.replace(chr(_APART), " ").split())
    return found
