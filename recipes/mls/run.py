"""Train and evaluate on Multilingual LibriSpeech, in any of its eight languages.

python recipes/mls/run.py --language polish                  download, prepare, train, evaluate
python recipes/mls/run.py --language polish --limited 9hr    learn from the published nine hours
python recipes/mls/run.py --language polish --source DIR     from a local copy with DIR/mls_polish
python recipes/mls/run.py --language polish train.seed=2 out=exp/mls-polish-2
"""

from asr.cli.recipes import main
from data import mls

if __name__ == "__main__":
    main(__file__, __doc__, mls.prepare, {"language": "german", "limited": ""})
