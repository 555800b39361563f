"""The page of the documentation has the limits that hold."""

from __future__ import annotations

import re
from pathlib import Path

from asr.serving.hot_words import MOST_CHARACTERS, MOST_IN_PROMPT
from asr.serving.limits import Limits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def test_the_page_has_the_limits() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Limits\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.M))
    limits = Limits()
    whole = "request, from its beginning to the end of its answer"
    decoding = "decoding of the first 40 seconds of audio, and of each ten seconds after them"
    assert rows == {
        "upload": f"{limits.upload_bytes >> 20} MB; all at once {limits.held_bytes >> 30} GB",
        "recording": f"{limits.audio_s / 3600:g} hours",
        whole: f"{limits.request_s / 60:g} minutes",
        "silence of a client within a request": f"{limits.idle_s:g} s",
        "speed of an upload": f"{limits.slowest_bytes / 1000:g} kB/s, after {limits.idle_s:g} s",
        "connections": f"{limits.connections}",
        "requests in the queue": f"{limits.queue}",
        "recordings of more than half a minute at once": f"{limits.long_recordings}; others wait",
        decoding: f"{limits.decoding_s:g} s, {limits.decoding_bytes >> 30} GB of memory",
        "hot words of a request": f"{limits.keywords} of at most {MOST_CHARACTERS} characters; "
        f"over HTTP up to {MOST_IN_PROMPT} from `prompt` besides",
        "live sessions": f"{limits.live_sessions}; a minute without a message",
        "end after SIGTERM": f"{limits.stop_s:g} s for what was accepted",
    }
    assert (limits.live_idle_s, limits.queued_s) == (60, 600)
