"""Train and evaluate on yesno.

python recipes/yesno/run.py                 download, prepare, train, evaluate
python recipes/yesno/run.py --source DIR    from a local copy of the unpacked archive
python recipes/yesno/run.py train.seed=2 out=exp/yesno-2   with other settings
"""

from asr.cli.recipes import main
from data import yesno

if __name__ == "__main__":
    main(__file__, __doc__, yesno.prepare)
