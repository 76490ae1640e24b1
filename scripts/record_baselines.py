#!/usr/bin/env python3
"""Records what AutoFP8 and llm-compressor make of weights, for octet/quantizer/baseline_rounding_test.cc: the file
tests/golden/baselines/model.safetensors. It has `weight` (BF16, random, with rows of zeros, of one large value and of a
negative extreme), and for each of NAMES `<name>.codes` and `<name>.scale` (F32).

llm-compressor's are computed by the functions of compressed-tensors that it calls (calculate_qparams, quantize), in the
weight's dtype as it does; AutoFP8's by its own expression, which is four lines of torch (neuralmagic/AutoFP8, quantize.py,
per_tensor_quantize).

Needs torch 2.11.0, compressed-tensors 0.19.0 and safetensors (other versions are refused); none is needed to run the tests."""
import importlib.metadata
import pathlib

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

PINS = {"torch": "2.11.0", "compressed-tensors": "0.19.0"}
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "baselines" / "model.safetensors"
ROWS, COLUMNS, BLOCK = 140, 260, 128


def make_weight():
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(8)) * 0.03
    weight[3] = 0
    weight[5] *= 1e-6
    weight[7, 11] = 4.0
    weight[9, 200] = -0.7
    return weight.to(torch.bfloat16)


def autofp8(weight):
    finfo = torch.finfo(torch.float8_e4m3fn)
    low, high = weight.aminmax()
    amax = torch.maximum(low.abs(), high.abs())
    scale = finfo.max / amax.clamp(min=1e-12)
    codes = (weight * scale).clamp(min=finfo.min, max=finfo.max).to(torch.float8_e4m3fn)
    return codes, scale.float().reciprocal().reshape(1)


def llm_compressor(weight, kind, strategy):
    args = QuantizationArgs(num_bits=8, type=kind, strategy=strategy, symmetric=True,
                            block_structure=[BLOCK, BLOCK] if strategy == "block" else None)
    if strategy == "block":
        rows, columns = -(-ROWS // BLOCK), -(-COLUMNS // BLOCK)
        padded = torch.zeros(rows * BLOCK, columns * BLOCK, dtype=weight.dtype)
        padded[:ROWS, :COLUMNS] = weight
        tiles = padded.reshape(rows, BLOCK, columns, BLOCK).transpose(1, 2).flatten(2)
        low, high = tiles.amin(-1), tiles.amax(-1)
    elif strategy == "channel":
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    else:
        low, high = weight.amin().reshape(1), weight.amax().reshape(1)
    scale, zero = calculate_qparams(low, high, args)
    assert scale.dtype == torch.bfloat16
    dtype = torch.int8 if kind == "int" else torch.float8_e4m3fn
    codes = quantize(weight, scale, zero, args, dtype=dtype)
    return codes, scale.float()


NAMES = {
    "autofp8": autofp8,
    "llmc_fp8": lambda weight: llm_compressor(weight, "float", "tensor"),
    "llmc_fp8_channel": lambda weight: llm_compressor(weight, "float", "channel"),
    "llmc_fp8_block": lambda weight: llm_compressor(weight, "float", "block"),
    "llmc_int8": lambda weight: llm_compressor(weight, "int", "channel"),
}


def main():
    for package, version in PINS.items():
        found = importlib.metadata.version(package).split("+")[0]
        if found != version:
            raise SystemExit(f"{package} is {found}, expected {version}")
    weight = make_weight()
    tensors = {"weight": weight}
    for name, make in NAMES.items():
        codes, scale = make(weight)
        tensors |= {f"{name}.codes": codes.contiguous(), f"{name}.scale": scale.contiguous()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT)


if __name__ == "__main__":
    main()
