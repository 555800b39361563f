"""The weights a run ends with: averages, where the dev set has no more errors with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asr.models.acoustic import AcousticModel
from asr.models.weights import load_weights
from asr.tokens import Tokens
from asr.training.checkpoint import average_weights, best_epochs, epoch_path
from asr.training.recipe import Recipe
from asr.training.start import blend_with_start


def choose_weights(
    model: AcousticModel,
    tokens: Tokens,
    recipe: Recipe,
    history: Sequence[dict[str, Any]],
    count_errors: Callable[[], int],
) -> tuple[str, int]:
    """Load the final weights into `model`; what they are, and the errors on dev.

    Those of the best epochs are averaged unless the best alone has fewer errors, and then blended
    with those the run started from if `start.share` says so, unless that has more errors.
    `count_errors` scores `model` on dev.
    """
    folder = recipe.out / "epochs"
    best = best_epochs(history, recipe.train.average)
    load_weights(model, average_weights([epoch_path(folder, epoch) for epoch in best]), folder)
    chosen, errors = f"average of epochs {', '.join(map(str, sorted(best)))}", count_errors()
    single = next(row for row in history if row["epoch"] == best[0])
    if errors > single["dev_errors"]:
        load_weights(model, average_weights([epoch_path(folder, best[0])]), folder)
        chosen, errors = f"epoch {best[0]}", single["dev_errors"]
    start = recipe.start
    if start.model is not None and start.share:
        trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        blend_with_start(model, tokens, start, recipe.features, recipe.model)
        if (blended := count_errors()) <= errors:
            return f"{chosen}, and {start.share:g} of {start.model}", blended
        model.load_state_dict(trained)
    return chosen, errors
