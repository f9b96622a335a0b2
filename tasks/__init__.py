"""The stages, in the order data flows through them."""

from tasks.ask import ASK
from tasks.describe import DESCRIBE
from tasks.download import DOWNLOAD
from tasks.execute import EXECUTE
from tasks.finetune import FINETUNE
from tasks.generate import GENERATE
from tasks.import_completions import IMPORT
from tasks.judge import JUDGE
from tasks.mix import MIX
from tasks.normalize import NORMALIZE
from tasks.recover import RECOVER
from tasks.score import SCORE
from tasks.tabulate import TABULATE
from tasks.tokenization import TOKENIZE

STAGES = (
    DOWNLOAD,
    NORMALIZE,
    MIX,
    DESCRIBE,
    TOKENIZE,
    FINETUNE,
    RECOVER,
    GENERATE,
    IMPORT,
    ASK,
    EXECUTE,
    JUDGE,
    SCORE,
    TABULATE,
)
