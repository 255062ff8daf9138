"""How often check takes two domains for each other: draws of different domains, and of one domain cut in two.

Run: python -m tests.benchmarks.confusable_domains
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gateway.checking.examples import are_alike, likeness_of
from router.artifact import PACKAGED, whole_encoder
from router.encoder import TransformerEncoder
from tests.benchmarks.domain_prompts import TOPICS, prompts_of

SIZES = (5, 10, 20, 30)
DRAWS = 200


def main() -> None:
    folder = whole_encoder(PACKAGED, "moe-minilm")
    if folder is None:
        raise SystemExit("the packaged encoder is damaged")
    encoder, chance = TransformerEncoder(folder), np.random.default_rng(0)
    vectors = {domain: encoder.encode(prompts_of(domain, "example")) for domain in sorted(TOPICS)}
    for size in SIZES:
        different = [
            told(drawn(vectors[one], size, chance)[0], drawn(vectors[other], size, chance)[0])
            for one, other in combinations(vectors, 2)
            for _ in range(DRAWS)
        ]
        halves = [told(*drawn(own, size, chance)) for own in vectors.values() for _ in range(DRAWS)]
        print(
            f"{size:2d} examples: different {sum(different)} of {len(different)}, one domain {sum(halves)} of {len(halves)}"
        )


def drawn(
    own: NDArray[np.float32], size: int, chance: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two draws with no row in common."""
    order = chance.permutation(len(own))
    return own[order[:size]], own[order[size : 2 * size]]


def told(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return are_alike(likeness_of(one, other))


if __name__ == "__main__":
    main()
