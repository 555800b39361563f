"""Train and evaluate SUPERB's recogniser on LibriSpeech's 100 hours of clean speech.

python recipes/superb/run.py                 download, prepare, train, evaluate
python recipes/superb/run.py --source DIR    from a local copy of the unpacked archive
python recipes/superb/run.py features.pretrained=NETWORK out=exp/superb-2   with another network
"""

from functools import partial

from asr.cli.recipes import main
from data import librispeech

if __name__ == "__main__":
    main(__file__, __doc__, partial(librispeech.prepare, "100"))
