"""Random LoRA adapters of SmolLM2 in PEFT's file format, large enough that each answers differently from the model.

Needs neither torch nor peft: a safetensors file is a header of JSON and the numbers behind it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

RANK = 4
SCALE = 0.3  # standard deviation of what is in both matrices


def make_adapter(model: Path, out: Path, seed: int, scale: float = SCALE) -> Path:
    """Write adapter `out` of the Llama-like `model`, a folder of Hugging Face's. Equal seeds give equal files; with a `scale`
    of 0 it changes nothing. Returns `out`."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    rows = {"q_proj": heads * head, "v_proj": config["num_key_value_heads"] * head}
    chance = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(config["num_hidden_layers"]):
        for module, width in rows.items():
            place = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            shapes = {"lora_A": (RANK, config["hidden_size"]), "lora_B": (width, RANK)}
            for part, shape in shapes.items():
                tensors[f"{place}.{part}.weight"] = (scale * chance.standard_normal(shape)).astype(np.float32)
    out.mkdir(parents=True, exist_ok=True)
    _write_safetensors(out / "adapter_model.safetensors", tensors)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(rows),
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (out / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    return out


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The format: eight bytes with the header's length, the header with each tensor's place, the tensors in that order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, start + tensor.nbytes]}
        start += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
