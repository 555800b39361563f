"""Train and evaluate on TIMIT's phones.

python recipes/timit/run.py --source DIR    from a local copy of the corpus
python recipes/timit/run.py --source DIR train.seed=2 out=exp/timit-2   with other settings
"""

from asr.cli.recipes import main
from data import timit

if __name__ == "__main__":
    main(__file__, __doc__, timit.prepare)
