"""acme_policy: the virtual model auto:acme-careful, which wants to be surer than auto before a specialist answers."""

from router.policy import Choice, State, best

SURE = 0.8


def careful(state: State) -> Choice | None:
    """The best expert where the router is sure of the domain, else the fallback expert if it is able."""
    fallback = state.file.fallback
    if state.scores.confidence < SURE and fallback in state.expected:
        return fallback, "low_confidence"
    return best(state)
