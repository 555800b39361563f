"""`--shard` and `--merge`: the results of a single run, in parts.

Covers `asr/cli/align.py`, `asr/cli/evaluate.py`, `asr/cli/transcribe_options.py`,
`asr/inference/plain_values.py` and `asr/project/recordings.py`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from asr.dataset.manifest import read_manifest
from asr.inference.output_folder import RECORD
from asr.io.shard_results import RESULTS
from tests.commands import Command, Ended
from tests.tones import write_recordings

Tones = tuple[dict[str, Path], Path]


@pytest.fixture
def corpus(tmp_path: Path, tones: Tones) -> Path:
    """A manifest whose second recording is not audio, and whose third is missing."""
    rows = list(read_manifest(tones[0]["test"]))
    for row in rows:
        shutil.copy(row.audio, tmp_path)
    (tmp_path / rows[1].audio.name).write_text("not audio")
    (tmp_path / rows[2].audio.name).unlink()
    lines = tones[0]["test"].read_text().replace('"test/', '"')
    (tmp_path / "test.jsonl").write_text(lines)
    return tmp_path / "test.jsonl"


def content(path: Path) -> dict[str, bytes]:
    """Every file below a folder, or a file."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def in_shards(run: Command, words: Sequence[object], out: Path, count: int, status: int) -> Ended:
    """Do a command in shards, and merge them."""
    ended = [run(*words, "--out", out, "--shard", f"{i}/{count}") for i in range(1, count + 1)]
    assert {shard.status for shard in ended} <= {0, status}
    assert max(shard.status for shard in ended) == status
    assert not out.exists()
    return run(*words, "--out", out, "--merge")


def failures(ended: Ended) -> list[str]:
    return [line for line in ended.errors if " failed" not in line]


def test_align(run: Command, tones: Tones, corpus: Path) -> None:
    words = "align", tones[1], corpus
    single, out = corpus.parent / "single", corpus.parent / "merged"
    first = run(*words, "--out", single)
    # More shards than utterances.
    merged = in_shards(run, words, out, 24, 1)
    assert (merged.status, merged.err) == (1, first.err)
    assert len(first.errors) == 2
    # The format belongs to the merge.
    for command in ((single,), (out, "--merge")):
        run(*words, "--format", "ctm", "--out", *command)
    assert content(out) == content(single)
    assert len(content(out)) == 2 * (20 - 2)


def test_check(run: Command, tones: Tones, corpus: Path) -> None:
    folder, lines = corpus.parent, corpus.read_text().splitlines()
    other = folder / "other.jsonl"
    # A repeated id, a recording of both manifests, another duration, a character without a token.
    rows = [json.loads(line) for line in (lines[0], lines[0], lines[4], lines[5])]
    rows[2] |= {"duration": 9.0, "id": "long"}
    rows[3] |= {"text": "\u00e9t\u00e9", "id": "accents"}
    other.write_text("\n".join([*map(json.dumps, rows), "not a row"]))
    words = "check", corpus, other
    model = "--model", tones[1]
    single = run(*words, *model, "--out", folder / "single.txt")
    assert (single.status, (folder / "single.txt").read_text()) == (1, single.out[:-1])
    for kind in ("missing audio", "undecodable audio", "wrong duration", "same recording"):
        assert f"{kind}: " in single.out
    merged = in_shards(run, words, folder / "merged.txt", 3, 1)
    assert (merged.status, merged.out) == (1, run(*words).out)
    # The model belongs to the merge.
    merged = run(*words, *model, "--out", folder / "merged.txt", "--merge")
    assert (merged.status, merged.out) == (1, single.out)
    assert content(folder / "merged.txt") == content(folder / "single.txt")
    # Only what could not be read is read again.
    out = "--out", folder / "merged.txt"
    again = "".join(run(*words, *out, "--shard", f"{i}/3").err for i in (1, 2, 3))
    counts = [(int(n), int(done)) for n, done in re.findall(r": (\d+) of 24, (\d+) done", again)]
    assert [sum(column) for column in zip(*counts, strict=True)] == [24, 22]
    other.write_text("")
    refused = run(*words, *out, "--merge").error()
    assert "got shard 1/3 of another: manifest 2 content" in refused
    assert "no folder or manifest" in run(*words, "--out", other).error()
    assert "no folder or manifest" in run(*words, "--out", folder).error()


def test_clean(run: Command, tones: Tones, corpus: Path) -> None:
    lines = corpus.read_text().splitlines()
    other = json.loads(lines[9]) | {"text": "\u00e9t\u00e9"}  # has no tokens
    corpus.write_text("\n".join([*lines[:9], json.dumps(other), *lines[10:]]))
    words = "clean", tones[1], corpus, "--worst", "20"
    single, out = corpus.parent / "single", corpus.parent / "merged"
    first = run(*words, "--out", single)
    merged = in_shards(run, words, out, 3, 1)
    assert (merged.status, merged.errors) == (1, sorted(first.errors))
    assert len(first.errors) == 2
    assert content(out)["rest.jsonl"] == content(single)["rest.jsonl"]
    rows = [read_manifest(folder / "check.jsonl") for folder in (single, out)]
    found = [[(u.id, u.extra["hypothesis"], u.extra.get("problem")) for u in part] for part in rows]
    assert found[0] == found[1]
    misfits = [[u.extra["misfit"] for u in part] for part in rows]
    assert (rows[1][0].id, misfits[0][0], misfits[1][0]) == (other["id"], None, None)
    assert misfits[0][1:] == pytest.approx(misfits[1][1:], rel=1e-3)
    # How many are written belongs to the merge.
    assert "1 of 18 transcripts" in run(*words[:3], "--worst", "1", "--out", out, "--merge").err


def test_cut(run: Command, tones: Tones, corpus: Path) -> None:
    words = "cut", tones[1], corpus, "--seconds", "0.5"
    single = run(*words, "--out", corpus.parent / "single.jsonl")
    merged = in_shards(run, words, corpus.parent / "merged.jsonl", 3, 1)
    assert (merged.status, merged.errors) == (1, single.errors)
    assert content(corpus.parent / "merged.jsonl") == content(corpus.parent / "single.jsonl")
    assert "replaces no input" in run(*words, "--out", corpus).error()
    rows = (corpus.parent / "single.jsonl").read_text().splitlines()
    assert len(rows) > len(corpus.read_text().splitlines())


def test_new(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.project.new.measure_training", lambda recipe: 60.0)
    recordings = tmp_path / "recordings"
    paths = write_recordings(recordings, {"ann": 5, "ben": 5, "cid": 5})
    shutil.copy(paths[0], paths[14])  # a repeated recording
    paths[3].write_text("not audio")
    whole, part = [path.relative_to(tmp_path) for path in paths[4:6]]
    rows = [f"{whole},one,,", f"{part},one,0,0.4", f"{part},two,0.4,", f"{part},three,0.2,99"]
    rows += [f"{path.relative_to(tmp_path)},four five,," for path in paths[6:]]
    table = tmp_path / "table.csv"
    table.write_text("audio,text,start,end\n" + "\n".join(rows))
    for number, source in enumerate((recordings, table)):
        single, out = tmp_path / f"single{number}", tmp_path / f"merged{number}"
        alone = run("new", single, source)
        assert alone.status == 0
        assert "left-out.txt" in content(single)
        shards = [run("new", out, source, "--shard", f"{i}/2") for i in (1, 2)]
        assert sorted(shard.status for shard in shards) == [0, 1]
        (line,) = [error for shard in shards for error in shard.errors]
        assert ("99" if number else paths[3].name) in line
        assert not out.exists()
        with monkeypatch.context() as context:
            context.setattr("asr.dataset.validate.load_recording", None)  # nothing is read again
            context.setattr("asr.project.recordings.audio_duration", None)
            merged = run("new", out, source, "--merge")
        assert (merged.status, merged.err) == (0, alone.err)
        assert merged.out.replace(str(out), str(single)) == alone.out
        assert content(out) == content(single)
    assert "which exists" in run("new", out, table, "--shard", "1/2").error()
    shutil.rmtree(out)
    (tmp_path / "merged1.shards/00001-of-00002/done.json").unlink()
    assert "no result of shard 1/2" in run("new", out, table, "--merge").error()


def test_pack(run: Command, tones: Tones, corpus: Path) -> None:
    words = "pack", corpus, "--hours", "0.01", "--rate", "8000"
    single = run(*words, "--out", corpus.parent / "single")
    # The archives are written in place: only the manifest waits for the merge.
    out = corpus.parent / "merged"
    shards = [run(*words, "--out", out, "--shard", f"{i}/3") for i in (1, 2, 3)]
    assert not (out / "test.jsonl").exists()
    assert sum(map(bool, (shard.status for shard in shards))) == 1  # two bad ones in one archive
    archive = out / "test-00000.tar"
    archive.rename(out / "away")
    assert "test-00000.tar as it was packed" in run(*words, "--out", out, "--merge").error()
    whole = (out / "away").read_bytes()
    for damaged in (None, whole[: len(whole) // 2]):  # lost, or copied in part
        if damaged is not None:
            archive.write_bytes(damaged)
            assert "test-00000.tar as it was packed" in run(*words, "--out", out, "--merge").error()
        for i in (1, 2, 3):
            run(*words, "--out", out, "--shard", f"{i}/3")
        assert archive.read_bytes() == whole
    (out / "away").unlink()
    merged = run(*words, "--out", out, "--merge")
    assert (merged.status, merged.errors) == (1, single.errors)
    assert content(out) == content(corpus.parent / "single")


def test_evaluate(run: Command, tones: Tones, corpus: Path) -> None:
    words = "evaluate", tones[1], corpus
    single = run(*words, "--out", corpus.parent / "single")
    merged = in_shards(run, words, corpus.parent / "merged", 2, 1)
    assert (merged.status, failures(merged)) == (1, failures(single))
    found, wanted = content(corpus.parent / "merged"), content(corpus.parent / "single")
    assert found["hypotheses.jsonl"] == wanted["hypotheses.jsonl"]
    assert found["reliability.png"] == wanted["reliability.png"]
    reports = [json.loads(files["report.json"]) for files in (found, wanted)]
    facts = [report.pop("run") for report in reports]
    assert reports[0] == reports[1]  # intervals too
    own = {"date", "processing_seconds", "peak_memory_mib", "real_time_factor"}
    assert {k: v for k, v in facts[0].items() if k not in own} == {
        k: v for k, v in facts[1].items() if k not in own
    }
    rows = (corpus.parent / "merged.shards").rglob(RESULTS)
    values = [json.loads(line)[3] for path in rows for line in path.read_text().splitlines()[1:]]
    total = sum(value["seconds"] for value in values)
    assert facts[0]["processing_seconds"] == pytest.approx(total)


def test_transcribe(run: Command, tones: Tones, tree: Path) -> None:
    os.link(tree / "y.wav", os.fsencode(tree) + b"/caf\xe9.wav")
    (tree / "bad.wav").write_text("not audio")
    words = "transcribe", tree, "--model", tones[1], "--format", "srt,json"
    single = run(*words, "--out", tree.parent / "single")
    merged = in_shards(run, words, tree.parent / "merged", 3, 1)
    assert (merged.status, merged.err) == (1, single.err)
    assert content(tree.parent / "merged") == content(tree.parent / "single")
    assert RECORD in content(tree.parent / "merged")
    # The merged folder is as any other.
    resumed = run(*words, "--out", tree.parent / "merged", "--resume")
    assert "5 of 6 recordings are done" in resumed.err


def test_resume_and_shard(run: Command, tones: Tones, tree: Path) -> None:
    words = "transcribe", tree, "--model", tones[1], "--out", tree.parent / "out"
    (tree / "y.wav").rename(tree.parent / "y.wav")
    assert run(*words).status == 0
    (tree.parent / "y.wav").rename(tree / "y.wav")
    for number in (1, 2):
        ended = run(*words, "--resume", "--shard", f"{number}/2")
        assert (ended.status, "3 of 4 recordings are done already" in ended.err) == (0, True)
    lines = [p.read_bytes() for p in (tree.parent / "out.shards").rglob(RESULTS)]
    assert sum(text.count(b"\n") for text in lines) == 2 + 1
    assert "expected a result of" in run(*words, "--merge").error()
    assert run(*words, "--merge", "--resume").status == 0
    assert run(*words, "--resume").err == "note: 4 of 4 recordings are done already\n"


def test_a_finished_shard_is_not_done_again(
    run: Command, tones: Tones, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "transcribe", tree, "--model", tones[1], "--out", tree.parent / "out"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "shard 1/1: 4 of 4\n" in run(*words, "--shard", "auto").err
    assert "shard 1/1: 4 of 4, 4 done before" in run(*words, "--shard", "auto").err
    os.utime(tree / "y.wav")  # a copy has another time
    (tree / "b/x.wav").write_bytes((tree / "y.wav").read_bytes() + b"\0\0")
    assert "'b/x.wav' as shard 1/1 found it" in run(*words, "--merge").error()
    assert "shard 1/1: 4 of 4, 3 done before" in run(*words, "--shard", "auto").err
    assert run(*words, "--merge").status == 0


def test_the_page(run: Command, tones: Tones, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "large-corpora.md").read_text()
    blocks = re.findall("^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (commands,) = [block for block in blocks if block.startswith("asr transcribe")]
    monkeypatch.chdir(tree.parent)
    tree.rename("recordings")
    shutil.copytree(tones[1], "MODEL")
    for command in commands.splitlines():
        assert run(*shlex.split(command)[1:]).status == 0
    assert len(content(Path("texts"))) == 2 * 4 + 1
    # A folder without a name of its own.
    Path("here").mkdir()
    monkeypatch.chdir("here")
    words = "transcribe", "../recordings/y.wav", "--model", "../MODEL", "--out", "."
    assert run(*words, "--shard", "1/1").status == 0
    assert Path("../here.shards/00001-of-00001").is_dir()
    assert run(*words, "--merge").status == 0
    assert "y.txt" in content(Path())


def test_misuse(run: Command, tones: Tones, tree: Path) -> None:
    def refused(*arguments: object) -> str:
        return run("transcribe", "--model", tones[1], *arguments).error()

    out = "--out", tree.parent / "out"
    assert "expected --out with --shard" in refused(tree, "--shard", "1/2")
    assert "expected --out with --merge" in refused(tree, "--merge")
    assert "got both: merge after all" in refused(tree, *out, "--shard", "1/2", "--merge")
    assert "standard input is one" in refused("-", *out, "--shard", "1/2")
    assert "count from 1" in refused(tree, *out, "--shard", "0/2")
    assert "got none of them" in refused(tree, *out, "--shard", "auto")
    assert "run the command with --shard" in refused(tree, *out, "--merge")
    assert run("transcribe", tree, "--model", tones[1], *out, "--shard", "1/2").status == 0
    assert "no result of shard 2/2" in refused(tree, *out, "--merge")
    assert "expected 2 shards as in" in refused(tree, *out, "--shard", "1/3")
    assert "end None, not 2.0" in refused(tree, *out, "--shard", "1/2", "--end", "2")
