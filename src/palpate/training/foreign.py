"""Questions that do not fit their image: those of another site, whose right answer is no pixel.

Where every image is only ever asked for what it shows, the image alone says what to draw, and a
network need not read. Questions without a target, and an empty mask as the truth, are those of Liu,
Ding, Jiang, "GRES: Generalized Referring Expression Segmentation", arXiv 2306.00968, section 3.1.
Only wordings that all images of a site share are used: they cannot tell about any one mask.
"""

from typing import Final

import torch
from torch import Tensor

from palpate.datasets.base import Samples
from palpate.errors import ConfigError
from palpate.targets.base import Tokenizer
from palpate.training.examples import Examples

MISMATCHED: Final = "mismatched"
"""Ends the name of a split under questions that do not fit."""


def foreign_questions(samples: Samples, tokenizer: Tokenizer) -> Tensor:
    """For each image the shared questions of every other site, (n, wordings, sites - 1, token).

    Args:
        samples: with prompts, of two sites or more; the audit's question comes first if all images
            of a site share it, then the other wordings.
        tokenizer: of the network.

    Raises:
        ConfigError: one site only, or no wording that tells the sites apart.
    """
    sites = sorted(set(samples.sites))
    shared: list[dict[str, str]] = []
    for texts in (samples.prompts or (), *samples.wordings.values()):
        of = {
            site: {t for t, s in zip(texts, samples.sites, strict=True) if s == site}
            for site in sites
        }
        only = {site: next(iter(found)) for site, found in of.items() if len(found) == 1}
        if len(set(only.values()) - {""}) == len(sites):
            shared.append(only)
    if len(sites) < 2 or not shared:
        raise ConfigError(
            f"mismatched: expected two or more sites, each with a question that all its images"
            f" share, got {len(sites)} sites and {len(shared)} such wordings"
        )
    ids = {text: tokenizer([text])[0] for only in shared for text in only.values()}
    rows = {
        site: torch.stack(
            [torch.stack([ids[only[other]] for other in sites if other != site]) for only in shared]
        )
        for site in sites
    }
    return torch.stack([rows[site] for site in samples.sites])


def mismatching(split: Examples) -> Examples:
    """Every image under the first question of each other site, and no pixel as the truth.

    Raises:
        ConfigError: a split without such questions.
    """
    if split.foreign is None:
        raise ConfigError("mismatched: expected examples with questions that do not fit, got none")
    times = split.foreign.shape[2]
    return Examples(
        split.images.repeat_interleave(times, dim=0),
        torch.zeros_like(split.labels).repeat_interleave(times, dim=0),
        split.foreign[:, 0].flatten(0, 1)[:, None],
    )
