"""Recognition of files and folders of other programs, by first bytes and by names inside."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

_HEAD = 512  # bytes

# First bytes of files; if one is a prefix of another, the longer one comes first.
_MAGIC = (
    (b"mmap lm http://kheafield.com/code", "a binary model of KenLM: give the ARPA file"),
    (b"SRILM_BINARY_NGRAM", "a binary model of SRILM: write it as ARPA with ngram -write-lm"),
    (b"blmt", "a binary model of IRSTLM: write it as ARPA with compile-lm"),
    (b"Qblmt", "a binary model of IRSTLM: write it as ARPA with compile-lm"),
    (b"iARPA", "a model in IRSTLM's own iARPA form: write it as ARPA with compile-lm"),
    (
        b"\xd6\xfd\xb2\x7e",
        "an OpenFst transducer, such as Kaldi's G.fst and HCLG.fst: give the ARPA file",
    ),
    (b"GGUF", "a GGUF file, used by llama.cpp or whisper.cpp"),
    (b"lmgg", "a GGML file, used by whisper.cpp"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, used by Keras"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"PAR1", "a Parquet table"),
    (b"ARROW1", "an Arrow table"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"BZh", "a file packed with bzip2: unpack it"),
    (b"\xfd7zXZ\0", "a file packed with xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a file packed with zstd: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document: save it as csv"),
    (b"{\\rtf", "a document in rich text: save it as plain text"),
    (b"\x1f\x8b", "a file packed with gzip: unpack it"),
)
# Names inside zip archives.
_ZIPPED = (
    ("[Content_Types].xml", "an Office document: save it as csv or plain text"),
    ("mimetype", "an OpenDocument file: save it as csv or plain text"),
    ("data.pkl", "a checkpoint of PyTorch"),
    ("keras_metadata.pb", "a model of Keras"),
    (".npy", "arrays of NumPy"),
)
# Names inside folders; all of them must exist.
_FOLDERS = (
    (("saved_model.pb",), "a SavedModel of TensorFlow"),
    (("am/final.mdl",), "a model of Vosk"),
    (("final.mdl",), "a model of Kaldi"),
    (("hyperparams.yaml",), "a model of SpeechBrain"),
    (("preprocessor_config.json",), "a model of Hugging Face's transformers"),
    (("config.json", "pytorch_model.bin"), "a model of Hugging Face's transformers"),
    (("config.json", "tokenizer_config.json"), "a model of Hugging Face's transformers"),
    (("config.json", "model.bin"), "a model of CTranslate2, used by faster-whisper"),
    (("model_config.yaml",), "an unpacked model of NeMo"),
    (("checkpoint.pt",), "a model of fairseq"),
    (("encoder/config.json", "pieces.json"), "the folder of a pretraining: give encoder in it"),
    (("model/config.json", "recipe.json"), "the folder of a training: give model in it"),
)


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind of file that `path` is, with advice if there is any; "" for an unknown or missing
    file. Nothing in it is run or unpacked.

    >>> kind_of("/dev/null")
    ''
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _folder(path)
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return ""
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")
    if path.suffix.lower() == ".nemo" or head[:100].rstrip(b"\0").endswith(b"model_config.yaml"):
        return "a model of NeMo"
    if found:
        return found
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    if _is_pickle(head):
        return "a pickle, written by PyTorch or another Python program"
    if head[8:10] == b'{"' and head[4:8] == bytes(4):  # the header begins with its length
        return "weights in safetensors without their configuration: give the folder"
    # Protocol buffers have no magic: the format version comes first, then the name of the writer.
    if len(head) > 3 and head[:1] == b"\x08" and head[2:3] == b"\x12":
        return "a model in ONNX"
    if (
        len(head) > 3
        and head[:1] == b"\x0a"
        and head[2:3] == b"\x0a"
        and head[4 + head[3] :][:1] == b"\x15"
    ):
        return "a model of sentencepiece"  # its first piece, with the tags of text and score
    return "a model of TensorFlow Lite" if head[4:8] == b"TFL3" else ""


def which_is(path: str | os.PathLike[str]) -> str:
    """`kind_of` as a clause for an error message, or ""."""
    kind = kind_of(path)
    return kind and f", which is {kind}"


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def zip_names(path: Path) -> list[str] | None:
    """The names of a zip archive's members; None for a file that is none, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None


def _zip(path: Path) -> str:
    names = zip_names(path)
    if names is None:
        return "a damaged zip archive"
    for ending, kind in _ZIPPED:
        if any(name.endswith(ending) for name in names):
            return kind
    return "a zip archive: unpack it"


def _folder(path: Path) -> str:
    for names, kind in _FOLDERS:
        if all((path / name).exists() for name in names):
            return kind
    return ""
