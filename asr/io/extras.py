"""Optional packages, and the extra of the project that installs each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from asr.errors import AsrError

EXTRAS = {
    "accelerate": "train",
    "datasets": "recipes",
    "espeakng_loader": "demo",
    "fastapi": "serve",
    "huggingface_hub": "hub",
    "matplotlib": "train",
    "onnx": "export",
    "PIL": "train",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "ray": "ray",
    "scipy": "train",
    "silero_vad": "vad",
    "sklearn": "recipes",
    "sounddevice": "live",
    "tensorboard": "train",
    "torch": "train",
    "torchaudio": "train",
    "uvicorn": "serve",
    "websockets": "serve",
    "whisper_normalizer": "train",
}
"""The extra in pyproject.toml that installs each module."""


@contextmanager
def extras_explained() -> Iterator[None]:
    """Turn a missing optional package into an AsrError that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        raise _missing(name) from None


def require(name: str) -> None:
    """Raise AsrError unless this module is installed; called before long work."""
    if find_spec(name) is None:
        raise _missing(name)


def installed_version() -> str:
    """The version of this package; "" if it runs from a folder."""
    try:
        return version("lstm-asr")
    except PackageNotFoundError:
        return ""


def _missing(name: str) -> AsrError:
    return AsrError(
        f"expected the Python module {name}, got none; "
        f"install it with: pip install 'lstm-asr[{EXTRAS[name]}]'"
    )
