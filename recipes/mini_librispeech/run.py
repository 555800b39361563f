"""Train and evaluate on Mini LibriSpeech.

python recipes/mini_librispeech/run.py                 download, prepare, train, evaluate
python recipes/mini_librispeech/run.py --source DIR    from a local copy with DIR/train-clean-5
python recipes/mini_librispeech/run.py train.seed=2 out=exp/mini_librispeech-2
"""

from functools import partial

from asr.cli.recipes import main
from data import librispeech

if __name__ == "__main__":
    prepare = partial(librispeech.prepare, "mini")
    main(__file__, __doc__, prepare, shorten=True, before=["first", "second", "third", "fourth"])
