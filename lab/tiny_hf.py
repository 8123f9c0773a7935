#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a tiny random model in Hugging Face's layout: real for vLLM and its kin in every respect but its wits.

A Llama of two layers with a byte-level tokenizer, a few words and a chat template: config.json, model.safetensors,
tokenizer.json and tokenizer_config.json. What it says is noise. The same seed gives the same files, another seed
other ones. It is written without torch or transformers, so that it can be made where neither is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# One of the sizes that vLLM's attention for the processor knows (vllm/v1/attention/backends/cpu_attn.py, 0.32.0).
HEAD = 64
HEADS = 4
WIDTH = HEAD * HEADS
LAYERS = 2
FEED_FORWARD = 512
CONTEXT = 2048
TEXT = "the fire of a warm hearth is and light stone house winter in burns quiet"
# The characters that byte-level tokenizers write bytes as: those that print stand for themselves, the others are
# moved behind the 256th code point, a space to this one.
SPACE = "\u0120"
WORDS = tuple(f"{SPACE}{word}" for word in TEXT.split())
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SPECIALS = (BEGIN, END, PAD)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

Array = np.ndarray[Any, np.dtype[np.float32]]


def byte_characters() -> list[str]:
    """Return the character of each byte in a byte-level tokenizer's vocabulary."""
    printing = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in printing else chr(next(moved)) for byte in range(256)]


def vocabulary() -> list[str]:
    """Return all tokens in the order of their numbers."""
    return [*SPECIALS, *byte_characters(), *WORDS]


def tokenizer() -> dict[str, Any]:
    """Return tokenizer.json: bytes without merges, so that any text can be said with them."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, token in enumerate(SPECIALS)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(vocabulary())},
            "merges": [],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """Return tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def config() -> dict[str, Any]:
    """Return config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "vocab_size": len(vocabulary()),
        "bos_token_id": SPECIALS.index(BEGIN),
        "eos_token_id": SPECIALS.index(END),
        "pad_token_id": SPECIALS.index(PAD),
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def tensors(seed: int) -> dict[str, Array]:
    """Return the network, filled with small random numbers."""
    random = np.random.Generator(np.random.PCG64(seed))

    def weights(rows: int, columns: int) -> Array:
        return (random.standard_normal((rows, columns)) * 0.04).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    size = len(vocabulary())
    output = weights(size, WIDTH)
    # The words are likelier than stray bytes, so that an answer can be looked at; the end never comes by itself.
    output[: len(SPECIALS)] = 0
    output[len(SPECIALS) : -len(WORDS)] *= 0.2
    output[-len(WORDS) :] *= 6.0
    network = {"model.embed_tokens.weight": weights(size, WIDTH), "model.norm.weight": ones, "lm_head.weight": output}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        network[f"{block}.input_layernorm.weight"] = ones
        network[f"{block}.post_attention_layernorm.weight"] = ones
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            network[f"{block}.self_attn.{name}.weight"] = weights(WIDTH, WIDTH)
        network[f"{block}.mlp.gate_proj.weight"] = weights(FEED_FORWARD, WIDTH)
        network[f"{block}.mlp.up_proj.weight"] = weights(FEED_FORWARD, WIDTH)
        network[f"{block}.mlp.down_proj.weight"] = weights(WIDTH, FEED_FORWARD)
    return network


def safetensors(network: dict[str, Array]) -> bytes:
    """Return the tensors in the format of safetensors: the header's length, a header in JSON, all data in a row."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in sorted(network.items()):
        raw = tensor.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    words = json.dumps(header, separators=(",", ":")).encode()
    # Readers map the data into memory: it begins at a multiple of eight.
    words += b" " * (-len(words) % 8)
    return struct.pack("<Q", len(words)) + words + data


def write_model(out: Path, seed: int) -> None:
    """Write the folder beside its place and move it there, so that nobody ever reads half a model."""
    out.parent.mkdir(parents=True, exist_ok=True)
    half_done = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for name, content in (
            ("config.json", config()),
            ("tokenizer.json", tokenizer()),
            ("tokenizer_config.json", tokenizer_config()),
        ):
            text = json.dumps(content, indent=1, ensure_ascii=False)
            (half_done / name).write_text(f"{text}\n", encoding="utf-8")
        (half_done / "model.safetensors").write_bytes(safetensors(tensors(seed)))
        half_done.chmod(0o755)
        shutil.rmtree(out, ignore_errors=True)
        half_done.rename(out)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    write_model(given.out, given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
