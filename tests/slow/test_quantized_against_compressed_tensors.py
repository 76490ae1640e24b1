"""What `octet quantize` writes, read by the real packages (scripts/pins/slow.txt names their versions where they are installed):
tensors by safetensors, configuration and dequantised weights by compressed-tensors, bit for bit."""
import json

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
quantization = pytest.importorskip("compressed_tensors.quantization")
forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")

SCHEMES = {
    "fp8": ("float-quantized", "FP8"),
    "fp8_channel": ("float-quantized", "FP8_DYNAMIC"),
    "fp8_block": ("float-quantized", "FP8_BLOCK"),
    "int8": ("int-quantized", "INT8"),
    "w8a16": ("naive-quantized", "FP8_DYNAMIC"),
}


@pytest.fixture(scope="module", params=SCHEMES)
def written(request, octet, model, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "out"
    octet.text("quantize", model, "--scheme", request.param, "--dialect", "compressed-tensors", "--out", out)
    return request.param, out, json.loads((out / "config.json").read_text())["quantization_config"]


def test_configuration(written):
    scheme, _, config = written
    read = quantization.QuantizationConfig.model_validate(config)
    expected_format, preset = SCHEMES[scheme]
    assert read.format == expected_format
    assert read.quantization_status == quantization.QuantizationStatus.COMPRESSED
    expected = quantization.preset_name_to_scheme(preset, ["Linear"])
    group = read.config_groups["group_0"]
    for ours, theirs in [(group.weights, expected.weights), (group.input_activations, expected.input_activations)]:
        if scheme == "w8a16" and ours is None:
            continue
        fields = ["num_bits", "type", "symmetric", "strategy", "block_structure", "group_size", "dynamic"]
        if scheme == "fp8" and ours is group.input_activations:  # dynamic here; the preset is static
            assert (ours.strategy, ours.dynamic) == ("token", True)
            continue
        if scheme == "fp8_block" and ours is group.weights:
            assert list(ours.block_structure) == [128, 128]
        assert [getattr(ours, field) for field in fields] == [getattr(theirs, field) for field in fields]
    assert (group.input_activations is None) == (scheme == "w8a16")


def test_dequantised_weights(written, octet, model):
    """real = q * scale, as compressed-tensors' own function computes it in float32, is near the source and on the grid."""
    scheme, out, config = written
    group = quantization.QuantizationConfig.model_validate(config).config_groups["group_0"]
    source = safetensors_torch.load_file(model / "model.safetensors")
    ours = safetensors_torch.load_file(out / "model.safetensors")
    name = "model.layers.3.mlp.down_proj"
    weight, scale = ours[f"{name}.weight"], ours[f"{name}.weight_scale"]
    real = source[f"{name}.weight"].float()
    assert weight.dtype == (torch.int8 if scheme == "int8" else torch.float8_e4m3fn)
    assert scale.dtype == torch.float32
    zero = torch.zeros_like(scale)
    theirs = forward.dequantize(weight, scale, zero, args=group.weights).float()
    assert ((theirs - real).square().sum() / real.square().sum()) < 2e-3
    # Quantised again by them with our scales, to the nearest of the same codes.
    again = forward.quantize(real, scale, zero, group.weights, dtype=weight.dtype)
    assert torch.equal(again.view(torch.int8), weight.view(torch.int8))
    for kept, value in source.items():
        if kept in ours and ours[kept].dtype == value.dtype:
            assert torch.equal(ours[kept], value), kept
