"""The card of a model: its facts by name for a terminal, and README.md for the hub.

The front matter of README.md follows the hub's specification of model cards: license, language,
datasets, metrics, and the results as `model-index`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from asr.io.printable import printable, printable_lines
from asr.sharing.evaluations import Evaluation
from asr.sharing.facts import Export, ModelFacts, Network

TASK = "automatic-speech-recognition"
UNKNOWN = "unknown"
# Identifiers of licences that the hub knows; it calls any other "other", with its name.
# fmt: off
LICENCES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsl-1.0", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit",
    "mpl-2.0", "ncsa", "odbl", "odc-by", "openrail", "osl-3.0", "pddl", "unlicense", "wtfpl",
    "zlib",
}
# fmt: on


def rate_text(rate: float) -> str:
    return f"{100 * rate:.2f}" if math.isfinite(rate) else "-"


def interval_text(one: Evaluation) -> str:
    """The bounds of the interval in per cent; "" without one."""
    if one.interval is None:
        return ""
    low, high = (f"{100 * bound:.1f}" for bound in one.interval)
    return f"{low} to {high}"


def size_text(size: int) -> str:
    """
    >>> size_text(15_700_000), size_text(2_000)
    ('15.7 MB', '0.002 MB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e6:.3f} MB"


def rows(facts: ModelFacts) -> dict[str, str]:
    """The facts by name, except the evaluations; unknown ones that a card should have are named."""
    about, info, data = facts.about, facts.info, facts.info.training_data
    parameters = "" if facts.parameters is None else f"{facts.parameters:,} parameters, "
    trained = [info.date] if info.date else []
    trained += [f"{info.epochs} epochs"] if info.epochs else []
    trained += [f"in {duration(info.training_seconds / 3600)}"] if info.training_seconds else []
    shown = {
        "description": about.description,
        "languages": ", ".join(about.languages) or UNKNOWN,
        "licence": about.licence or UNKNOWN,
        "data": ", ".join(about.datasets) or data.manifest or UNKNOWN,
        "speech": _speech(facts) or UNKNOWN,
        "began with": data.initial_model or "",
        "trained": ", ".join(trained).replace(", in ", " in "),
        "dev": _dev(facts),
        "tokens": facts.tokens,
        "features": features_text(facts),
        "network": network_text(facts.network),
        "decoder": facts.decoder,
        "size": f"{parameters}{facts.precision}, {size_text(facts.bytes)}",
        "format": "safetensors" if info.export is None else export_text(info.export),
    }
    return {name: printable(" ".join(text.split())) for name, text in shown.items() if text}


def export_text(export: Export) -> str:
    """
    >>> export_text(Export(input="samples", difference=3e-6))
    'ONNX, takes samples, within 3e-06 nats of torch'
    """
    parts = ["ONNX"] + ([f"takes {export.input}"] if export.input else [])
    if export.difference is not None:
        before = " before rounding to int8" if export.int8 else ""
        parts.append(f"within {export.difference:.1g} nats of torch{before}")
    return ", ".join(parts + ([export.check] if export.check else []))


def _speech(facts: ModelFacts) -> str:
    data = facts.info.training_data
    parts = [] if data.hours is None else [duration(data.hours)]
    parts += [f"{data.utterances:,} utterances"] if data.utterances else []
    parts += [f"{data.speakers:,} speakers"] if data.speakers else []
    return ", ".join(parts)


def duration(hours: float) -> str:
    """
    >>> duration(0.7), duration(2.25)
    ('42 minutes', '2.2 hours')
    """
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def _dev(facts: ModelFacts) -> str:
    info = facts.info
    if info.dev_errors is None or not info.dev_words:
        return ""
    rate = rate_text(info.dev_errors / info.dev_words)
    counts = f"{info.dev_errors}/{info.dev_words}"
    return f"{rate} % of {info.dev_units} wrong ({counts}) at the end of training"


def features_text(facts: ModelFacts) -> str:
    f = facts.features
    as_in = "" if f.kind == "mel" else f" as in {f.kind}"
    if (network := f.network) is not None:
        shift = 1000 * math.prod(network.conv_strides) / f.sample_rate
        return (
            f"{network.name or 'a network'} ({network.kind}): {network.size} hidden features of "
            f"{network.layers} layers every {shift:g} ms at {f.sample_rate} Hz"
        )
    size = f"{f.coefficients} mfcc" if f.kind == "mfcc" else f"{f.bands} mel bands{as_in}"
    norm = "" if f.cmvn == "none" else f", normalised by {f.cmvn}".replace("by global", "globally")
    return f"{size} every {f.shift_ms:g} ms at {f.sample_rate} Hz{norm}"


def network_text(network: Network) -> str:
    """The network in one line.

    >>> network_text(Network(cell="gru", bidirectional=False, layers=2, hidden=8, strides=(3,)))
    '2 gru layers of 8 cells, 1 convolution (stride 3), one direction'
    """
    stride = math.prod(network.strides) << network.pyramid
    count = len(network.strides)
    parts = [f"{network.layers} {network.cell} layers of {network.hidden} cells"]
    if count:
        parts.append(f"{count} convolution{'s' * (count != 1)} (stride {stride})")
    both = "directions in turn" if network.directions == "alternating" else "both directions"
    parts.append(both if network.bidirectional else "one direction")
    if network.attention_decoder:
        cells = network.attention_decoder
        parts.append(f"an attention decoder of {cells} cells beside it, not counted")
    if network.hierarchical_ctc_layer:
        parts.append(f"layer {network.hierarchical_ctc_layer} spells")
    parts += [f"ConvLSTM of {network.conv_lstm} channels"] if network.conv_lstm else []
    parts += [f"attention of {network.attention_heads} heads"] if network.attention_heads else []
    if network.chunk:
        chunk = network.chunk
        sizes = f"{chunk}" if isinstance(chunk, int) else f"{chunk[0]} to {chunk[1]}"
        parts.append(f"streaming in chunks of {sizes} frames")
    elif not network.bidirectional and network.lookahead:
        parts.append(f"streaming, {network.lookahead} frames ahead")
    return ", ".join(parts)


# --- README.md ---


def readme(facts: ModelFacts, name: str) -> str:
    """README.md of a model that is published as `name`."""
    front = yaml.safe_dump(_front_matter(facts, name), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n", f"# {_markdown(name)}\n"]
    if facts.about.description:
        parts.append(printable_lines(facts.about.description.strip()) + "\n")
    if facts.evaluations:
        parts.append(_table_of_results(facts.evaluations))
    folder = name.rpartition("/")[2]
    fetch = f"asr models pull {name} {folder}\n" if folder != name else ""
    parts.append(
        "## Use\n\nThis model runs with `asr` (the package lstm-asr):\n\n"
        f"```\n{fetch}asr transcribe recording.wav --model {folder}\n```\n"
    )
    listed = {key: text for key, text in rows(facts).items() if text != UNKNOWN}
    listed.pop("description", None)
    facts_list = "".join(f"- {key}: {_markdown(text)}\n" for key, text in listed.items())
    parts.append(f"## Facts\n\n{facts_list}")
    return "\n".join(parts)


def _front_matter(facts: ModelFacts, name: str) -> dict[str, Any]:
    about = facts.about
    licence = about.licence.lower()
    values: dict[str, Any] = {"language": list(about.languages)} if about.languages else {}
    if licence in LICENCES:
        values["license"] = licence
    elif licence:
        values |= {"license": "other", "license_name": licence}
    values |= {"library_name": "lstm-asr", "pipeline_tag": TASK, "tags": ["ctc", "lstm"]}
    if facts.info.export:
        values["tags"].append("onnx")
    if about.datasets:
        values["datasets"] = list(about.datasets)
    if facts.evaluations:
        values["metrics"] = sorted({one.measure.lower() for one in facts.evaluations})
        values["model-index"] = [
            {"name": name.rpartition("/")[2], "results": list(map(_result, facts.evaluations))}
        ]
    return values


def _result(one: Evaluation) -> dict[str, Any]:
    named = Path(one.manifest).name
    metric: dict[str, Any] = {
        "type": one.measure.lower(),
        "name": f"{one.measure} in per cent, {one.decoder or 'decoder unknown'}",
        "value": round(100 * one.rate, 2) if math.isfinite(one.rate) else None,
    }
    return {
        "task": {"type": TASK, "name": "Automatic Speech Recognition"},
        "dataset": {"type": one.manifest, "name": named},
        "metrics": [metric],
    }


def _table_of_results(evaluations: Sequence[Evaluation]) -> str:
    lines = [
        "## Error rates\n",
        "| test set | error rate % | 95 % | errors | decoder | real-time factor | date |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in evaluations:
        speed = "" if one.real_time_factor is None else f"{one.real_time_factor:.3f}"
        speed += f" ({one.machine})" if speed and one.machine else ""
        cells = (
            one.manifest, f"{one.measure} {rate_text(one.rate)}", interval_text(one),
            f"{one.errors}/{one.length} {one.units}", one.decoder, speed, one.day,
        )  # fmt: skip
        lines.append("| " + " | ".join(map(_markdown, cells)) + " |")
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """Text from outside on one line, without meaning in Markdown."""
    shown = printable(" ".join(text.split()))
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in shown)
