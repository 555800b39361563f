"""What scoring and writing a report of 10,000 utterances takes, and how soon its page answers."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from asr.evaluation.error_rate import score
from asr.evaluation.report import RunFacts, build_report
from asr.evaluation.report_folder import write_report
from asr.evaluation.utterance import Details
from asr.inference.time_formats import Posteriors, Word
from tests.bench.timing import verdict

UTTERANCES = 10_000
FRAMES_PER_WORD = 12
FACTS = RunFacts("generated", "test.jsonl", "ab" * 32, "2026-01-01", decoder="greedy")


def run() -> None:
    """Print the seconds of each part, the page's too where there is a browser."""
    print(f"\nreport: {UTTERANCES} utterances of 5 to 30 words")
    references, hypotheses = texts(np.random.default_rng(0))
    started = time.perf_counter()
    scores = score(references, hypotheses)
    scored = time.perf_counter() - started
    report = build_report(scores, details(hypotheses), FACTS)
    built = time.perf_counter() - started - scored
    with tempfile.TemporaryDirectory() as folder:
        write_report(report, folder)
        total = time.perf_counter() - started
        page = Path(folder) / "report.html"
        written = total - scored - built
        print(f"  aligned {scored:.1f} s, intervals {built:.1f} s, written {written:.1f} s")
        print(f"  report.html {page.stat().st_size / 2**20:.1f} MiB, WER {scores.words}")
        verdict("scored and written, s", total, "<= 60", total <= 60)
        browse(page)


def texts(random: np.random.Generator) -> tuple[dict[str, str], dict[str, str]]:
    """References of common and rare words; in the hypotheses every tenth is wrong."""
    words = np.array([f"w{i:x}" for i in range(5000)])
    shares = 1 / np.arange(1, len(words) + 1)
    shares /= shares.sum()
    references, hypotheses = {}, {}
    for i in range(UTTERANCES):
        said = random.choice(words, random.integers(5, 31), p=shares)
        dice = random.random(len(said))
        heard = np.where(dice < 0.06, random.choice(words, len(said), p=shares), said)[dice < 0.98]
        references[f"s{i % 200:03}-{i:05}"] = " ".join(said)
        hypotheses[f"s{i % 200:03}-{i:05}"] = " ".join(heard)
    return references, hypotheses


def details(hypotheses: dict[str, str]) -> dict[str, Details]:
    """Speakers, times, confidences and output of every word, as a model gives them."""
    found = {}
    for place, (name, text) in enumerate(hypotheses.items()):
        count = len(text.split())
        peaks = tuple(
            (2 + (k + n) % 30, FRAMES_PER_WORD * k + n, 80 - 20 * n)
            for k in range(count)
            for n in range(4)
        )
        found[name] = Details(
            speaker=name[:4],
            seconds=0.36 * count + 0.5,
            columns={"accent": f"accent {place % 7}", "gender": "fm"[place % 2]},
            snr=float(10 + place % 40),
            words=tuple(
                Word(word, 0.36 * k, 0.36 * k + 0.3, 0.99 - 0.001 * (k % 300))
                for k, word in enumerate(text.split())
            ),
            posteriors=Posteriors(FRAMES_PER_WORD * count, 0.03, peaks),
        )
    return found


def browse(page: Path) -> None:
    """Time to the first rows, and from a key or a click to the rows that it leaves."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("  no chromium: the page was not opened")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        firsts, filters = [], []
        for _ in range(3):
            opened = browser.new_page()
            started = time.perf_counter()
            opened.goto(page.as_uri())
            opened.wait_for_selector(".row")
            firsts.append(time.perf_counter() - started)
            filters += [
                float(opened.evaluate(script))
                for script in (
                    _timed("text", "value = 'w1f'", "oninput"),
                    _timed("wrong", "checked = true", "onchange"),
                    _timed("sort", "value = 'confidence'", "onchange"),
                )
            ]
            opened.close()
        browser.close()
    verdict("first view, s", median(firsts), "<= 2", median(firsts) <= 2)
    verdict("slowest filter or order, ms", max(filters), "<= 200", max(filters) <= 200)


def _timed(element: str, change: str, handler: str) -> str:
    """A script that changes a control and returns the milliseconds until its rows are laid out."""
    return f"""() => {{
        const control = document.getElementById("{element}");
        control.{change};
        const started = performance.now();
        control.{handler}();
        document.body.offsetHeight;
        return performance.now() - started;
    }}"""
