"""Models and tables of other programs are named for what they are, and nothing in them is run."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asr.dataset.importers import read_source
from asr.dataset.lines import read_utf8
from asr.errors import AsrError, CheckpointError, LanguageModelError, TranscriptError
from asr.io.foreign import kind_of
from asr.lm.neural import load_neural
from asr.lm.storage import load_ngram
from asr.lm.words import read_word_list
from asr.models.bundle import load_bundle


def _sentencepiece(path: Path) -> None:
    from sentencepiece import SentencePieceTrainer

    with path.open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c d", "e f g"] * 10),
            model_writer=file,
            vocab_size=12,
            hard_vocab_limit=False,
            minloglevel=3,
        )


def _nemo(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("model_config.yaml")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"a: "))


def _office(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")


FILES = {
    "lm.binary": (
        lambda p: p.write_bytes(
            b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(99)
        ),
        "a binary model of KenLM: give the ARPA file",
    ),
    "G.fst": (lambda p: p.write_bytes(b"\xd6\xfd\xb2\x7e\6\0\0\0vector"), "an OpenFst transducer"),
    "bpe.model": (_sentencepiece, "a model of sentencepiece"),
    "last.pt": (lambda p: torch.save({"a": torch.ones(2)}, p), "a checkpoint of PyTorch"),
    "old.pth": (
        lambda p: torch.save({"a": 1}, p, _use_new_zipfile_serialization=False),
        "a pickle",
    ),
    "model.pkl": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "a pickle"),
    "model.onnx": (lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x03"), "a model in ONNX"),
    "model.nemo": (lambda p: _nemo(p, "w"), "a model of NeMo"),
    "packed.nemo": (lambda p: _nemo(p, "w:gz"), "a model of NeMo"),
    "model.safetensors": (lambda p: save_file({"a": torch.ones(2)}, p), "weights in safetensors"),
    "ggml.bin": (lambda p: p.write_bytes(b"lmgg" + bytes(40)), "a GGML file"),
    "lm.arpa.bz2": (lambda p: p.write_bytes(b"BZh91AY" + bytes(9)), "packed with bzip2: unpack it"),
    "table.xlsx": (_office, "an Office document: save it as csv"),
    "a.npy": (lambda p: np.save(p, np.ones(2)), "an array of NumPy"),
    "table.parquet": (lambda p: p.write_bytes(b"PAR1\x15\x04"), "a Parquet table"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_program_is_named(name: str, tmp_path: Path) -> None:
    make, expected = FILES[name]
    path = tmp_path / name
    make(path)
    assert expected in kind_of(path)
    with pytest.raises(CheckpointError, match=expected.partition(":")[0]) as model:
        load_bundle(path)
    with pytest.raises(CheckpointError, match=expected.partition(":")[0]) as neural:
        load_neural(path)
    with pytest.raises(AsrError, match=expected.partition(":")[0]) as source:
        read_source(path)
    raised = [model, neural, source]
    if name != "packed.nemo":  # as packed as an ARPA file may be
        with pytest.raises(LanguageModelError, match=expected.partition(":")[0]) as ngrams:
            load_ngram(path)
        raised.append(ngrams)
    for error in raised:
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_binary_table_or_list_is_named(tmp_path: Path) -> None:
    _office(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open("ab") as file:
        file.write(b"\xff")
    with pytest.raises(TranscriptError, match="got an Office document: save it as csv"):
        read_utf8(tmp_path / "table.csv")
    with pytest.raises(LanguageModelError, match="expected a lexicon, got an Office document"):
        read_word_list(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "pytorch_model.bin"], "Hugging Face"),
        (["config.json", "model.safetensors", "preprocessor_config.json"], "Hugging Face"),
        (["config.json", "model.safetensors"], "Hugging Face"),
        (["saved_model.pb"], "TensorFlow"),
        (["config.json", "model.bin"], "CTranslate2"),
        (["model_config.yaml", "model_weights.ckpt"], "NeMo"),
    ],
)
def test_a_folder_of_another_program_is_named(
    names: list[str], expected: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_text(json.dumps({"model_type": "wav2vec2"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=expected):
        load_bundle(tmp_path)


def test_our_own_files_and_plain_texts_are_not_foreign(tmp_path: Path) -> None:
    for content in (b"", b"a", b"\n\n", b"\\data\\\nngram 1=1\n", b"path,text\n", b"\x08", b"\x0a"):
        (tmp_path / "file").write_bytes(content)
        assert kind_of(tmp_path / "file") == ""
    assert kind_of(tmp_path / "none") == ""


def test_a_text_without_n_grams_is_no_arpa_file(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text("turn on the light\n", encoding="utf-8")
    with pytest.raises(
        LanguageModelError, match=r"expected an ARPA file with the line .data., got none"
    ):
        load_ngram(tmp_path / "lm.arpa")
