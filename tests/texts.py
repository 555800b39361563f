"""Texts and their files, for the tests of formats."""

from __future__ import annotations

import string
from pathlib import Path

from hypothesis import strategies as st

plain = st.text(string.ascii_letters + string.digits + "-_./<é京", min_size=1, max_size=8)
spoken = st.lists(plain | st.sampled_from(["(er)", '"', '"so"', "<unk>", "'s", ","])).map(" ".join)


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
