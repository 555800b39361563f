"""Train and evaluate on FLEURS, in any of its 102 languages.

python recipes/fleurs/run.py --language de_de               download, prepare, train, evaluate
python recipes/fleurs/run.py --language de_de --source DIR  from a copy with DIR/de_de/train.tsv
python recipes/fleurs/run.py --language de_de train.seed=2 out=exp/fleurs-de_de-2
"""

from asr.cli.recipes import main
from data import fleurs

if __name__ == "__main__":
    main(__file__, __doc__, fleurs.prepare, {"language": "en_us"})
