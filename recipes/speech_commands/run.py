"""Train and evaluate on Speech Commands v2.

python recipes/speech_commands/run.py                 download, prepare, train, evaluate
python recipes/speech_commands/run.py --source DIR    from a local copy of the unpacked archive
python recipes/speech_commands/run.py train.seed=2 out=exp/speech_commands-2   with other settings
"""

from asr.cli.recipes import main
from data import speech_commands

if __name__ == "__main__":
    main(__file__, __doc__, speech_commands.prepare)
