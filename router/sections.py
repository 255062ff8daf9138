"""Sections: what experts.yaml says of domains and of the router itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from router.upstream import Part
from router.values import Usd, about


class Domain(Part):
    """What a prompt may be about. A domain of one's own needs examples; those of a built-in one join its corpus."""

    description: Annotated[str, about("What it is about, for people.", "statutes, contracts, case law")] = ""
    examples: Annotated[
        tuple[str, ...],
        about(
            "Prompts of it, 10 to 50 and as different as they come, or file: and the path of a file with one a line.",
            ["Is a verbal contract enforceable in Spain?", "What does force majeure mean in a lease?"],
            "file:legal.txt",
        ),
    ] = ()

    @model_validator(mode="after")
    def _no_empty_example(self) -> Domain:
        if any(not example.strip() for example in self.examples):
            raise ValueError("an example is empty")
        return self


class RouterOptions(Part):
    """How prompts are classified, and what happens when that is not sure."""

    confidence_floor: Annotated[
        float,
        Field(ge=0, le=1),
        about("Less sure than this of what a prompt is about, and the fallback answers.", 0.55),
    ] = 0.55
    fallback: Annotated[
        str | None,
        about(
            "The expert that answers when the router is unsure; the first that serves general, where it is not said.",
            "general",
        ),
    ] = None
    # A name that PARTS knows or a package adds; with a / in it, a sentence-transformers model of the hub or of a folder.
    encoder: Annotated[
        str,
        about(
            "What reads prompts that the cheap stage is not sure of: a name, or with a / in it a sentence-transformers model.",
            "moe-minilm",
        ),
    ] = "moe-minilm"
    # Were it a transformer, every decision would wait for a thread.
    static: Annotated[str, about("What reads every prompt first, the cheap stage; empty for none.", "moe-static")] = (
        "moe-static"
    )
    head: Annotated[str, about("What tells domains apart by what an encoder read.", "linear", "kernel")] = "linear"
    calibrator: Annotated[str, about("What makes probabilities of what the head says.", "temperature", "isotonic")] = (
        "temperature"
    )
    cpu_hour: Annotated[Usd, about("USD for an hour of one core, which is what classifying costs.", 0.04)] = 0.04
    retrain_margin: Annotated[
        float,
        Field(ge=0, le=1),
        about(
            "The macro-F1 over old domains that a router may lose to the one before it, when it is trained anew while that serves.",
            0.02,
        ),
    ] = 0.02
