"""The final model of a run: averaged weights, unless they have more errors on dev."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from asr.errors import CheckpointError
from asr.evaluation.scoring import guess_units
from asr.io.files import read_json, write_json
from asr.io.printable import printable_name
from asr.models.bundle import Bundle, load_bundle, others_files, save_bundle
from asr.models.weights import load_weights
from asr.training.checkpoint import average_weights, best_epochs, epoch_path, is_intact
from asr.training.finetune import interpolate
from asr.training.pretrained_features import complete
from asr.training.run import Run

# Facts on the recordings that a model learnt from.
OF_TRAINING_DATA = ("training_data", "longest_seconds", "training_seconds")


def finish(run: Run, count_errors: Callable[[], int]) -> Path:
    """Save the model with the weights that are best on dev, and return its folder.

    A model that this run made earlier from the same epochs stays unchanged, since `asr tune` may
    have stored a decoder in its folder. A decoder also stays with new weights, which is reported.
    """
    progress, recipe = run.progress, run.recipe
    final = recipe.out / "model"
    weights = "".join(row.get("weights_sha256", "") for row in progress.history)
    made_of = {
        "epochs": progress.epoch,
        "epochs_sha256": hashlib.sha256(weights.encode()).hexdigest(),
        "seed": recipe.train.seed,
        "average": recipe.train.average,
        "blend": [str(recipe.init.model), recipe.init.interpolation]
        if recipe.init.interpolation
        else None,
    }
    about = recipe.about.model_dump(mode="json", exclude_defaults=True)
    if _is_made_of(final, made_of):
        _update_about(final, about)
        run.display.say(f"kept the model of these epochs in {final}")
        return final
    chosen, dev_errors = choose_weights(run, count_errors)
    used, given, before = run.bundle, recipe.init.model, progress.initial_errors
    if given is not None and before is not None and before <= dev_errors:
        run.display.say(
            f"training made no fewer errors on dev than {given} ({dev_errors}, before {before}): "
            "the model stays as it was"
        )
        used, chosen, dev_errors = load_bundle(given), f"{_end(given)} as it was", before
    dev_words = progress.history[-1]["dev_words"]
    run.display.say(f"final model: {chosen}, dev {dev_errors}/{dev_words}")
    info = made_of | {
        "weights": chosen,
        "dev_errors": dev_errors,
        "dev_words": dev_words,
        "dev_units": guess_units(run.dev.references),
        "training_seconds": round(progress.total_seconds, 1),
        "skipped_steps": progress.health.skipped_steps,
        "infinite_losses": progress.health.infinite_losses,
        "date": date.today().isoformat(),
        "parameters": used.model.parameter_count(),
        "training_data": _training_data(run),
        "longest_seconds": round(max(run.train.durations), 2),
        "about": about,
    }
    if used is not run.bundle:  # these data did not make it
        info |= {key: used.info[key] for key in OF_TRAINING_DATA if key in used.info}
    complete(run.model)
    # half precision: half the size, and the shipped weights are the evaluated ones
    bundle = Bundle(used.model, used.tokens, used.text, info)
    save_bundle(final, bundle, half=True, keep_others=True)
    if kept := [path.name for path in others_files(final)]:
        run.display.say(
            f"kept {', '.join(kept)} in {final}, tuned for earlier weights: run `asr tune` again"
        )
    return final


def _training_data(run: Run) -> dict[str, Any]:
    """What the model learnt from. Of paths only the end, since models are published."""
    initial = run.recipe.init.model
    return {
        "manifest": _end(run.recipe.data.train),
        "hours": round(sum(run.train.durations) / 3600, 3),
        "utterances": len(run.train),
        "speakers": len(set(run.train.speakers) - {""}) or None,
        "initial_model": None if initial is None else _end(initial),
    }


def _end(path: Path) -> str:
    return printable_name(Path(*path.resolve().parts[-2:]))


def _update_about(folder: Path, about: dict[str, Any]) -> None:
    info = read_json(folder / "info.json")
    if info.get("about", {}) != about:
        write_json(folder / "info.json", info | {"about": about})


def _is_made_of(folder: Path, made_of: dict[str, Any]) -> bool:
    try:
        info = load_bundle(folder).info
    except CheckpointError:
        return False
    return all(key in info and info[key] == value for key, value in made_of.items())


def choose_weights(run: Run, count_errors: Callable[[], int]) -> tuple[str, int]:
    """Load the final weights into the model; returns their description, and the errors on dev.

    The weights of the best epochs are averaged unless the best epoch alone has fewer errors, and
    then interpolated with those of the initial model if `init.interpolation` is set, unless that
    has more errors. `count_errors` scores the model on dev. Missing or damaged weights are left out
    and reported.
    """
    model, recipe, history = run.model, run.recipe, run.progress.history
    rows = {row["epoch"]: row for row in history}
    wanted = best_epochs(history, recipe.train.average)
    best = [epoch for epoch in wanted if is_intact(run.epochs, rows[epoch])]
    if lost := sorted(set(wanted) - set(best)):
        run.display.say(
            f"expected the weights of epochs {', '.join(map(str, sorted(wanted)))} in "
            f"{run.epochs}, got none or others for {', '.join(map(str, lost))}: left out of the "
            "average"
        )
    if not best:
        chosen, errors = f"epoch {history[-1]['epoch']}", history[-1]["dev_errors"]
    else:
        paths = [epoch_path(run.epochs, epoch) for epoch in best]
        load_weights(model, average_weights(paths), run.epochs)
        several = f"average of epochs {', '.join(map(str, sorted(best)))}"
        chosen, errors = several if len(best) > 1 else f"epoch {best[0]}", count_errors()
        if errors > rows[best[0]]["dev_errors"]:
            load_weights(model, average_weights(paths[:1]), run.epochs)
            chosen, errors = f"epoch {best[0]}", rows[best[0]]["dev_errors"]
    init = recipe.init
    if init.model is not None and init.interpolation:
        trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        interpolate(model, run.bundle.tokens, init.model, init.interpolation)
        if (blended := count_errors()) <= errors:
            return f"{chosen}, and {init.interpolation:g} of {init.model}", blended
        model.load_state_dict(trained)
    return chosen, errors
