#!/usr/bin/env python3
"""Records tiny checkpoints that the real packages quantise and write, with what their producers meant by them, for
tests/models/recorded_checkpoints_test.cc and tests/checkpoints: tests/golden/checkpoints/<name>/.

  scripts/record_quantised.py llmcompressor [NAME ...]   needs torch 2.11.0, transformers 5.23.0, compressed-tensors 0.19.0, llmcompressor 0.14.0.1
  scripts/record_quantised.py modelopt [NAME ...]        needs torch 2.11.0, transformers 5.23.0, nvidia-modelopt 0.47.0

Other versions are refused. All of it runs on a CPU; none of it is needed to run the tests. A folder has the package's own
config.json, hf_quant_config.json and model.safetensors, and

  golden.safetensors   "input_ids"; "logits": computed by torch in F32 from the file's tensors alone, weights dequantised as
                       codes * scale and activations rounded as the file says (INT8 per token: amax / 127), the KV cache real;
                       "package_logits": computed by the package from the quantised model in F32 (KV cache as the file says),
                       where its arithmetic is the one above
  golden.json          versions; for each linear the FNV-1a of its dequantised weight's F32 bytes, also by torch
Prompts are cut into pieces of 4 tokens: a code that flips changes every later logit (see tests/models/fp8_test.cc)."""
import argparse
import importlib.metadata
import json
import pathlib
import shutil
import tempfile

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

PINS = {"torch": "2.11.0", "transformers": "5.23.0"}
PRODUCER_PINS = {"llmcompressor": {"llmcompressor": "0.14.0.1", "compressed-tensors": "0.19.0"}, "modelopt": {"nvidia-modelopt": "0.47.0"}}
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "checkpoints"
PIECE = 4
BASE = dict(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
# Blocks of 128: three whole ones and edges.
BLOCKS = dict(hidden_size=136, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=68)

FLOAT_KV = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}


def group(kind, weights, inputs):
    return {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": kind, "symmetric": True, "dynamic": False, **weights},
                        "input_activations": inputs and {"num_bits": 8, "type": kind, **inputs}}}


# name: (changes to BASE, arguments of QuantizationModifier, or of GPTQModifier where the name says so)
LLMCOMPRESSOR = {
    "ct_fp8_kv": ({}, dict(targets="Linear", scheme="FP8", kv_cache_scheme=FLOAT_KV)),
    "ct_fp8_dynamic": ({}, dict(targets="Linear", scheme="FP8_DYNAMIC")),
    "ct_fp8_block": (BLOCKS, dict(targets="Linear", scheme="FP8_BLOCK")),
    "ct_fp8_weights": ({}, dict(config_groups=group("float", {"strategy": "channel"}, None))),
    "ct_fp8_kv_heads": ({}, dict(targets="Linear", scheme="FP8_DYNAMIC", kv_cache_scheme={**FLOAT_KV, "strategy": "attn_head"})),
    "ct_fp8_skip_qkv": ({}, dict(targets="Linear", scheme="FP8", ignore=["lm_head", "re:.*self_attn.(q|k|v)_proj"])),
    "ct_int8_dynamic": ({}, dict(targets="Linear", scheme="W8A8")),
    "ct_int8_gptq": ({}, dict(targets="Linear", scheme="W8A8", actorder="weight")),
    "ct_int8_dynamic_asymmetric": ({}, dict(config_groups=group(
        "int", {"strategy": "channel"}, {"strategy": "token", "dynamic": True, "symmetric": False}))),
    "ct_int8_static": ({}, dict(config_groups=group(
        "int", {"strategy": "tensor"}, {"strategy": "tensor", "dynamic": False, "symmetric": True}))),
    "ct_int8_static_asymmetric": ({}, dict(config_groups=group(
        "int", {"strategy": "channel"}, {"strategy": "tensor", "dynamic": False, "symmetric": False}))),
}
# name: (changes to BASE, configuration of modelopt.torch.quantization, whether the KV cache is quantised too)
MODELOPT = {
    "modelopt_fp8_kv": ({}, "FP8_DEFAULT_CFG", True),
    "modelopt_fp8_channel": ({}, "FP8_PER_CHANNEL_PER_TOKEN_CFG", False),
    "modelopt_fp8_block": (BLOCKS, "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", False),
}


def check_pins(pins):
    for package, version in pins.items():
        found = importlib.metadata.version(package).split("+")[0]
        if found != version:
            raise SystemExit(f"{package} is {found}, expected {version}")


def write_source(folder, changes):
    """A random model in BF16 whose activations are near one and whose logits lie apart."""
    torch.manual_seed(5)
    config = transformers.LlamaConfig(**{**BASE, **changes})
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, value in model.named_parameters():
            random = torch.randn(value.shape)
            if "norm" in name:
                random = 1 + 0.2 * random
            elif "embed_tokens" not in name:
                random = random * (1.5 / value.shape[-1] ** 0.5)
            value.copy_(random)
    model.save_pretrained(folder)
    return config


def calibration_ids(config):
    return torch.randint(3, config.vocab_size, (8, 16), generator=torch.Generator().manual_seed(6))


def prompt_ids(config):
    return torch.randint(3, config.vocab_size, (10, PIECE), generator=torch.Generator().manual_seed(7))


# What the file says, read from its tensors and its configuration alone.

def expand_scale(scale, shape):
    n, k = shape
    if scale.numel() == 1:
        return scale.reshape(1, 1).expand(n, k)
    if scale.numel() == n:
        return scale.reshape(n, 1).expand(n, k)
    rows, columns = (scale.shape[0], scale.shape[2]) if scale.dim() == 4 else scale.shape
    assert (rows, columns) == (-(-n // 128), -(-k // 128)), scale.shape
    return scale.reshape(rows, columns).repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)[:, :k]


def dequantise(tensors, module):
    codes = tensors[f"{module}.weight"]
    if codes.dtype not in (torch.float8_e4m3fn, torch.int8):
        return None
    return codes.float() * expand_scale(tensors[f"{module}.weight_scale"].float(), codes.shape)


def round_f8(x, scale):
    return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def round_i8(x, scale, zero):
    return ((x / scale).round() + zero).clamp(-128, 127).sub(zero) * scale


def activation(inputs, tensors, module):
    """The rounding of a linear's input: `inputs` as compressed-tensors' input_activations, or None."""
    if inputs is None:
        return lambda x: x
    is_float = inputs["type"] == "float"
    if not inputs["dynamic"]:
        # q, k and v (gate and up) read one tensor: their scales are equal up to what calibration saw, which is the same.
        scale = tensors[f"{module}.input_scale"].float().reshape(())
        zero = tensors.get(f"{module}.input_zero_point", torch.zeros(())).float().reshape(())
        return lambda x: round_f8(x, scale) if is_float else round_i8(x, scale, zero)
    if inputs["strategy"] == "group":
        def by_group(x):
            parts = x.split(128, dim=-1)
            return torch.cat([round_f8(p, p.abs().amax(-1, keepdim=True).clamp(min=1e-10) / 448) for p in parts], -1)
        return by_group
    if is_float:
        return lambda x: round_f8(x, (x.abs().amax(-1, keepdim=True) / 448).clamp(min=1 / (448 * 512)))
    if inputs["symmetric"]:
        return lambda x: round_i8(x, x.abs().amax(-1, keepdim=True) / 127, 0.0)

    def asymmetric(x):
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        scale = (high - low) / 255
        return round_i8(x, scale, (-128 - low / scale).round())
    return asymmetric


def inputs_of(config):
    """input_activations of the one group of all linears."""
    quant = config["quantization_config"]
    if quant["quant_method"] == "modelopt":
        algorithm = quant["quant_algo"].upper()
        if algorithm == "FP8":
            return {"type": "float", "dynamic": False, "strategy": "tensor"}
        return {"type": "float", "dynamic": True, "strategy": "token" if "TOKEN" in algorithm else "group"}
    [one] = quant["config_groups"].values()
    return one["input_activations"]


def fnv(values):
    digest = 0xcbf29ce484222325
    for byte in numpy.ascontiguousarray(values.detach().numpy().astype("<f4")).tobytes():
        digest = ((digest ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return f"{digest:016x}"


@torch.no_grad()
def oracle(folder):
    """(logits, checksums) of a folder, by torch in F32."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    plain = transformers.LlamaConfig(**{k: v for k, v in config.items() if k != "quantization_config"})
    model = transformers.LlamaForCausalLM._from_config(plain, dtype=torch.float32, attn_implementation="eager").eval()
    state, sums = {}, {}
    for name, value in tensors.items():
        if not name.endswith(("_scale", "_zero_point")):
            state[name] = value.float()
    for name, linear in model.named_modules():
        if not isinstance(linear, torch.nn.Linear) or name == "lm_head":
            continue
        weight = dequantise(tensors, name)
        if weight is None:
            continue
        state[f"{name}.weight"], sums[name] = weight, fnv(weight)
        linear.register_forward_pre_hook(lambda _, x, f=activation(inputs_of(config), tensors, name): (f(x[0]),))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model(prompt_ids(plain)).logits.flatten(0, 1).contiguous(), sums


def finish(name, folder, package_logits, pins):
    """Copies what the package wrote and records what it means. `package_logits`: None where the package cannot run its file."""
    logits, sums = oracle(folder)
    same = 0.0
    if package_logits is not None:
        difference = (logits - package_logits).abs().amax(-1) / logits.abs().amax(-1)
        same = (difference < 1e-3).float().mean().item()
        print(f"{name}: the package's logits agree to 1e-3 in {same:.0%} of the rows, the others to {difference.max():.3f}")
    target = OUT / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in ("config.json", "hf_quant_config.json", "model.safetensors"):
        if (folder / file).exists():
            shutil.copy(folder / file, target / file)
    golden = {"input_ids": prompt_ids(transformers.LlamaConfig(**BASE)).flatten().to(torch.int32), "logits": logits}
    if same >= 0.5 or "kv" in name and package_logits is not None:  # with an 8-bit KV cache no row is the same
        golden["package_logits"] = package_logits
    save_file(golden, target / "golden.safetensors", metadata={**PINS, **pins})
    (target / "golden.json").write_text(json.dumps({"made_with": {**PINS, **pins}, "dequantised": sums}, indent=1) + "\n")


@torch.no_grad()
def record_llmcompressor(name, scratch):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from tokenizers import Tokenizer, models

    changes, arguments = LLMCOMPRESSOR[name]
    config = write_source(scratch / "source", changes)
    words = {f"w{i}": i for i in range(config.vocab_size)}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), pad_token="w0")
    model = transformers.AutoModelForCausalLM.from_pretrained(scratch / "source", dtype=torch.bfloat16)
    ids = calibration_ids(config)
    data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    modifier = GPTQModifier if name.endswith("gptq") else QuantizationModifier
    oneshot(model=model, recipe=modifier(**{"ignore": ["lm_head"], **arguments}), dataset=data, processor=tokenizer,
            max_seq_length=ids.shape[1], num_calibration_samples=len(ids))
    model.save_pretrained(scratch / "written", save_compressed=True)
    logits = None
    if changes is not BLOCKS:  # compressed-tensors runs blocks of activations of whole 128 channels only
        again = transformers.AutoModelForCausalLM.from_pretrained(scratch / "written", dtype=torch.float32).eval()
        logits = again(prompt_ids(config)).logits.flatten(0, 1).float().contiguous()
    finish(name, scratch / "written", logits, PRODUCER_PINS["llmcompressor"])


@torch.no_grad()
def record_modelopt(name, scratch):
    import copy

    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint

    changes, configuration, with_cache = MODELOPT[name]
    config = write_source(scratch / "source", changes)
    model = transformers.AutoModelForCausalLM.from_pretrained(scratch / "source", dtype=torch.bfloat16).eval()
    chosen = copy.deepcopy(getattr(mtq, configuration))
    if with_cache:
        chosen = mtq.utils.update_quant_cfg_with_kv_cache_quant(chosen, mtq.FP8_KV_CFG["quant_cfg"])
    model = mtq.quantize(model, chosen, lambda m: m(calibration_ids(config)))
    export_hf_checkpoint(model, dtype=torch.bfloat16, export_dir=scratch / "written")
    finish(name, scratch / "written", None, PRODUCER_PINS["modelopt"])  # its simulation on a CPU rounds otherwise than its files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("producer", choices=["llmcompressor", "modelopt"])
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    check_pins({**PINS, **PRODUCER_PINS[arguments.producer]})
    torch.set_num_threads(1)
    known, record = {"llmcompressor": (LLMCOMPRESSOR, record_llmcompressor), "modelopt": (MODELOPT, record_modelopt)}[arguments.producer]
    for name in arguments.names or known:
        with tempfile.TemporaryDirectory() as scratch:
            record(name, pathlib.Path(scratch))


if __name__ == "__main__":
    main()
