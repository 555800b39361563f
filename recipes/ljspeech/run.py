"""Train and evaluate on LJ Speech.

python recipes/ljspeech/run.py                 download, prepare, train, evaluate
python recipes/ljspeech/run.py --source DIR    from a local copy of the unpacked archive
python recipes/ljspeech/run.py train.seed=2 out=exp/ljspeech-2   with other settings
"""

from asr.cli.recipes import main
from data import ljspeech

if __name__ == "__main__":
    main(__file__, __doc__, ljspeech.prepare)
