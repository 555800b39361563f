"""The README of a folder for sherpa-onnx: what it is, and how to run it."""

from __future__ import annotations

from asr.export.sherpa_files import SAMPLES, Slot
from asr.models.bundle import Bundle

LINES = {
    SAMPLES: (
        "The graph takes samples, computes the features itself and has no limit of length but "
        "memory: cut long\nrecordings at pauses, for example with sherpa-onnx's speech detection. "
        "Recordings shorter than 25 ms give no text."
    ),
}


def readme_text(bundle: Bundle, slot: Slot) -> str:
    """Instructions in Markdown; the code in it runs as it stands in the folder."""
    return f"""# A speech recogniser for sherpa-onnx

Written by `asr export --to sherpa`. [sherpa-onnx](https://github.com/k2-fsa/sherpa-onnx) runs it on
Linux, macOS, Windows, Android, iOS and boards such as the Raspberry Pi, from Python, C, C++, C#,
Dart, Go, Java, JavaScript, Kotlin, Pascal, Rust and Swift. No part of it needs the network.

| file | content |
|---|---|
| `model.onnx` | the network, float32 |
| `model.int8.onnx` | the same with 8-bit weights in its recurrent layers: smaller and faster |
| `tokens.txt` | the tokens and their ids; 0 is the blank of CTC |

{LINES[slot]}

## Command line

`pip install sherpa-onnx sherpa-onnx-bin` installs the programs on Linux, macOS and Windows. They
read wav files with one channel of 16 bits.

```bash
{command_line(slot)}
```

## Python

`pip install sherpa-onnx soundfile`

```python
{python_code(slot)}```

## Other languages

In the configuration of the model, the field `{slot.field}` is the path of `model.int8.onnx` or
`model.onnx`, and `tokens` that of `tokens.txt`. The other fields keep their defaults.
"""


def command_line(slot: Slot) -> str:
    """The command for one recording."""
    model = f"{slot.option}=model.int8.onnx"
    return f"{slot.program} --tokens=tokens.txt {model} --num-threads=1 speech.wav"


def python_code(slot: Slot) -> str:
    """A program that prints the text of a recording."""
    return f"""import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.{slot.recognizer}.{slot.factory}(
    model="model.int8.onnx", tokens="tokens.txt", num_threads=1
)
samples, rate = soundfile.read("speech.wav", dtype="float32", always_2d=True)
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples.mean(axis=1))
recognizer.decode_stream(stream)
print(stream.result.text)
"""
