"""Train and evaluate on Mini LibriSpeech.

python recipes/mini_librispeech/run.py                 download, prepare, train, tune, evaluate
python recipes/mini_librispeech/run.py --source DIR    from a local copy with DIR/train-clean-5
python recipes/mini_librispeech/run.py --recipe two_cores    for two processor cores
python recipes/mini_librispeech/run.py --text kjv      with more text for the language model
python recipes/mini_librispeech/run.py train.seed=2 out=exp/mini_librispeech-2
"""

from functools import partial

from asr.cli.recipes import main
from data import kjv, librispeech

if __name__ == "__main__":
    prepare = partial(librispeech.prepare, "mini")
    main(__file__, __doc__, prepare, shorten=True, texts={"kjv": kjv.prepare})
