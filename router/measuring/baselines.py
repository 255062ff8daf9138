"""What the router is measured against: ways to choose a domain that need no thought, or little."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from router.dataset import Row

Floats = NDArray[np.floating]
Baseline = Callable[[Sequence[str]], Floats]  # probabilities, shape (texts, domains), each row sums to 1

KEYWORDS = {
    "code": "python javascript typescript java rust golang sql html css bash git docker api json regex function class "
    "method variable loop array string compile compiler bug debug error exception stacktrace traceback code script "
    "program programming algorithm library framework server database query thread async endpoint unittest refactor",
    "math": "solve equation integral derivative differentiate integrate prove proof theorem lemma calculate compute sum "
    "product probability matrix vector eigenvalue polynomial prime integer fraction percent triangle angle radius limit "
    "series geometry algebra calculus logarithm sqrt modulo divisible permutation variance",
    "bio": "cell cells gene genes dna rna protein proteins enzyme bacteria virus disease symptom symptoms patient patients "
    "treatment drug dose blood heart brain cancer diabetes infection antibiotic vaccine immune hormone neuron species "
    "evolution organism plant photosynthesis mitosis clinical diagnosis medicine doctor therapy syndrome",
    "general": "write poem story essay email letter translate recipe travel trip history country president war movie music "
    "book song joke name birthday plan summarise summarize company marketing law philosophy religion politics weather",
}
PRIOR = 0.2  # of a keyword, for every domain: a prompt without keywords is anybody's
FEATURES = 20_000  # of each kind, the most frequent: rarer ones change nothing but the time it takes
WORD = re.compile(r"[^\W_]+")


def always(domain: str, domains: Sequence[str]) -> Baseline:
    """Every text to one domain, for sure."""
    row = np.array([float(d == domain) for d in domains])

    def probabilities(texts: Sequence[str]) -> Floats:
        return np.tile(row, (len(texts), 1))

    return probabilities


def majority(rows: Sequence[Row], domains: Sequence[str]) -> Baseline:
    """Every text to the domain that most of `rows` have: on those very rows, the best that one answer to all can do."""
    count = Counter(row.domain for row in rows)
    return always(max(domains, key=lambda domain: count[domain]), domains)


def keywords(domains: Sequence[str]) -> Baseline:
    """The domain with the most keywords in the text, `general` where there is none; a domain without a list is never chosen."""
    lists = [frozenset(KEYWORDS.get(domain, "").split()) for domain in domains]
    prior = np.array([PRIOR * (1.5 if domain == "general" else 1.0) for domain in domains])

    def probabilities(texts: Sequence[str]) -> Floats:
        words = [WORD.findall(text.lower()) for text in texts]
        hits = np.array([[sum(w in known for w in said) for known in lists] for said in words], dtype=float)
        weights = hits.reshape(len(texts), len(domains)) + prior
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    return probabilities


def tf_idf(rows: Sequence[Row], domains: Sequence[str]) -> Baseline:
    """Words, pairs of words and pieces of words, weighed by TF-IDF, and a logistic regression, fitted to `rows` in seconds.

    Needs a row or more of two domains at least; of the others it says nothing.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), max_features=FEATURES, sublinear_tf=True)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=FEATURES, sublinear_tf=True)
    model = make_pipeline(make_union(words, pieces), SGDClassifier(loss="log_loss", alpha=1e-5, random_state=0))
    model.fit([row.text for row in rows], [row.domain for row in rows])
    columns = [domains.index(domain) for domain in model.classes_]

    def probabilities(texts: Sequence[str]) -> Floats:
        chances = np.zeros((len(texts), len(domains)))
        if texts:
            chances[:, columns] = model.predict_proba(list(texts))
        return chances

    return probabilities


def baselines(training: Sequence[Row], measured: Sequence[Row], domains: Sequence[str]) -> dict[str, Baseline]:
    """Every baseline by its name; TF-IDF learns from those rows of `training` that the router learns from as well."""
    learned = [row for row in training if row.domain in domains and not row.held_out]
    found = {"majority": majority(measured, domains), "keywords": keywords(domains)}
    if "general" in domains:
        found["always_general"] = always("general", domains)
    if len({row.domain for row in learned}) > 1:
        found["tf_idf"] = tf_idf(learned, domains)
    return found
