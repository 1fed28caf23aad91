"""The answer that disturbed answers are compared with."""

from palpate.targets.base import Target
from palpate.types import Batch, Prediction


def golden_answer(target: Target, batch: Batch) -> Prediction:
    """What an undisturbed target says of an undisturbed batch; asked once where it has a memo."""
    if target.memo is None:
        return target.predict(batch)
    key = ("golden", batch.samples)
    (logits,) = target.memo.recall(key, lambda: (target.predict(batch).logits,))
    return Prediction(logits, target.task)
