"""Examples: which prompts of a cluster a domain is best taught with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.suggesting.pool import Floats
from router.suggesting.private import is_private

MOST = 16  # examples; twenty are better than ten, and who pastes them has to read them
NEAR = 0.7  # the share of a cluster, nearest to its centre, that examples come from
LONGEST = 300  # characters of one
ALIKE = 0.95  # the cosine from which on two say the same


def chosen(texts: Sequence[str], vectors: Floats, most: int = MOST) -> list[int]:
    """Places of texts that stand for a cluster: near its centre, unlike one another, fit to be put into a file.

    `texts` are the cluster's, the nearest to its centre first, and `vectors` theirs, shape (texts, dimensions).
    """
    near = range(max(most, round(NEAR * len(texts))))
    open_ = [i for i in near if i < len(texts) and len(texts[i]) <= LONGEST and not is_private(texts[i])]
    if not open_:
        return []
    centre = vectors.mean(axis=0)
    taken = [open_[0]]
    while len(taken) < most:
        left = [i for i in open_ if i not in taken]
        if not left:
            break
        nearest = (vectors[left] @ vectors[taken].T).max(axis=1)
        gain = np.where(nearest < ALIKE, vectors[left] @ centre - nearest, -np.inf)
        best = int(gain.argmax())
        if np.isneginf(gain[best]):
            break
        taken.append(left[best])
    return sorted(taken)
