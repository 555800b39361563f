"""OpenAI's form, with its own client.

Covers `asr/serving/openai_api.py`, `asr/serving/app.py`, `asr/serving/upload.py`,
`asr/serving/config.py`, `asr/serving/limits.py`, `asr/serving/server.py`,
`asr/serving/errors.py`, `asr/serving/auth.py`, `asr/serving/connections.py`,
`asr/serving/engine.py`, `asr/serving/decoding_pool.py`, `asr/serving/decoding_worker.py`,
`asr/serving/fair_queue.py`, `asr/serving/hot_words.py`, `asr/serving/turns.py` and
`asr/cli/serve.py`.
"""

from __future__ import annotations

import io

import openai
import pytest
import soundfile

from asr.inference.recognizer import Recognizer
from tests.serving.running import Running
from tests.tones import RATE, sentence, speak


def wav(seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speak(sentence(seed), seed), RATE, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)


def test_the_text_is_that_of_the_recognizer(client: openai.OpenAI, recognizer: Recognizer) -> None:
    for seed in (1, 2, 3):
        result = client.audio.transcriptions.create(model="tones", file=("a.wav", wav(seed)))
        assert result.text == recognizer.transcribe(wav(seed)).text != ""
