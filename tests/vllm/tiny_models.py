"""Tiny random models of the architectures that people deploy, and what transformers itself answers with each.

The tests call `tiny_models`, which runs this file as a program with the interpreter of the vLLM environment: torch and
transformers are there, not here. A model is a Hugging Face folder with SmolLM2's tokenizer and chat template. Its seed is
one for which every greedy token is ahead of the next best by a good margin, so that the order in which two engines add up
their sums decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / ".cache" / "smollm2"
CACHE = ROOT / ".cache" / "tiny-models"
# The second is longer than the sliding windows below, so that what has left them shows.
PROMPTS = (
    "What is the capital of France?",
    "A rectangular garden is 12 metres long and 7 metres wide, with a path of one metre all around it. " * 3,
)
NEW_TOKENS = 5
HEAD = 32  # the least that vLLM's attention on the CPU takes
WINDOW = 32  # tokens
SEEDS = {
    "llama": 45,
    "mistral": 12,
    "mixtral": 4,
    "falcon-7b": 13,
    "falcon-40b": 6,
    "olmo": 11,
    "olmo2": 2,
    "olmo3": 4,
    "qwen2": 9,
    "qwen3": 4,
    "gemma3": 900,
}  # where the search begins: as found with the torch of deploy/vllm-cpu
MARGIN = 0.012  # of a logit's own size, of which bfloat16 tells apart 0.004
LAYERS = 2


@dataclass(frozen=True)
class Answer:
    """`tokens` are what a chat of one user message, `prompt`, is continued with at temperature 0."""

    prompt: str
    prompt_tokens: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class TinyModel:
    name: str
    folder: Path
    architecture: str  # the class by which vLLM serves it
    answers: tuple[Answer, ...]


def tiny_models(python: Path) -> dict[str, TinyModel]:
    """All of them by name; `python` builds those that .cache lacks. Raises CalledProcessError."""
    parts = (Path(__file__), TOKENIZER / "tokenizer.json", TOKENIZER / "chat_template.jinja")
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:12]
    home = CACHE / digest
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as building:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
            subprocess.run([python, __file__, building], check=True, env=environment)
            Path(building).chmod(0o755)
            Path(building).rename(home)
            Path(building).mkdir()  # for its owner to remove
        for old in CACHE.iterdir():
            if old != home:
                shutil.rmtree(old, ignore_errors=True)
    return {folder.name: _read(folder) for folder in sorted(home.iterdir())}


def _read(folder: Path) -> TinyModel:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    answers = json.loads((folder / "answers.json").read_text("utf-8"))
    (architecture,) = config["architectures"]
    return TinyModel(folder.name, folder, architecture, tuple(Answer(**answer) for answer in answers))


# What follows runs in the vLLM environment.


def _configs(ids: dict[str, int]) -> dict[str, Any]:
    """A transformers configuration for each name."""
    import transformers as t

    base: dict[str, Any] = {
        "hidden_size": 2 * HEAD,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        **ids,
    }
    gated = {**base, "intermediate_size": 4 * HEAD}
    grouped = {**gated, "num_key_value_heads": 1}
    alternating = ["sliding_attention", "full_attention"]
    falcon = {**base, "alibi": False, "bias": False}
    wide = {"hidden_size": 4 * HEAD, "num_attention_heads": 4, "num_kv_heads": 2}
    return {
        "llama": t.LlamaConfig(**gated, num_key_value_heads=2),
        "mistral": t.MistralConfig(**grouped, sliding_window=None),
        "mixtral": t.MixtralConfig(**grouped, sliding_window=None, num_local_experts=4, num_experts_per_tok=2),
        "falcon-7b": t.FalconConfig(**falcon, multi_query=True, parallel_attn=True),
        "falcon-40b": t.FalconConfig(**{**falcon, **wide}, new_decoder_architecture=True),
        "olmo": t.OlmoConfig(**gated, num_key_value_heads=2),
        "olmo2": t.Olmo2Config(**gated, num_key_value_heads=2),
        "olmo3": t.Olmo3Config(**gated, num_key_value_heads=2, sliding_window=WINDOW, layer_types=alternating),
        "qwen2": t.Qwen2Config(**grouped),
        "qwen3": t.Qwen3Config(**grouped, head_dim=HEAD),
        # Its head is its embedding: weights as large as the others' would have it repeat the last token.
        "gemma3": t.Gemma3TextConfig(
            **{**grouped, "initializer_range": 0.05}, head_dim=HEAD, sliding_window=WINDOW, layer_types=alternating
        ),
    }


def _llama_pro(llama: Any) -> Any:
    """Llama with a block between its own whose two outputs are zero, as Llama Pro starts: it answers as before."""
    import torch
    import transformers as t

    config = t.LlamaConfig(**{**llama.config.to_dict(), "num_hidden_layers": LAYERS + 1})
    model = t.LlamaForCausalLM(config)
    kept = llama.state_dict()
    moved = {name.replace(f"layers.{LAYERS - 1}.", f"layers.{LAYERS}."): tensor for name, tensor in kept.items()}
    model.load_state_dict(moved, strict=False)
    with torch.no_grad():
        model.model.layers[LAYERS - 1].self_attn.o_proj.weight.zero_()
        model.model.layers[LAYERS - 1].mlp.down_proj.weight.zero_()
    return model.to(torch.bfloat16).eval()


def _windowed(mistral: Any) -> Any:
    """Mistral's weights, with each token seeing no further back than the window."""
    import torch
    import transformers as t

    config = t.MistralConfig(**{**mistral.config.to_dict(), "sliding_window": WINDOW})
    model = t.MistralForCausalLM(config)
    model.load_state_dict(mistral.state_dict())
    return model.to(torch.bfloat16).eval()


# Made from another model's weights: the name of that, and how.
_DERIVED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "llama-pro": ("llama", _llama_pro),
    "mistral-window": ("mistral", _windowed),
}


def _seeded(config: Any, seed: int) -> Any:
    import torch
    import transformers as t

    torch.manual_seed(seed)
    return t.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval()


def _continue(model: Any, prompt: Sequence[int]) -> list[int] | None:
    """Greedily, each token from a whole pass without a cache; None where a token is not well ahead of the next best."""
    import torch

    tokens = list(prompt)
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
        (first, second), (best, _) = (part.tolist() for part in logits.topk(2))
        if first - second < MARGIN * abs(first):
            return None
        tokens.append(best)
    return tokens[len(prompt) :]


def _answers(models: Sequence[Any], prompts: Sequence[list[int]]) -> list[list[list[int]]] | None:
    """Those of each model to each prompt; None where one is doubtful, repeats itself, or says the same to both."""
    answers = []
    for model in models:
        each = [_continue(model, prompt) for prompt in prompts]
        said = [answer for answer in each if answer is not None]
        if len(said) < len(prompts) or said[0] == said[1] or min(len(set(answer)) for answer in said) < 3:
            return None
        answers.append(said)
    return answers


def _build(out: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    prompts = [
        list(
            tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
        )
        for text in PROMPTS
    ]
    for name, config in _configs({"vocab_size": len(tokenizer), **ids}).items():
        made = [(other, make) for other, (source, make) in _DERIVED.items() if source == name]
        for seed in range(SEEDS[name], SEEDS[name] + 1000):
            model = _seeded(config, seed)
            models = {name: model, **{other: make(model) for other, make in made}}
            answers = _answers(list(models.values()), prompts)
            if answers is not None:
                break
        else:
            raise SystemExit(f"tiny_models.py: no seed gives {name} answers without doubt")
        for (each, built), said in zip(models.items(), answers, strict=True):
            folder = out / each
            built.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            rows = zip(PROMPTS, prompts, said, strict=True)
            text = json.dumps([{"prompt": p, "prompt_tokens": tokens, "tokens": new} for p, tokens, new in rows])
            (folder / "answers.json").write_text(text + "\n", "utf-8")
            sys.stderr.write(f"{each}: {type(built).__name__}, seed {seed}\n")


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
