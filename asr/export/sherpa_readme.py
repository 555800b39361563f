"""The README of a folder for sherpa-onnx: what it is, and how to run it."""

from __future__ import annotations

import math
import textwrap

from asr.export.sherpa_files import SAMPLES, STREAM, Slot, slot_options
from asr.export.sherpa_graphs import frame_samples
from asr.export.streaming import chunks_of, tail_seconds
from asr.models.bundle import Bundle

ASSUMED_FRAME_MS = 40  # by which the streaming slot counts time
SAMPLES_FRAME_MS = 20  # by which the slot of samples does
PROGRAM_TAIL = 0.8  # seconds of silence that the program sherpa-onnx appends


_BROWSER = """
## Browser

`index.html` recognises recordings, and what the microphone hears, in the browser itself. It needs
the package onnxruntime-web in this folder, once:

```sh
npm pack onnxruntime-web && tar xzf onnxruntime-web-*.tgz && mv package/dist onnxruntime-web
```

Of these files, the page uses `ort.wasm.min.js`, `ort-wasm-simd-threaded.mjs` and
`ort-wasm-simd-threaded.wasm`. Then `python -m http.server` serves it at http://localhost:8000.
Other addresses need https for the microphone.
"""


def readme_text(bundle: Bundle, slot: Slot, with_graph: bool = False) -> str:
    """Instructions in Markdown; the code in it runs as it stands in the folder."""
    code = _streaming_code(bundle) if slot is STREAM else _whole_code(bundle, slot)
    return f"""# A speech recogniser for sherpa-onnx

Written by `asr export --to sherpa`. [sherpa-onnx](https://github.com/k2-fsa/sherpa-onnx) runs it on
Linux, macOS, Windows, Android, iOS and boards such as the Raspberry Pi, from Python, C, C++, C#,
Dart, Go, Java, JavaScript, Kotlin, Pascal, Rust and Swift. No part of it needs the network.

| file | content |
|---|---|
| `model.onnx` | the network, float32 |
| `model.int8.onnx` | the same with 8-bit weights in its recurrent layers: smaller and faster |
| `tokens.txt` | the tokens and their ids; 0 is the blank of CTC |

{_streaming_remarks(bundle) if slot is STREAM else _remarks(bundle, slot, with_graph)}

## Command line

`pip install sherpa-onnx sherpa-onnx-bin` installs the programs on Linux, macOS and Windows. They
read wav files with one channel of 16 bits.

```bash
{command_line(bundle, slot)}
```

## Python

`pip install sherpa-onnx soundfile`

```python
{code}```
{_decoding_graph(slot) if with_graph else ""}{_BROWSER if slot is SAMPLES else ""}
## Other languages

{_other_languages(bundle, slot)}
"""


def _wrapped(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), 100, break_long_words=False, break_on_hyphens=False)


def _remarks(bundle: Bundle, slot: Slot, with_graph: bool) -> str:
    samples = slot is SAMPLES
    frame = 1000 * frame_samples(bundle.model) / bundle.sample_rate
    counted = samples and (with_graph or frame < SAMPLES_FRAME_MS) and frame != SAMPLES_FRAME_MS
    return _wrapped(
        "The graph takes samples and computes the features itself."
        if samples
        else "sherpa-onnx computes the features.",
        "Cut long recordings at pauses, for example with sherpa-onnx's speech detection: memory",
        "grows with the length. Recordings shorter than 25 ms give no text.",
        *([f"Multiply the times of tokens by {frame / SAMPLES_FRAME_MS:g}."] if counted else []),
    )


def _streaming_remarks(bundle: Bundle) -> str:
    model = bundle.model
    sizes = chunks_of(model)
    shift = 1000 * model.features.shift / bundle.sample_rate
    read, given, frame = sizes.window * shift, sizes.shift * shift, sizes.stride * shift
    text = _wrapped(
        f"The network streams: every {given:g} ms it reads {read:g} ms of audio and gives the text",
        f"of {given:g} ms. Only whole windows are decoded, so {tail_seconds(model):g} s of silence",
        "have to follow the last word.",
    )
    if frame == ASSUMED_FRAME_MS:
        return text
    times = _wrapped(
        f"sherpa-onnx assumes frames of {ASSUMED_FRAME_MS} ms in a streaming model; here they are",
        f"of {frame:g} ms. Multiply the times of tokens by {frame / ASSUMED_FRAME_MS:g}, and",
        "divide the settings for the silence that ends an utterance by it.",
    )
    return f"{text}\n\n{times}"


def _decoding_graph(slot: Slot) -> str:
    kind = slot.recognizer.replace("Recognizer", "CtcFstDecoderConfig")
    return f"""
## With the language model

{
        _wrapped(
            "`graph.fst` holds the n-gram model and the lexicon.",
            f"On the command line, add `{slot.graph_option}=graph.fst`.",
            "In Python, after the recogniser is made:",
        )
    }

```python
from sherpa_onnx.lib import _sherpa_onnx as core

recognizer.config.ctc_fst_decoder_config = core.{kind}(graph="graph.fst")
recognizer.recognizer = core.{slot.recognizer}(recognizer.config)
```
"""


def _other_languages(bundle: Bundle, slot: Slot) -> str:
    options = slot_options(bundle, slot)
    named = " and ".join(f"`{name}` {value}" for name, value in options.items())
    return _wrapped(
        f"In the configuration of the model, the field `{slot.field}` is the path of",
        "`model.int8.onnx` or `model.onnx`, and `tokens` that of `tokens.txt`.",
        *([f"The features have {named}."] if options else []),
        "The other fields keep their defaults.",
    )


def command_line(bundle: Bundle, slot: Slot) -> str:
    """The command for one recording."""
    parts = [slot.program, "--tokens=tokens.txt", f"{slot.option}=model.int8.onnx"]
    options = slot_options(bundle, slot)
    if options:
        parts.append(f"--sample-rate={options['sample_rate']}")
        parts.append(f"--feat-dim={options['feature_dim']}")
    command = " ".join([*parts, "--num-threads=1", "speech.wav"])
    missing = tail_seconds(bundle.model) - PROGRAM_TAIL if slot is STREAM else 0
    if missing <= 0:
        return command
    silence = f"{math.ceil(10 * missing) / 10:g} s of silence"
    program = f"# The program adds {PROGRAM_TAIL:g} s of silence;"
    return f"{program} the file has to end with {silence}.\n{command}"


def _arguments(bundle: Bundle, slot: Slot) -> str:
    options = "".join(f", {name}={value}" for name, value in slot_options(bundle, slot).items())
    return f'model="model.int8.onnx", tokens="tokens.txt", num_threads=1{options}'


def _whole_code(bundle: Bundle, slot: Slot) -> str:
    return f"""import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.{slot.recognizer}.{slot.factory}(
    {_arguments(bundle, slot)}
)
samples, rate = soundfile.read("speech.wav", dtype="float32", always_2d=True)
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples.mean(axis=1))
recognizer.decode_stream(stream)
print(stream.result.text)
"""


def _streaming_code(bundle: Bundle) -> str:
    return f"""import numpy
import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.{STREAM.recognizer}.{STREAM.factory}(
    {_arguments(bundle, STREAM)}
)
samples, rate = soundfile.read("speech.wav", dtype="float32", always_2d=True)
samples = samples.mean(axis=1)
silence = numpy.zeros(int({tail_seconds(bundle.model):g} * rate), numpy.float32)
stream = recognizer.create_stream()
for start in range(0, len(samples), rate // 10):  # as a microphone gives them
    stream.accept_waveform(rate, samples[start : start + rate // 10])
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
        print(recognizer.get_result(stream))
stream.accept_waveform(rate, silence)
stream.input_finished()
while recognizer.is_ready(stream):
    recognizer.decode_stream(stream)
print(recognizer.get_result(stream))
"""
