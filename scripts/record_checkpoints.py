#!/usr/bin/env python3
"""Records what the real Python libraries say about checkpoint files, for octet's tests and fuzzers.

Needs: numpy==2.4.6 safetensors==0.8.0 gguf==0.19.0 tokenizers==0.23.3 transformers==5.23.0 (no torch).
Usage: scripts/record_checkpoints.py            writes tests/golden/checkpoints/ and tests/fuzz/{safetensors,gguf,config}_fuzz/

  small.safetensors, small.json     written by safetensors.numpy, and the values that it reads back
  quants.safetensors                random blocks of each GGUF encoding ("<type>.blocks") and gguf's dequantisation ("<type>.values")
  tiny_llama.gguf, tiny_spm.gguf    GGUF files written by gguf: byte-level BPE and SentencePiece vocabularies
  tiny_llama.safetensors            what transformers' loader makes of tiny_llama.gguf's tensors: names, unpermuted rows, F32
  merges.json                       transformers' generate_merges of tiny_spm.gguf's pieces and scores
  tiny_*.tokenizer.json             the same vocabularies as tokenizers itself would save them
  tokens.json                       texts and the ids that those tokenizers give
"""
import json
import os
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import generate_merges

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/golden/checkpoints"
FUZZ = ROOT / "tests/fuzz"
RANDOM = np.random.default_rng(20)
TEXTS = ["hello the hen", "The 2024 hen's\n\n  ten\tthen", "<|im_start|>he<|im_end|>then", "h\u00e9 \u2603 \U0001f600", "", "   ", "hehehe the then hen 1234567"]


def record_safetensors():
    tensors = {
        "b.odd": np.arange(3, dtype=np.uint8),
        "a.f32": RANDOM.standard_normal((2, 3)).astype(np.float32),
        "c.f16": RANDOM.standard_normal((4,)).astype(np.float16),
        "d.i64": np.array([[-5, 7]], dtype=np.int64),
        "e.empty": np.zeros((0, 4), dtype=np.float32),
        "f.scalar": np.array(2.5, dtype=np.float32),
        "g.bool": np.array([True, False, True]),
        "h.i32": np.array([-1, 2**31 - 1], dtype=np.int32),
        "i.i8": np.array([-128, 127], dtype=np.int8),
    }
    save_file(tensors, OUT / "small.safetensors", metadata={"format": "np", "note": "\u00fcber"})
    listing = {name: {"shape": list(value.shape), "values": value.astype(np.float64).ravel().tolist()}
               for name, value in load_file(OUT / "small.safetensors").items()}
    (OUT / "small.json").write_text(json.dumps(listing, indent=1) + "\n")


def record_quants():
    tensors = {}
    for kind in [Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q4_K, Q.Q6_K]:
        size, num_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = RANDOM.integers(0, 256, (6 if size > 1 else 64, num_bytes), dtype=np.uint8)
        # The scales of a block are F16: keep them finite, with signs, subnormals and zero among them.
        at = {Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q4_K: [0, 2], Q.Q6_K: [208], Q.F16: [0], Q.BF16: [0]}[kind]
        for row, block in enumerate(blocks):
            for i in at:
                value = [1e-7, 0.0, -0.75][row] if row < 3 else RANDOM.standard_normal()
                dtype = np.float16
                if kind == Q.BF16:
                    block[:] = np.frombuffer(np.float32(value).tobytes()[2:], np.uint8)
                else:
                    block[i:i + 2] = np.frombuffer(dtype(value).tobytes(), np.uint8)
        tensors[f"{kind.name}.blocks"] = blocks
        tensors[f"{kind.name}.values"] = gguf.dequantize(blocks, kind).astype(np.float32).reshape(-1)
    save_file(tensors, OUT / "quants.safetensors")


def byte_alphabet():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def byte_level_vocabulary():
    """Byte-level BPE trained nowhere: the bytes and a few merges by hand."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = special + [byte_alphabet()[b] for b in range(256)]
    merges = []
    for pair in ["h e", "t he", "\u0120 the", "e n", "he n", "\u0120 hen", "1 2", "the n", "\u0120 \u0120"]:
        left, right = pair.split(" ")
        merges.append(pair)
        if left + right not in tokens:
            tokens.append(left + right)
    tokens.append("<tool>")
    types = [3] * 3 + [1] * (len(tokens) - 4) + [4]
    return tokens, types, merges


def write_llama(path, vocabulary, tensors, quant):
    hidden, ffn, heads, kv_heads, layers = 64, 32, 4, 2, 1
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(hidden // heads)
    vocabulary(writer)
    for name, value in tensors.items():
        if value.ndim == 1:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quantize(value, quant), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_tensors(num_tokens):
    shapes = {"token_embd.weight": (num_tokens, 64), "output_norm.weight": (64,), "blk.0.attn_norm.weight": (64,), "blk.0.ffn_norm.weight": (64,),
              "blk.0.attn_q.weight": (64, 64), "blk.0.attn_k.weight": (32, 64), "blk.0.attn_v.weight": (32, 64), "blk.0.attn_output.weight": (64, 64),
              "blk.0.ffn_gate.weight": (32, 64), "blk.0.ffn_up.weight": (32, 64), "blk.0.ffn_down.weight": (64, 32)}
    return {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


HF_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
            "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
            "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def record_llama():
    tokens, types, merges = byte_level_vocabulary()

    def vocabulary(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(False)
        writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")

    path = OUT / "tiny_llama.gguf"
    write_llama(path, vocabulary, llama_tensors(len(tokens)), Q.Q8_0)
    expected = {}
    for tensor in gguf.GGUFReader(path).tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        *layer, stem = tensor.name.removesuffix(".weight").split(".")
        heads = {"attn_q": 4, "attn_k": 2}.get(stem)
        if heads:  # the inverse of convert_hf_to_gguf's permute
            value = value.reshape(heads, value.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
        prefix = f"model.layers.{layer[1]}." if layer else ""
        expected[f"{prefix}{HF_NAMES[stem]}.weight"] = np.ascontiguousarray(value.astype(np.float32))
    save_file(expected, OUT / "tiny_llama.safetensors")

    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens[:3]])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def record_sentencepiece():
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [2, 3, 3] + [6] * 256
    scores = [0.0] * len(pieces)
    for score, piece in enumerate(["he", "\u2581t", "en", "the", "\u2581the", "hen", "\u2581hen", "then", "\u2581then", "el", "lo", "\u2581\u2581"]):
        pieces.append(piece)
        types.append(1)
        scores.append(-float(score))
    for i, letter in enumerate("\u2581thenlo'1234567\u00e9"):
        pieces.append(letter)
        types.append(1)
        scores.append(-100.0 - i)

    def vocabulary(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)

    path = OUT / "tiny_spm.gguf"
    write_llama(path, vocabulary, llama_tensors(len(pieces)), Q.Q4_1)
    ordinary = [i for i, kind in enumerate(types) if kind == 1]
    merges = generate_merges({pieces[i]: i for i in ordinary}, {pieces[i]: scores[i] for i in ordinary})
    (OUT / "merges.json").write_text(json.dumps(merges, ensure_ascii=False, indent=0) + "\n")

    tokenizer = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in pieces[:3]])
    return tokenizer


def record_seeds():
    for name in ["safetensors", "gguf", "config"]:
        (FUZZ / f"{name}_fuzz").mkdir(parents=True, exist_ok=True)
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros((4,), np.uint8)}, FUZZ / "safetensors_fuzz/two.safetensors", metadata={"format": "np"})
    (FUZZ / "safetensors_fuzz/index.json").write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors"}}))

    def tiny(path, add_vocabulary, quant):
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(8)
        writer.add_embedding_length(32)
        writer.add_block_count(1)
        writer.add_feed_forward_length(32)
        writer.add_head_count(2)
        writer.add_layer_norm_rms_eps(1e-5)
        add_vocabulary(writer)
        names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
        for name in ["token_embd.weight"] + [f"blk.0.{n}.weight" for n in names]:
            writer.add_tensor(name, gguf.quantize(np.ones((4 if name[0] == "t" else 32, 32), np.float32), quant), raw_dtype=quant)
        for name in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"]:
            writer.add_tensor(name, np.ones(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def bpe(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(["a", "b", "ab", "<e>"])
        writer.add_token_types([1, 1, 1, 3])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(3)
        writer.add_eos_token_id(3)

    def spm(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<s>", "a", "b", "ab"])
        writer.add_token_types([3, 1, 1, 1])
        writer.add_token_scores([0.0, -1.0, -2.0, -3.0])
        writer.add_bos_token_id(0)

    tiny(FUZZ / "gguf_fuzz/bpe.gguf", bpe, Q.Q8_0)
    tiny(FUZZ / "gguf_fuzz/spm.gguf", spm, Q.Q4_0)
    (FUZZ / "config_fuzz/llama.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}, "tie_word_embeddings": True, "dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": [2, 3], "top_k": 20, "temperature": 0.6}))
    (FUZZ / "config_fuzz/qwen2.json").write_text(json.dumps({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "head_dim": 16, "vocab_size": 100, "max_position_embeddings": 128, "use_sliding_window": True,
        "sliding_window": 32, "max_window_layers": 1, "rope_theta": 1e6, "torch_dtype": "float16",
        "quantization_config": {"quant_method": "fp8"}}))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    record_safetensors()
    record_quants()
    tokenizers = {"tiny_llama.gguf": record_llama(), "tiny_spm.gguf": record_sentencepiece()}
    cases = {name: [{"text": text, "ids": t.encode(text, add_special_tokens=False).ids} for text in TEXTS] for name, t in tokenizers.items()}
    for name, tokenizer in tokenizers.items():
        tokenizer.save(str(OUT / name.replace(".gguf", ".tokenizer.json")), pretty=False)
    (OUT / "tokens.json").write_text(json.dumps(cases, indent=0) + "\n")
    record_seeds()
    for path in sorted(OUT.iterdir()):
        print(f"{os.path.getsize(path):8} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
