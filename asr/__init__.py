"""Train your own speech recogniser: recordings with transcripts in, a small recogniser out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.models.bundle import load_bundle
    from asr.transcribe import transcribe

__all__ = ["load_bundle", "transcribe"]


def __getattr__(name: str) -> Any:
    # Imported on first use: `asr --help` should not wait seconds for torch.
    if name == "load_bundle":
        from asr.models.bundle import load_bundle

        return load_bundle
    if name == "transcribe":
        from asr.transcribe import transcribe

        return transcribe
    raise AttributeError(f"module 'asr' has no attribute {name!r}")
