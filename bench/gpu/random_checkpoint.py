#!/usr/bin/env python3
"""Writes a checkpoint of random weights of a published shape, to measure how fast it loads: BF16, or with --fp8 linears in
E4M3 with one scale a tensor, as AutoFP8 lays them out. Needs torch.

Usage: bench/gpu/random_checkpoint.py bench/gpu/models/llama-3-8b OUT_FOLDER [--fp8]
"""
import json
import pathlib
import sys

import torch

SHARD_BYTES = 4 << 30


def modules(config):
    """Weights and their shapes of a Llama-like model, in the order of its layers."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (queries, hidden)
        yield prefix + "self_attn.k_proj.weight", (keys, hidden)
        yield prefix + "self_attn.v_proj.weight", (keys, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, queries)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def tensors(config, fp8):
    """Name, dtype and shape of everything that is stored."""
    for name, shape in modules(config):
        quantized = fp8 and name.endswith("_proj.weight")
        yield name, torch.float8_e4m3fn if quantized else torch.bfloat16, shape
        if quantized:
            yield name + "_scale", torch.float32, ()


def shards(config, fp8):
    shard, size = [], 0
    for name, dtype, shape in tensors(config, fp8):
        num_bytes = dtype.itemsize * torch.Size(shape).numel()
        if shard and size + num_bytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, dtype, shape, size, size + num_bytes))
        size += num_bytes
    yield shard


def write_shard(path, shard, device):
    names = {torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.float32: "F32"}
    header = {name: {"dtype": names[dtype], "shape": list(shape), "data_offsets": [begin, end]} for name, dtype, shape, begin, end in shard}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, dtype, shape, _, _ in shard:
            values = torch.randn(shape, device=device, dtype=torch.bfloat16) * (60 if dtype == torch.float8_e4m3fn else 0.02)
            if name.endswith("norm.weight"):
                values += 1
            if name.endswith("_scale"):
                values = torch.full((1,), 0.02 / 60, device=device)
            out.write(values.to(dtype).reshape(-1).cpu().view(torch.uint8).numpy().data)


def main():
    model, folder, fp8 = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "--fp8" in sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())
    stored = {**config, "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]}}
    (folder / "config.json").write_text(json.dumps(stored if fp8 else config))
    all_shards, index = list(shards(config, fp8)), {}
    for i, shard in enumerate(all_shards):
        name = f"model-{i + 1:05}-of-{len(all_shards):05}.safetensors"
        write_shard(folder / name, shard, "cuda" if torch.cuda.is_available() else "cpu")
        index.update({tensor: name for tensor, *_ in shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


if __name__ == "__main__":
    main()
