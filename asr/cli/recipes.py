"""Common code of the scripts in recipes/: prepare a corpus, train, evaluate, write results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.cli.console import run_command
from asr.errors import AsrError
from asr.io.files import digest, read_json, write_json
from asr.io.terminal import progress_bar, show, tell

ORDER = 3  # of the language model

Prepare = Callable[..., dict[str, Path]]
"""Takes a folder, a local copy or None, a progress function, and options by name. Writes the
manifests of a corpus and returns them by name: train, dev and test sets, whose names begin with
"test".
"""


Text = Callable[[Path], Path]
"""Writes a text, a sentence per line, into a folder, and returns its path."""


@dataclass(frozen=True)
class Transcripts:
    """What a language model is made of: manifests of the training and the dev set, other texts."""

    train: Path
    dev: Path
    others: Sequence[Path] = ()


def main(
    script: str,
    description: str | None,
    prepare: Prepare,
    options: Mapping[str, str] | None = None,
    shorten: bool = False,
    texts: Mapping[str, Text] | None = None,
) -> None:
    """The command line of recipes/NAME/run.py. Its recipe.yaml is in the same folder; its data and
    results go to exp/NAME. --recipe takes another file beside it.

    With `shorten`, aligner.yaml beside it trains a first model that finds the words of the training
    recordings, which are then cut into the short ones for recipe.yaml.

    With `texts`, the model also gets a language model of the training transcripts, tuned on dev,
    and --text adds a file to these, or one of the `texts` by name.

    `options` are further choices of the corpus, with their defaults: {"language": "de"} becomes the
    option --language and an argument of `prepare`, and the folder is then exp/NAME-de.
    """
    arguments = _parse(description, options or {}, texts)
    chosen = {option: getattr(arguments, option) for option in options or {}}
    here = Path(script).resolve().parent
    recipe = here / f"{arguments.recipe}.yaml"
    out = here.parents[1] / "exp" / "-".join([here.name, *filter(None, chosen.values())])

    def work() -> None:
        from asr.training.recipe import read_recipe

        _check_names(chosen | {"recipe": arguments.recipe})
        read_recipe(recipe, arguments.overrides)  # a wrong setting is reported before the download
        if texts is not None:  # now, not after hours of training
            _check_texts(arguments.text, texts)
        with progress_bar("preparing") as progress:
            manifests = prepare(out / "data", arguments.source, progress, **chosen)
        transcripts = None
        if texts is not None:
            others = [_text(given, texts, out / "data") for given in arguments.text]
            transcripts = Transcripts(manifests["train"], manifests["dev"], others)
        if shorten:
            shorten_recordings(here / "aligner.yaml", manifests["train"])
        tests = {name: path for name, path in manifests.items() if name.startswith("test")}
        # recipe.yaml refers only to exp/NAME.
        places = [f"data.{part}={manifests[part]}" for part in ("train", "dev")] + [f"out={out}"]
        overrides = [*(places if chosen else ()), *arguments.overrides]
        run_recipe(recipe, overrides, tests, transcripts)

    run_command(work)


def _parse(
    description: str | None, options: Mapping[str, str], texts: Mapping[str, Text] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="local copy of the corpus, unpacked")
    for option, default in options.items():
        note = f"which {option} of the corpus (default: {default or 'none'})"
        parser.add_argument(f"--{option}", default=default, help=note)
    note = "name of the file with the settings, beside run.py, without its ending"
    parser.add_argument("--recipe", default="recipe", help=note)
    if texts is not None:
        names = "".join(f", or {name}" for name in texts)
        note = f"more text for the language model: a file with a sentence per line{names}"
        parser.add_argument("--text", action="append", default=[], help=note)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="other settings")
    # Settings may be before, after and between options.
    return parser.parse_intermixed_args()


def _check_texts(given: Sequence[str], texts: Mapping[str, Text]) -> None:
    for name in given:
        if name not in texts and not Path(name).is_file():
            known = "".join(f", or {text}" for text in texts)
            raise AsrError(
                f"expected a file with a sentence per line{known} for --text, got {name}: "
                "check the path"
            )


def _text(given: str, texts: Mapping[str, Text], folder: Path) -> Path:
    return texts[given](folder) if given in texts else Path(given)


def shorten_recordings(recipe: Path, manifest: Path) -> None:
    """Write the segments of the training recordings beside their manifest, as short.jsonl, unless
    they are those of the same model already."""
    from asr.cli.main import train_model
    from asr.inference.segment import cut_manifest
    from asr.models.files import weights_digest
    from asr.training.recipe import read_recipe

    model = train_model(read_recipe(recipe))
    short = manifest.with_name("short.jsonl")
    made_of = {"weights": weights_digest(model), "manifest": digest(manifest)}
    with _stage(short, manifest.with_name("short.json"), made_of) as is_done:
        if is_done:
            return
        with progress_bar("cutting") as progress:
            result = cut_manifest(model, manifest, short, progress=progress)
        for problem in result.left_whole:
            tell(f"left whole: {problem}")


def add_language_model(model: Path, out: Path, transcripts: Transcripts) -> None:
    """Estimate a 3-gram and store it in the model folder with the weights that are best on dev,
    unless that is done already."""
    from asr.decoding.folder import load_decoder, remove_decoder, save_decoder
    from asr.evaluation.tune_decoder import to_text, tune
    from asr.lm.estimate import estimate
    from asr.lm.storage import save_ngram
    from asr.lm.text import read_sentences
    from asr.models.bundle import load_bundle
    from asr.models.files import weights_digest

    texts = [transcripts.train, *transcripts.others]
    made_of = {
        "weights": weights_digest(model),
        "texts": [digest(path) for path in texts],
        "dev": digest(transcripts.dev),
    }
    with _stage(model / "decoder.json", out / "tuned.json", made_of) as is_done:
        if is_done:
            return
        bundle = load_bundle(model)
        if (model / "decoder.json").is_file():
            remove_decoder(model)
        with progress_bar("counting") as progress:
            ngram = estimate(read_sentences(texts, bundle.normalise), ORDER, progress=progress)
        save_ngram(out / "lm", ngram)
        decoder = load_decoder(
            model, bundle.tokens, "beam", lm=out / "lm", normalise=bundle.normalise
        )
        with progress_bar("tuning") as progress:
            result = tune(model, transcripts.dev, decoder, progress, bundle)
        save_decoder(model, result.decoder)
        tell(to_text(result, transcripts.dev.name))


@contextmanager
def _stage(made: Path, record: Path, made_of: dict[str, Any]) -> Iterator[bool]:
    """Whether `made` exists and was made of the same, by the `record` that is written at the
    end."""
    before = None
    with suppress(OSError, ValueError):
        before = read_json(record)
    is_done = made.exists() and before == made_of
    if not is_done:
        record.unlink(missing_ok=True)
    yield is_done
    write_json(record, made_of)


def _check_names(chosen: Mapping[str, str]) -> None:
    """Raise AsrError if an option cannot be part of a folder's name."""
    for option, value in chosen.items():
        if value and not value.replace("-", "").replace("_", "").isalnum():
            raise AsrError(
                f"expected letters, digits, - and _ for --{option}, got '{value}': correct it"
            )


def run_recipe(
    recipe: Path,
    overrides: Sequence[str],
    tests: dict[str, Path],
    transcripts: Transcripts | None = None,
) -> None:
    """Train by a recipe, evaluate the final model on its test sets, write the results, and only
    then exit with an error if recordings could not be read. With `transcripts`, the test sets are
    recognised greedily and with the language model, after all has been tuned."""
    from asr.cli.evaluate import evaluate_model
    from asr.cli.main import train_model
    from asr.decoding.decoder import Decoder
    from asr.evaluation.summary import result_row, to_markdown
    from asr.io.files import atomic_path
    from asr.models.bundle import load_bundle
    from asr.training.recipe import read_recipe

    parsed = read_recipe(recipe, overrides)
    model = train_model(parsed)
    decoders: dict[str, Decoder | None] = {"": None}  # None: the model's own
    if transcripts is not None:
        add_language_model(model, parsed.out, transcripts)
        decoders = {"": Decoder(load_bundle(model).tokens), "-lm": None}
    rows, all_read = [], True
    shown: list[str] = []  # printed at the end, since the reader of the output may close it
    for test, manifest in tests.items():
        for ending, decoder in decoders.items():
            name = f"{test}{ending}"
            all_read &= evaluate_model(
                model, manifest, parsed.out / name, decoder, output=shown.append
            )
            rows.append({"test": name} | result_row(parsed.out, parsed.out / name))
    table = to_markdown(rows)
    with atomic_path(parsed.out / "results.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    show("\n".join([*shown, table]))
    if not all_read:
        sys.exit(1)
