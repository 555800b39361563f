"""Train and evaluate on all 960 hours of LibriSpeech.

python recipes/librispeech_960/run.py                 download, prepare, train, evaluate
python recipes/librispeech_960/run.py --source DIR    from a local copy of the unpacked archive
python recipes/librispeech_960/run.py train.seed=2 out=exp/librispeech_960-2   with other settings
"""

from functools import partial

from asr.cli.recipes import main
from data import librispeech

if __name__ == "__main__":
    main(__file__, __doc__, partial(librispeech.prepare, "960"))
