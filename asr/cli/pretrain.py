"""`asr pretrain`: an encoder from recordings without transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.console import show_settings
from asr.io.terminal import progress_bar, tell

if TYPE_CHECKING:
    from asr.dataset.manifest import Utterance
    from asr.training.pretrain import PretrainConfig

app = typer.Typer()


# Settings that need transcripts; a recipe may have them for the later training.
OF_TRANSCRIPTS = (
    "augment.splice_prob", "augment.splice_from", "augment.short_prob",
    "model.hierarchical_ctc_layer", "model.intermediate_ctc", "model.self_conditioning",
    "model.attention_decoder",
)  # fmt: skip


def _settings(wanted: bool) -> None:
    if wanted:
        from asr.training.pretrain import PretrainConfig

        show_settings(PretrainConfig, OF_TRANSCRIPTS)


@app.command(
    epilog="Example: asr pretrain recordings/ --recipe mine/recipe.yaml --out mine/pretraining"
)
def pretrain(
    sources: Annotated[
        list[Path], typer.Argument(help="Folders and manifests of recordings; texts are not used.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curves and the encoder.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe of the later training: its features, network, augmentation."),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(help="Folder or manifest to measure by; default: a twentieth is held out."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as epochs=100, mask_share=0.5."),
    ] = None,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings", callback=_settings, is_eager=True, help="List every key, and exit."
        ),
    ] = False,
) -> None:
    """Pretrain the encoder of a recogniser on recordings without transcripts, for init.model.

    The same command resumes a pretraining that was stopped.
    """
    from asr.inference.untranscribed import hold_out, without
    from asr.io.extras import require
    from asr.training.pretrain import pretrain as train
    from asr.training.pretrain import read_config, refuse_training

    require("matplotlib")
    config = read_config(recipe, set_ or [])
    refuse_training(out)
    learnt = _utterances(sources, config, out / "pieces.json")
    if dev is None:
        learnt, held = hold_out(learnt, config.seed)
    else:
        held = _utterances([dev], config, out / "pieces-dev.json")
        everything, learnt = learnt, without(learnt, held)
        if shared := len(everything) - len(learnt):
            tell(f"left out: {shared} utterances of recordings that --dev has too")
    encoder = train(learnt, held, config, out)
    tell(f"encoder: {encoder}; train from it with init.model={encoder}")


def _utterances(sources: Sequence[Path], config: PretrainConfig, kept: Path) -> list[Utterance]:
    """The recordings in pieces, which are `kept` in a file; what is left out is reported."""
    from asr.errors import AudioError
    from asr.inference.cached_pieces import cached_pieces
    from asr.inference.untranscribed import find_recordings

    rows = find_recordings(sources, lambda note: tell(f"note: {note}"))
    rate = config.features.sample_rate
    with progress_bar("finding speech") as progress:
        found = cached_pieces(
            kept, rows, rate, config.longest_seconds, config.shortest_seconds, progress
        )
    for problem in found.unreadable.values():
        tell(f"left out: {problem}")
    if summary := found.summary():
        tell(f"left out: {summary}")
    if not found.utterances:
        raise AudioError(
            f"expected speech in {', '.join(map(str, sources))}, got {len(rows)} recordings without"
            f" any that can be used ({summary}): give others"
        )
    return found.utterances
