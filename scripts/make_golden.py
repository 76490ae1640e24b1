#!/usr/bin/env python3
"""Records what Hugging Face transformers computes, for tests/models: tiny random checkpoints of every variant of the Llama
family and of the mixtures of experts with their hidden states, logits and greedy tokens (tests/golden/models/<variant>/), the frequencies of every kind of
RoPE scaling (tests/golden/models/rope.json), some logits of SmolLM2-135M-Instruct (tests/golden/models/smollm2.json) and its
hidden states pooled (tests/golden/models/smollm2_embeddings.json).

Everything runs in F32 on a CPU with eager attention. Needs torch 2.11.0 and transformers 5.23.0 (other versions are refused),
which are not needed to run the tests.

  scripts/make_golden.py variants [NAME ...]
  scripts/make_golden.py fp8              (after variants: linears with FP8 weights and activations, computed from dequantised values)
  scripts/make_golden.py rope
  scripts/make_golden.py smollm2 FOLDER
  scripts/make_golden.py embeddings FOLDER
"""
import argparse
import hashlib
import json
import pathlib

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

PINS = {"torch": "2.11.0", "transformers": "5.23.0"}
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
PROMPT_LENGTH = 40
NEW_TOKENS = 64
MIN_MARGIN = 0.02  # between the best and the second logit of every greedy step: far above rounding

BASE = dict(vocab_size=131, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu",
            tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)

LLAMA = ("LlamaForCausalLM", "llama")
MISTRAL = ("MistralForCausalLM", "mistral")
QWEN2 = ("Qwen2ForCausalLM", "qwen2")
QWEN3 = ("Qwen3ForCausalLM", "qwen3")
MIXTRAL = ("MixtralForCausalLM", "mixtral")
QWEN2_MOE = ("Qwen2MoeForCausalLM", "qwen2_moe")
QWEN3_MOE = ("Qwen3MoeForCausalLM", "qwen3_moe")
DEEPSEEK_V2 = ("DeepseekV2ForCausalLM", "deepseek_v2")
DEEPSEEK_V3 = ("DeepseekV3ForCausalLM", "deepseek_v3")
LATENT = dict(num_hidden_layers=3, num_key_value_heads=4, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
              n_routed_experts=16, num_experts_per_tok=3, moe_intermediate_size=24, n_shared_experts=2, first_k_dense_replace=1)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=32, mscale=0.707, mscale_all_dim=0.9)
# name: (architecture, stored dtype, changes to BASE)
VARIANTS = {
    "llama2": (LLAMA, "float32", dict(num_key_value_heads=4, num_hidden_layers=3)),
    "llama3": (LLAMA, "bfloat16", dict(head_dim=24, rope_theta=500000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))),
    "llama_linear": (LLAMA, "float16", dict(rope_scaling=dict(type="linear", factor=2.5))),
    "llama_dynamic": (LLAMA, "bfloat16", dict(max_position_embeddings=32, rope_scaling=dict(type="dynamic", factor=4.0))),
    "llama_yarn": (LLAMA, "bfloat16", dict(rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32))),
    "llama_attention_bias": (LLAMA, "bfloat16", dict(attention_bias=True)),
    "llama_mlp_bias": (LLAMA, "bfloat16", dict(mlp_bias=True)),
    "mistral": (MISTRAL, "bfloat16", dict(hidden_size=72, num_attention_heads=6, head_dim=20, sliding_window=12)),
    "qwen2": (QWEN2, "bfloat16", dict(tie_word_embeddings=True, rope_theta=1000000.0, sliding_window=12,
                                     use_sliding_window=False, max_window_layers=2)),
    "qwen2_window": (QWEN2, "bfloat16", dict(sliding_window=10, use_sliding_window=True, max_window_layers=1)),
    "qwen3": (QWEN3, "bfloat16", dict(head_dim=20, num_key_value_heads=2, attention_bias=False, rope_theta=1000000.0)),
    "smollm2": (LLAMA, "bfloat16", dict(hidden_size=72, num_attention_heads=9, num_key_value_heads=3, rope_theta=100000.0,
                                       tie_word_embeddings=True, vocab_size=192)),
    "mixtral": (MIXTRAL, "bfloat16", dict(num_local_experts=6, num_experts_per_tok=2, intermediate_size=48, sliding_window=None)),
    "mixtral_stacked": (MIXTRAL, "bfloat16", dict(num_local_experts=5, num_experts_per_tok=3, intermediate_size=40,
                                                 sliding_window=12)),
    "qwen2_moe": (QWEN2_MOE, "bfloat16", dict(num_hidden_layers=3, num_experts=10, num_experts_per_tok=4, moe_intermediate_size=32,
                                             shared_expert_intermediate_size=72, norm_topk_prob=False, decoder_sparse_step=1,
                                             mlp_only_layers=[1], use_sliding_window=False)),
    "qwen3_moe": (QWEN3_MOE, "bfloat16", dict(num_hidden_layers=3, head_dim=20, num_experts=16, num_experts_per_tok=3,
                                             moe_intermediate_size=24, norm_topk_prob=True, decoder_sparse_step=2,
                                             attention_bias=False, use_sliding_window=False)),
    "deepseek_v2": (DEEPSEEK_V2, "bfloat16", dict(LATENT, q_lora_rank=None, topk_method="greedy", routed_scaling_factor=1.0)),
    "deepseek_v2_groups": (DEEPSEEK_V2, "bfloat16", dict(LATENT, q_lora_rank=24, topk_method="group_limited_greedy", n_group=4,
                                                        topk_group=2, routed_scaling_factor=4.0, rope_scaling=YARN)),
    # The cache of the published models, which Hopper's kernel takes, and linears that its FP8 kernels take.
    "deepseek_v2_wide": (DEEPSEEK_V2, "bfloat16", dict(
        LATENT, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, kv_lora_rank=512,
        qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=64, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
        n_shared_experts=1, q_lora_rank=None, topk_method="greedy", routed_scaling_factor=1.0)),
    "deepseek_v3": (DEEPSEEK_V3, "bfloat16", dict(LATENT, q_lora_rank=24, n_group=4, topk_group=2, routed_scaling_factor=2.5,
                                                 norm_topk_prob=True, rope_scaling=YARN, num_nextn_predict_layers=0)),
}
STACKED = {"mixtral_stacked"}  # all experts of a layer in one tensor, as transformers 5 has them in memory
MIN_ROUTING_MARGIN = 1e-4      # between the last expert's logit that a token takes and the first that it does not


def check_pins():
    for module in (torch, transformers):
        if module.__version__.split("+")[0] != PINS[module.__name__]:
            raise SystemExit(f"{module.__name__} is {module.__version__}, expected {PINS[module.__name__]}")


def config_of(name):
    (architecture, model_type), dtype, changes = VARIANTS[name]
    return dict(architectures=[architecture], model_type=model_type, torch_dtype=dtype, **{**BASE, **changes})


def random_weights(shapes, dtype, seed):
    """Random values that keep activations near one and logits apart, rounded to the stored dtype."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if "norm" in name:
            value = 1 + 0.2 * value
        elif name.endswith("bias"):
            value = 0.3 * value
        elif "embed_tokens" not in name:
            value = value * (1.5 / shape[-1] ** 0.5)
        weights[name] = value.to(dtype).contiguous()
    return weights


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                             experts_implementation="eager").eval()


def published_names(name, weights):
    """Experts as published checkpoints have them: a tensor for each, under the family's names."""
    if name in STACKED:
        return weights
    mixtral = VARIANTS[name][0] == MIXTRAL
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    result = {}
    for full, value in weights.items():
        full = full.replace(".mlp.", ".block_sparse_moe.") if mixtral else full
        parent, _, leaf = full.rpartition(".experts.")
        if not parent:
            result[full] = value
            continue
        for e, expert in enumerate(value):
            parts = [(down, expert)] if leaf == "down_proj" else zip((gate, up), expert.chunk(2))
            result |= {f"{parent}.experts.{e}.{part}.weight": matrix.contiguous() for part, matrix in parts}
    return result


def routers_of(model):
    return [module for module in model.modules() if type(module).__name__.lower().endswith("topkrouter")]


def write_checkpoint(name, seed, folder):
    config = config_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del shapes["lm_head.weight"]
    weights = published_names(name, random_weights(shapes, getattr(torch, config["torch_dtype"]), seed))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def run(model, ids, token_by_token):
    """Hidden states by name and logits of the prompt, then greedy tokens with their margins and those of all routers."""
    seen, routing_margins = {}, [1.0]

    def keep_margin(router, _, output):
        best = torch.topk(output[0], router.top_k + 1, dim=-1).values
        routing_margins.append(float((best[:, -2] - best[:, -1]).min()))

    def keep(name):
        def hook(_, __, output):
            value = (output[0] if isinstance(output, tuple) else output).detach().clone()
            seen.setdefault(name, []).append(value.reshape(-1, value.shape[-1]))
        return hook

    hooks = [model.model.embed_tokens.register_forward_hook(keep("embed_tokens")),
             model.model.norm.register_forward_hook(keep("norm"))]
    hooks += [layer.register_forward_hook(keep(f"layers.{i}.output")) for i, layer in enumerate(model.model.layers)]
    router_hooks = [router.register_forward_hook(keep_margin) for router in routers_of(model)]
    pieces = [ids[i:i + 1] for i in range(len(ids))] if token_by_token else [ids]
    cache, logits = transformers.DynamicCache(), []
    for piece in pieces:
        logits.append(model(torch.tensor([piece]), past_key_values=cache, use_cache=True).logits[0])
    for hook in hooks:
        hook.remove()
    logits = torch.cat(logits)
    last, greedy, margins = logits[-1], [], []
    for _ in range(NEW_TOKENS):
        best = torch.topk(last, 2).values
        margins.append(float(best[0] - best[1]))
        greedy.append(int(last.argmax()))
        last = model(torch.tensor([greedy[-1:]]), past_key_values=cache, use_cache=True).logits[0, -1]
    for hook in router_hooks:
        hook.remove()
    return {k: torch.cat(v) for k, v in seen.items()}, logits, greedy, margins, min(routing_margins)


def record_variant(name):
    folder = OUT / name
    # Dynamic NTK depends on how the sequence came about; fed token by token, position p is rotated for length p + 1.
    token_by_token = "dynamic" in name
    for seed in range(200):
        write_checkpoint(name, seed, folder)
        model = load(folder)
        generator = torch.Generator().manual_seed(1000 + seed)
        ids = torch.randint(3, model.config.vocab_size, (PROMPT_LENGTH,), generator=generator).tolist()
        hidden, logits, greedy, margins, routing_margin = run(model, ids, token_by_token)
        if min(margins) > MIN_MARGIN and len(set(greedy)) >= 12 and routing_margin > MIN_ROUTING_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no seed with clear margins")
    tensors = {f"hidden.{k}": v.contiguous() for k, v in hidden.items()}
    tensors |= {"logits": logits.contiguous(), "input_ids": torch.tensor(ids, dtype=torch.int32),
                "greedy": torch.tensor(greedy, dtype=torch.int32)}
    save_file(tensors, folder / "golden.safetensors", metadata={**PINS, "seed": str(seed), "min_margin": f"{min(margins):.4f}"})
    print(f"{name}: seed {seed}, least margin {min(margins):.4f}, {len(set(greedy))} distinct tokens, "
          f"{sum(f.stat().st_size for f in folder.iterdir()) / 1e3:.0f} kB")


FP8_ONLINE = ["llama3", "qwen2", "mixtral", "qwen2_moe"]  # quantised while loading: one scale per output channel, dynamic per token
FP8_STORED_EXPERTS = "mixtral_autofp8"  # made from "mixtral", likewise: every expert has its own scales
FP8_STORED = "llama_autofp8"      # made from "llama3": one scale per tensor, static input scales, as AutoFP8 writes it


FP8_PIECE = 4                     # the prompt is cut into sequences of so many tokens: see tests/models/fp8_test.cc


def logits_of_pieces(model, ids):
    return model(ids.long().reshape(-1, FP8_PIECE)).logits.flatten(0, 1).contiguous()


def fake_quantise(value, scale):
    """The real numbers that FP8 codes stand for."""
    return (value / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def dynamic_scale(x):
    return (x.abs().amax(dim=-1, keepdim=True) / 448).clamp(min=1 / (448 * 512))


def linears_of(model):
    return {name: module for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head" and not name.endswith("shared_expert_gate")}


def experts_of(model):
    return {name: module for name, module in model.named_modules() if hasattr(module, "gate_up_proj") and hasattr(module, "num_experts")}


def run_experts(experts, round_input):
    """Replaces the experts' forward by one whose inputs go through round_input(x, expert, "gate_up" or "down")."""
    def forward(x, ids, weights):
        out = torch.zeros_like(x)
        for e in range(experts.num_experts):
            token, slot = torch.where(ids == e)
            gate, up = torch.nn.functional.linear(round_input(x[token], e, "gate_up"), experts.gate_up_proj[e]).chunk(2, dim=-1)
            inner = round_input(torch.nn.functional.silu(gate) * up, e, "down")
            out.index_add_(0, token, torch.nn.functional.linear(inner, experts.down_proj[e]) * weights[token, slot, None])
        return out
    experts.forward = forward


@torch.no_grad()
def record_fp8_online(name):
    model, golden = load(OUT / name), load_file(OUT / name / "golden.safetensors")
    plain = logits_of_pieces(model, golden["input_ids"])
    for linear in linears_of(model).values():
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 448
        linear.weight.copy_(fake_quantise(linear.weight, scale))
        linear.register_forward_pre_hook(lambda _, inputs: (fake_quantise(inputs[0], dynamic_scale(inputs[0])),))
    for experts in experts_of(model).values():
        for weight in (experts.gate_up_proj, experts.down_proj):
            weight.copy_(fake_quantise(weight, weight.abs().amax(dim=-1, keepdim=True) / 448))
        run_experts(experts, lambda x, e, part: fake_quantise(x, dynamic_scale(x)) if len(x) else x)
    logits = logits_of_pieces(model, golden["input_ids"])
    save_file({"logits": logits}, OUT / name / "golden_fp8.safetensors", metadata=PINS)
    print(f"{name}: fp8 logits differ from f32 by {(logits - plain).norm() / plain.norm():.4f}")


@torch.no_grad()
def record_fp8_stored():
    """k_proj's input scale is larger than those of q_proj and v_proj: the three share one input, so the largest counts."""
    base, folder = OUT / "llama3", OUT / FP8_STORED
    folder.mkdir(exist_ok=True)
    model, golden = load(base), load_file(base / "golden.safetensors")
    inputs, linears = {}, linears_of(model)
    hooks = [linear.register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: float(x[0].abs().max())}))
             for name, linear in linears.items()]
    plain = logits_of_pieces(model, golden["input_ids"])
    for hook in hooks:
        hook.remove()
    tensors = load_file(base / "model.safetensors")
    for name, linear in linears.items():
        scale = (linear.weight.abs().max() / 448).float()
        own = torch.tensor(inputs[name] * (1.05 if name.endswith("k_proj") else 0.9) / 448)
        shared = torch.tensor(inputs[name] * 1.05 / 448) if name.endswith(("q_proj", "k_proj", "v_proj")) else own
        tensors[f"{name}.weight"] = (linear.weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[f"{name}.weight_scale"] = scale.reshape(1) if "mlp" in name else scale
        tensors[f"{name}.input_scale"] = own
        linear.weight.copy_(tensors[f"{name}.weight"].float() * scale)
        linear.register_forward_pre_hook(lambda _, x, shared=shared: (fake_quantise(x[0], shared),))
    logits = logits_of_pieces(model, golden["input_ids"])
    config = config_of("llama3") | {"quantization_config": {
        "quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"logits": logits, "input_ids": golden["input_ids"]}, folder / "golden_fp8.safetensors", metadata=PINS)
    print(f"{FP8_STORED}: logits differ from f32 by {(logits - plain).norm() / plain.norm():.4f}")


@torch.no_grad()
def record_fp8_stored_experts():
    """Attention stays as it is. An expert that no token reaches keeps an input scale of its own."""
    base, folder = OUT / "mixtral", OUT / FP8_STORED_EXPERTS
    folder.mkdir(exist_ok=True)
    model, golden, tensors = load(base), load_file(base / "golden.safetensors"), load_file(base / "model.safetensors")
    amax = {}

    def observe(x, key):
        amax[key] = max(amax.get(key, 0.25), float(x.abs().max()) if len(x) else 0.0)
        return x

    for name, experts in experts_of(model).items():
        run_experts(experts, lambda x, e, part, name=name: observe(x, (name, e, part)))
    plain = logits_of_pieces(model, golden["input_ids"])
    for name, experts in experts_of(model).items():
        prefix = name.replace(".mlp.", ".block_sparse_moe.")
        scales = {}
        for e in range(experts.num_experts):
            rows = experts.gate_up_proj.shape[1] // 2
            parts = {"w1": experts.gate_up_proj[e][:rows], "w3": experts.gate_up_proj[e][rows:], "w2": experts.down_proj[e]}
            for leaf, weight in parts.items():
                part = "down" if leaf == "w2" else "gate_up"
                scale = (weight.abs().max() / 448).float()
                own = torch.tensor(amax[name, e, part] * 0.9 / 448)
                scales[e, part] = own
                codes = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
                tensors |= {f"{prefix}.{e}.{leaf}.weight": codes, f"{prefix}.{e}.{leaf}.weight_scale": scale,
                            f"{prefix}.{e}.{leaf}.input_scale": own}
                weight.copy_(codes.float() * scale)
        run_experts(experts, lambda x, e, part, scales=scales: fake_quantise(x, scales[e, part]))
    logits = logits_of_pieces(model, golden["input_ids"])
    config = config_of("mixtral") | {"quantization_config": {
        "quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["re:.*self_attn.*", "re:.*gate", "lm_head"]}}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"logits": logits, "input_ids": golden["input_ids"]}, folder / "golden_fp8.safetensors", metadata=PINS)
    print(f"{FP8_STORED_EXPERTS}: logits differ from f32 by {(logits - plain).norm() / plain.norm():.4f}")


ROPE_CASES = [
    dict(rope_type="default"),
    dict(rope_type="linear", factor=4.0),
    dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
    dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
    dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768),
    dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096, beta_fast=24.0, beta_slow=2.0),
    dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.707),
    dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707),
    dict(rope_type="yarn", factor=32.0, original_max_position_embeddings=4096, truncate=False),
    dict(rope_type="yarn", factor=16.0, original_max_position_embeddings=4096, attention_factor=1.25),
    dict(rope_type="yarn", factor=8.0),
]


def record_rope():
    rows = []
    for scaling in ROPE_CASES:
        for head_dim, theta, max_position in ((128, 500000.0, 131072), (64, 10000.0, 4096), (20, 1000000.0, 32768)):
            config = transformers.LlamaConfig(
                hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, max_position_embeddings=max_position,
                rope_parameters={**scaling, "rope_theta": theta})
            if scaling["rope_type"] == "default":
                inv_freq = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
                factor = 1.0
            else:
                inv_freq, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu")
            rows.append(dict(head_dim=head_dim, rope_theta=theta, max_position_embeddings=max_position, rope_scaling=scaling,
                             attention_factor=factor, inv_freq=inv_freq.tolist()))
    lines = ",\n".join(json.dumps(row) for row in rows)
    (OUT / "rope.json").write_text('{"made_with": %s, "cases": [\n%s\n]}\n' % (json.dumps(PINS), lines))
    print(f"rope.json: {len(rows)} cases")


SMOLLM2_PROMPTS = [
    [1, 504, 3575, 282, 4649, 314],  # "<|im_start|>The capital of France is"
    [504, 2365, 6354, 16438, 27003, 690, 260, 23790, 2767, 30],
    [1, 4093, 198, 19556, 28, 638, 359, 346, 47, 2, 198, 1, 520, 9531, 198],
]


@torch.no_grad()
def record_smollm2(folder):
    """The last position's logits. The checkpoint is identified by a hash of its embedding's bytes."""
    model = load(folder)
    rows = []
    for ids in SMOLLM2_PROMPTS:
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        top = torch.topk(logits, 50)
        greedy = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                                max_new_tokens=24, eos_token_id=None, pad_token_id=0)[0, len(ids):].tolist()
        rows.append(dict(input_ids=ids, top_ids=top.indices.tolist(), top_logits=[round(x, 5) for x in top.values.tolist()],
                         mean=float(logits.mean()), l2=float(logits.norm()), greedy=greedy))
    embedding = model.get_input_embeddings().weight.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    lines = ",\n".join(json.dumps(row) for row in rows)
    (OUT / "smollm2.json").write_text(
        '{"made_with": %s, "embedding_bf16_sha256": "%s", "prompts": [\n%s\n]}\n'
        % (json.dumps(PINS), hashlib.sha256(embedding).hexdigest(), lines))
    print("smollm2.json:", [row["greedy"][:8] for row in rows])


EMBEDDED_TEXTS = ["The capital of France is Paris.", "a", "Une phrase en français, and one in English; " * 12]


@torch.no_grad()
def record_embeddings(folder):
    """Hidden states after the final norm: the last token's and their mean, not normalised."""
    model = load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in EMBEDDED_TEXTS:
        ids = tokenizer(text).input_ids
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0].double()
        last, mean = ([float(f"{x:.6g}") for x in vector.tolist()] for vector in (hidden[-1], hidden.mean(0)))
        rows.append(dict(text=text, input_ids=ids, last=last, mean=mean))
    lines = ",\n".join(json.dumps(row) for row in rows)
    (OUT / "smollm2_embeddings.json").write_text('{"made_with": %s, "texts": [\n%s\n]}\n' % (json.dumps(PINS), lines))
    print("smollm2_embeddings.json:", [len(row["input_ids"]) for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("variants").add_argument("names", nargs="*")
    commands.add_parser("fp8")
    commands.add_parser("rope")
    commands.add_parser("smollm2").add_argument("folder")
    commands.add_parser("embeddings").add_argument("folder")
    arguments = parser.parse_args()
    check_pins()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    if arguments.command == "variants":
        for name in arguments.names or VARIANTS:
            record_variant(name)
    elif arguments.command == "fp8":
        for name in FP8_ONLINE:
            record_fp8_online(name)
        record_fp8_stored()
        record_fp8_stored_experts()
    elif arguments.command == "rope":
        record_rope()
    elif arguments.command == "embeddings":
        record_embeddings(arguments.folder)
    else:
        record_smollm2(arguments.folder)


if __name__ == "__main__":
    main()
