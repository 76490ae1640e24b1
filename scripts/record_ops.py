#!/usr/bin/env python3
"""Records what PyTorch computes in F64 for small inputs of every op, for tests/ops/specification_test.cc, which holds the
reference kernels to it: tests/golden/ops/ops.json.

Inputs are F32 and written so that they are read back to the bit. 8-bit inputs are written as their codes. Casts to E4M3
are clamped to 448 first: PyTorch's own turns overflow into NaN.

Needs torch 2.11.0 (another version is refused), which is not needed to run the tests.
"""
import json
import pathlib

import torch
import torch.nn.functional as F

assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "ops" / "ops.json"
MIN_TOKEN_SCALE = torch.tensor(1.0 / (448.0 * 512.0), dtype=torch.float32)


def numbers(t: torch.Tensor) -> list:
    return [float(x) for x in t.double().flatten()]


def f8(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-448, 448).to(torch.float8_e4m3fn)


def codes(x: torch.Tensor) -> list:
    return x.view(torch.uint8).flatten().tolist()


def rms_norm() -> dict:
    x, residual, weight = torch.randn(3, 37), torch.randn(3, 37), torch.randn(37)
    total = residual + x
    out = F.rms_norm(total.double(), (37,), weight.double(), 1e-5)
    return dict(shape=[3, 37], x=numbers(x), residual=numbers(residual), weight=numbers(weight), residual_out=numbers(total),
                out=numbers(out))


def silu_and_mul() -> dict:
    x = 4 * torch.randn(3, 38)
    gate, up = x.double().chunk(2, dim=-1)
    return dict(shape=[3, 19], x=numbers(x), out=numbers(F.silu(gate) * up))


def quantize() -> dict:
    x = torch.randn(5, 33) * torch.tensor([1.0, 1e-3, 1e-8, 0.0, 1e4])[:, None]
    scale = torch.maximum(x.abs().amax(dim=1) / 448, MIN_TOKEN_SCALE)
    static_scale = torch.tensor(0.00341)
    return dict(shape=[5, 33], x=numbers(x), scale=numbers(scale), out=codes(f8(x / scale[:, None])),
                static_scale=float(static_scale), static_out=codes(f8(x * (1 / static_scale))))


def matmul() -> dict:
    t, n, k = 4, 9, 41
    x, weight, bias = torch.randn(t, k), torch.randn(n, k), torch.randn(n)
    q_x, q_weight = f8(100 * torch.randn(t, k)), f8(100 * torch.randn(n, k))
    scale_x, scale_weight = torch.rand(t) / 100, torch.rand(n) / 100
    real_x = q_x.double() * scale_x.double()[:, None]
    real_weight = q_weight.double() * scale_weight.double()[:, None]
    return dict(shape=[t, n, k], x=numbers(x), weight=numbers(weight), bias=numbers(bias),
                out=numbers(F.linear(x.double(), weight.double(), bias.double())),
                q_x=codes(q_x), q_weight=codes(q_weight), scale_x=numbers(scale_x), scale_weight=numbers(scale_weight),
                q_out=numbers(F.linear(real_x, real_weight)))


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def rope() -> dict:
    """Positions to angles, per-head norm, rotation of the first 8 of 12 elements, and K and V as the cache holds them."""
    t, heads, kv_heads, d, rotated = 4, 4, 2, 12, 8
    positions = torch.tensor([0, 1, 77, 8191], dtype=torch.int32)
    inv_freq = 1.0 / (10000.0 ** (torch.arange(0, rotated, 2, dtype=torch.float32) / rotated))
    angles = (positions.float()[:, None] * inv_freq).double()
    cos, sin = angles.cos().float(), angles.sin().float()
    qkv = torch.randn(t, heads + 2 * kv_heads, d)
    q_norm, k_norm = torch.randn(d), torch.randn(d)
    q, k, v = qkv.double().split([heads, kv_heads, kv_heads], dim=1)
    q, k = (F.rms_norm(y, (d,), w.double(), 1e-6) for y, w in ((q, q_norm), (k, k_norm)))

    def rotate(y: torch.Tensor) -> torch.Tensor:
        wide_cos, wide_sin = (torch.cat((c, c), dim=-1).double()[:, None, :] for c in (cos, sin))
        turned, rest = y[..., :rotated], y[..., rotated:]
        return torch.cat((turned * wide_cos + rotate_half(turned) * wide_sin, rest), dim=-1)

    return dict(shape=[t, heads, kv_heads, d], positions=positions.tolist(), inv_freq=numbers(inv_freq), cos=numbers(cos),
                sin=numbers(sin), qkv=numbers(qkv), q_norm=numbers(q_norm), k_norm=numbers(k_norm), k_scale=0.5, v_scale=2.0,
                q_out=numbers(rotate(q)), k_cache=numbers(rotate(k) / 0.5), v_cache=numbers(v / 2.0))


def paged_attention() -> list:
    cases = []
    for num_queries, num_keys, window in ((1, 21, 0), (5, 5, 0), (6, 19, 0), (6, 19, 4), (1, 3, 1)):
        heads, kv_heads, d = 4, 2, 8
        q = torch.randn(num_queries, heads, d)
        k, v = torch.randn(num_keys, kv_heads, d), torch.randn(num_keys, kv_heads, d)
        at, seen = torch.arange(num_keys - num_queries, num_keys)[:, None], torch.arange(num_keys)[None, :]
        mask = (seen <= at) & ((at - seen < window) if window else True)
        per_head = (y.double().transpose(0, 1) for y in (q, k, v))
        out = F.scaled_dot_product_attention(*per_head, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(0, 1)
        cases.append(dict(shape=[num_queries, num_keys, heads, kv_heads, d], window=window, scale=0.3, q=numbers(q), k=numbers(k),
                          v=numbers(v), out=numbers(out)))
    return cases


def routing() -> list:
    """Each way that a published family routes: softmax or sigmoid, groups by their best or their two best experts."""
    cases = []
    ways = [dict(sigmoid=False, renormalise=True, groups=1, chosen=1, two=False, corrected=False, factor=1.0),   # Mixtral
            dict(sigmoid=False, renormalise=False, groups=1, chosen=1, two=False, corrected=False, factor=1.0),  # Qwen2-MoE
            dict(sigmoid=False, renormalise=False, groups=4, chosen=2, two=False, corrected=False, factor=16.0), # DeepSeek-V2
            dict(sigmoid=True, renormalise=True, groups=4, chosen=2, two=True, corrected=True, factor=2.5)]      # DeepSeek-V3
    for way in ways:
        t, experts, k = 6, 16, 3
        logits = 2 * torch.randn(t, experts)
        correction = torch.randn(experts) / 4
        scores = logits.double().sigmoid() if way["sigmoid"] else logits.double().softmax(dim=-1)
        choice = scores + correction.double() if way["corrected"] else scores
        grouped = choice.view(t, way["groups"], -1)
        best = grouped.topk(2 if way["two"] else 1, dim=-1).values.sum(dim=-1)
        kept = torch.zeros_like(best).scatter(1, best.topk(way["chosen"], dim=-1).indices, 1)
        choice = grouped.masked_fill(kept[..., None] == 0, float("-inf")).view(t, experts)
        ids = choice.topk(k, dim=-1).indices
        weights = scores.gather(1, ids)
        if way["renormalise"]:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        cases.append(way | dict(shape=[t, experts, k], logits=numbers(logits), correction=numbers(correction), ids=ids.flatten().tolist(),
                                weights=numbers(way["factor"] * weights)))
    return cases


def mixture() -> dict:
    """Experts and a gated shared part, token by token as a paper would write it."""
    t, experts, k, h, i = 5, 4, 2, 7, 6
    x, gate_up, down = torch.randn(t, h), torch.randn(experts, 2 * i, h), torch.randn(experts, h, i)
    shared, shared_gate = torch.randn(t, h), torch.randn(t, 1)
    logits = torch.randn(t, experts)
    weights, ids = logits.double().softmax(dim=-1).topk(k, dim=-1)
    out = shared_gate.double().sigmoid() * shared.double()
    for token in range(t):
        for slot in range(k):
            e = ids[token, slot]
            gate, up = (gate_up[e].double() @ x[token].double()).chunk(2)
            out[token] += weights[token, slot] * (down[e].double() @ (F.silu(gate) * up))
    return dict(shape=[t, experts, k, h, i], x=numbers(x), gate_up=numbers(gate_up), down=numbers(down), shared=numbers(shared),
                shared_gate=numbers(shared_gate), logits=numbers(logits), out=numbers(out))


def main() -> None:
    torch.manual_seed(1)
    recorded = dict(rms_norm=rms_norm(), silu_and_mul=silu_and_mul(), quantize=quantize(), matmul=matmul(), rope=rope(),
                    paged_attention=paged_attention(), routing=routing(), mixture=mixture())
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(recorded, separators=(",", ":")) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
