"""Checks of datasets."""

import torch

from palpate.contracts.oracles import expect
from palpate.datasets.base import Dataset, Samples
from palpate.errors import DataError


def check_ordered_and_repeatable(dataset: Dataset) -> None:
    """Two readings give the same samples in the same order, and the digest says so."""
    first, second = _loaded(dataset), _loaded(dataset)
    if first is None or second is None:
        return
    expect(first.ids == second.ids, f"{dataset!r}: another order on the second reading")
    expect(first.digest() == second.digest(), f"{dataset!r}: other content on the second reading")
    whole = first.batch(range(min(4, len(first)))).images
    alone = torch.cat([first.batch([i]).images for i in range(len(whole))])
    expect(torch.equal(whole, alone), f"{dataset!r}: a batch differs from its samples")


def check_limit_keeps_the_first(dataset: Dataset) -> None:
    """A limit keeps the first samples and changes the digest."""
    whole = _loaded(dataset)
    if whole is None or len(whole) < 3:
        return
    part = dataset.load(2)
    expect(part.ids == whole.ids[:2], f"{dataset!r}: a limit of 2 keeps {part.ids}")
    expect(part.digest() != whole.digest(), f"{dataset!r}: the digest does not see the limit")


def _loaded(dataset: Dataset) -> Samples | None:
    """The samples, or None where the defaults name no files (a folder of the user's own)."""
    try:
        return dataset.load()
    except DataError:
        return None
