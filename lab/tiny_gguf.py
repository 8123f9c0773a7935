#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a tiny random model in GGUF format: real for a llama-server in every respect but its wits.

Two layers of width 64 and a byte vocabulary with a few words. It loads at once and answers chat, completion
and streaming requests; what it says is noise. The same seed gives the same file, another seed another one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH = 64
LAYERS = 2
HEADS = 4
FEED_FORWARD = 128
CONTEXT = 2048
TEXT = "the fire of a warm hearth is and light stone house winter in burns quiet"
# A word of this tokenizer begins with the mark that stands for the space before it.
WORDS = tuple(f"\u2581{word}" for word in TEXT.split())
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def add_vocabulary(writer: gguf.GGUFWriter) -> int:
    """Describe the tokenizer; return the number of tokens."""
    kinds = gguf.TokenType
    tokens: list[tuple[str, float, int]] = [
        ("<unk>", 0.0, kinds.UNKNOWN),
        ("<s>", 0.0, kinds.CONTROL),
        ("</s>", 0.0, kinds.CONTROL),
    ]
    tokens += [(f"<0x{byte:02X}>", 0.0, kinds.BYTE) for byte in range(256)]
    tokens += [(word, -float(rank), kinds.NORMAL) for rank, word in enumerate(WORDS, start=1)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([int(kind) for _, _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def add_tensors(writer: gguf.GGUFWriter, vocabulary: int, seed: int) -> None:
    """Fill the network with small random numbers."""
    random = np.random.Generator(np.random.PCG64(seed))

    def weights(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (random.standard_normal((rows, columns)) * 0.08).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    output = weights(vocabulary, WIDTH)
    # The words are likelier than stray bytes, so that an answer can be looked at.
    output[3:259] *= 0.2
    output[-len(WORDS) :] *= 6.0
    writer.add_tensor("token_embd.weight", weights(vocabulary, WIDTH))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}.{name}.weight", weights(WIDTH, WIDTH))
        writer.add_tensor(f"{block}.ffn_norm.weight", ones)
        writer.add_tensor(f"{block}.ffn_gate.weight", weights(FEED_FORWARD, WIDTH))
        writer.add_tensor(f"{block}.ffn_up.weight", weights(FEED_FORWARD, WIDTH))
        writer.add_tensor(f"{block}.ffn_down.weight", weights(WIDTH, FEED_FORWARD))


def write_model(out: Path, seed: int) -> None:
    """Write the model beside its place and move it there, so that nobody ever reads half a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    os.close(handle)
    half_done = Path(name)
    try:
        writer = gguf.GGUFWriter(half_done, "llama")
        writer.add_name(f"tiny-{seed}")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(HEADS)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_file_type(int(gguf.LlamaFileType.ALL_F32))
        vocabulary = add_vocabulary(writer)
        writer.add_vocab_size(vocabulary)
        add_tensors(writer, vocabulary, seed)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        half_done.chmod(0o644)
        half_done.replace(out)
    finally:
        half_done.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    write_model(given.out, given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
