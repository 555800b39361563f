"""The batches of an epoch, and their size where `train.batch_seconds` is auto.

On a GPU the size is measured before the first step. Where memory runs out later, it is halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from asr import shares
from asr.dataset.cuts import Item
from asr.dataset.sampler import plan_epoch, smaller
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.errors import lacks_memory
from asr.padded import Padded, pad
from asr.shares import Share, share_of, sharing
from asr.training import distributed
from asr.training.device import fits_or_raise
from asr.training.loop import Loss
from asr.training.run import Run
from asr.training.step import Replay, batch_loss

CPU_SECONDS = 48.0
"""On a CPU; larger batches are not faster there (docs/speed.md), and give fewer steps."""
STEPS = 100
"""An epoch has about this many steps at least: with fewer, a small corpus is learnt badly."""
GPU_SHARE = 0.7
"""Of the free memory: batches of other shapes fragment it, and dev is decoded beside it."""
TRIAL_SECONDS = 32.0
"""Length of the first trial batch; the second is four times as long."""
MOMENTS_BYTES = 8  # of AdamW for each weight, allocated in the first step


def choose(run: Run) -> None:
    """Set the size of batches of a new training; a resumed one has it from its checkpoint."""
    given, progress, data = run.recipe.train.batch_seconds, run.progress, run.train
    if given != "auto":
        progress.batch_seconds = given
        return
    if progress.batch_seconds:
        return
    gpu = run.loop.accelerator.device.type == "cuda"
    own = _measured(run) if gpu else CPU_SECONDS
    # The least of all processes, in whole seconds because integers are exchanged.
    fits = distributed.all_reduce_min(int(own)) * (distributed.world_size() if gpu else 1)
    most = max(sum(data.durations) / STEPS, slowest_seconds(run, max(data.durations)))
    progress.batch_seconds = float(max(1, round(min(fits, most))))
    reason = "memory" if fits <= most else f"{STEPS} steps per epoch"
    if not gpu and fits <= most:
        reason = "the default on a CPU"
    run.display.say(f"train.batch_seconds: auto is {progress.batch_seconds:g} ({reason})")


def slowest_seconds(run: Run, seconds: float) -> float:
    """The duration of a recording at the slowest speed and tempo."""
    return seconds / _slowest(run)


def _slowest(run: Run) -> float:
    return min(run.recipe.augment.speeds) * min(1.0, *run.recipe.augment.tempos)


def plan(run: Run) -> list[list[Item]]:
    """The batches of the current epoch: a function of the recipe and the progress.

    A batch that did not fit, and all batches after it, are cut into smaller ones in the same order,
    so that every utterance remains in exactly one of them.
    """
    progress, train = run.progress, run.recipe.train
    if not progress.batch:
        progress.batch_seconds /= 2 ** len(progress.halved_at)
        progress.halved_at = []
    seconds = progress.batch_seconds
    batches = plan_epoch(run.corpus, run.recipe.augment, seconds, train.seed, progress.epoch)
    for place in progress.halved_at:
        seconds /= 2
        batches[place:] = smaller(batches[place:], run.corpus.durations, seconds)
    return batches


def fits(run: Run, batch: Batch, lack: str) -> bool:
    """Whether a step had enough memory in all processes. `lack` describes what ran out of memory in
    this process, or is empty. If False, the size of the remaining batches has been halved.

    Every process makes all exchanges of a step and comes here before it steps its optimizer: if
    memory lacks in one, no other has stepped.

    Raises TrainingError if `train.batch_seconds` is a number, or the batch a single utterance.
    """
    lack = _of_any(run, batch, lack)
    if not lack:
        return True
    if run.recipe.train.batch_seconds != "auto" or len(batch.all_ids or batch.ids) == 1:
        return fits_or_raise(batch, lack)
    progress = run.progress
    progress.halved_at = [*progress.halved_at, progress.batch]
    now = progress.batch_seconds / 2 ** len(progress.halved_at)
    run.display.say(
        f"out of memory at {length(run, batch)}: train.batch_seconds is halved to {now:g}"
    )
    return False


def _of_any(run: Run, batch: Batch, own: str) -> str:
    """The lack of memory of this process, or of the first that has one."""
    if run.gradients is None or not run.exchanges:
        return own
    if own:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        shares.complete_with_zeros(len(batch.all_ids), run.exchanges)
        run.gradients.leave()
    if not distributed.all_reduce_max(bool(own)):
        return ""
    return next(filter(None, distributed.all_gather(own)))


def rehearse(run: Run) -> None:
    """Record the exchanges between processes in one step, so that a process that runs out of memory
    can complete them with zeros. Only for several processes and train.batch_seconds auto."""
    if run.gradients is None or run.recipe.train.batch_seconds != "auto":
        return
    shortest = min(range(len(run.train)), key=lambda place: run.train.durations[place])
    with shares.rehearsal() as run.exchanges:
        trial_step(run, [shortest], share_of(1, 0, 1))


def length(run: Run, batch: Batch) -> str:
    """The size of a batch in words, and among how many processes it is divided."""
    seconds = batch.waves.values.shape[1] / run.train.sample_rate
    among = f" in {distributed.world_size()} processes" if distributed.is_joined() else ""
    return f"{len(batch.all_ids or batch.ids)} utterances of {seconds:.1f} s{among}"


def advice(run: Run, batch: Batch) -> str:
    """The size of a batch that does not fit, and what to do about it."""
    given = run.recipe.train.batch_seconds
    if given == "auto" and len(batch.all_ids or batch.ids) == 1:
        todo = f"leave out recordings as long as {batch.ids[0]}, or choose a smaller model"
    elif given == "auto":
        now = run.progress.batch_seconds / 2 ** len(run.progress.halved_at)
        todo = f"set train.batch_seconds below {now:g}, which auto has chosen, in another out"
    else:
        todo = f"lower train.batch_seconds (now {given:g})"
    return f"{length(run, batch)}: {todo}"


def _measured(run: Run) -> float:
    """The most seconds in a batch on this GPU, by two trial steps."""
    device = run.loop.accelerator.device
    places = sorted(range(len(run.train)), key=lambda place: -run.train.durations[place])

    def peak(count: int) -> int | None:
        """Bytes that a step on the `count` longest utterances takes at most; None: too many."""
        chosen = [places[number % len(places)] for number in range(count)]
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            trial_step(run, chosen)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            return None
        finally:
            torch.cuda.empty_cache()
        return torch.cuda.max_memory_allocated(device) - before

    longest = slowest_seconds(run, run.train.durations[places[0]])
    peak(1)  # what is allocated once
    free, _ = torch.cuda.mem_get_info(device)
    if run.replay is not None:  # CUDA graphs have memory of their own, beside eager steps
        free //= 2
    weights = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    return largest(peak, GPU_SHARE * free - MOMENTS_BYTES * weights, longest)


def largest(peak: Callable[[int], int | None], room: float, longest: float) -> float:
    """Seconds of a batch that takes `room` bytes, if bytes grow linearly with the utterances.

    `peak` gives the bytes for a number of utterances of `longest` seconds, or None if they are too
    many. One utterance is the least.
    """
    few = max(1, math.ceil(TRIAL_SECONDS / longest))
    first, second = peak(few), peak(4 * few)
    while first is None and few > 1:
        few = max(1, few // 4)
        first, second = peak(few), peak(4 * few)
    if first is None or second is None or second <= first:
        return few * longest
    each = (second - first) / (3 * few)
    return max(1.0, few + (room - first) / each) * longest


def loss_of(run: Run, batch: Batch, replay: Replay | None = None) -> Loss:
    """The loss of a batch in a step of training, and in a trial of one: both must need as much
    memory, and make the same exchanges."""
    train, autocast = run.recipe.train, run.loop.accelerator.autocast
    return batch_loss(
        run.model, batch, run.recipe.augment, train.cr_ctc_weight, autocast, run.sounds, replay,
        train.attention_weight, train.intermediate_ctc_weight, run.entropy,
    )  # fmt: skip


def trial_step(run: Run, places: list[int], share: Share | None = None) -> None:
    """Compute the loss of noise as long as these utterances, and its gradient, and leave weights,
    statistics, gradients and random state as they were. With a `share`, as in a step of several
    processes."""
    device = run.loop.accelerator.device
    statistics = [buffer.clone() for buffer in run.model.buffers()]
    modes = [(module, module.training) for module in run.model.modules()]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            run.model.train()
            for module in run.frozen:
                module.eval()
            batch = noise(run.train, places, _slowest(run)).to(device)
            if share is not None and run.gradients is not None:
                run.gradients.begin()
            with sharing(share):
                loss = loss_of(run, batch)
            loss.objective.backward()
            if share is not None and run.gradients is not None:
                run.gradients.finish()
    finally:
        run.model.zero_grad()
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in zip(run.model.buffers(), statistics, strict=True):
                buffer.copy_(before)


def noise(data: SpeechDataset, places: list[int], speed: float) -> Batch:
    """Noise in place of these utterances, with their targets."""
    samples = [round(data.durations[place] * data.sample_rate) for place in places]
    waves = torch.randn(len(places), max(samples)) * 0.1
    lengths = torch.tensor(samples)
    return Batch(
        ids=[data.utterances[place].id for place in places],
        waves=Padded(waves, lengths).zeroed(),
        targets=pad([torch.tensor(data.target(place), dtype=torch.int64) for place in places]),
        spelled=pad([torch.tensor(data.spelled(place), dtype=torch.int64) for place in places]),
        speeds=[speed] * len(places),
        tempos=[1.0] * len(places),
        samples=samples,
    )
