"""Checkpoints that other people's packages wrote (tests/golden/checkpoints), with the program: what it reports, its logits, and
what it says of damaged ones."""
import json
import pathlib
import shutil
import struct

import pytest

MODEL = 3
RECORDED = pathlib.Path(__file__).resolve().parent.parent / "golden" / "checkpoints"
NAMES = sorted(folder.name for folder in RECORDED.iterdir() if folder.is_dir())


def read_safetensors(path):
    """(header, data)"""
    content = path.read_bytes()
    [length] = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + length]), bytearray(content[8 + length:])


def f32_tensor(path, name):
    header, data = read_safetensors(path)
    entry = header[name]
    begin, end = entry["data_offsets"]
    return list(struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])), entry["shape"]


def logits(octet, folder, *more):
    return octet("logits", folder, "--tokens", "3,4,5,6", "--all", "--json", "--dtype", "float32", "--device", "cpu", *more)


@pytest.mark.parametrize("name", NAMES)
def test_inspect(octet, name):
    report = octet.json("inspect", RECORDED / name, "--json", "--device", "cpu")
    assert "as stored" in report["quantization"]
    with_cache = "fp8_kv" in name
    assert report["kv_cache_dtype"] == ("f8_e4m3" if with_cache else "bf16")
    assert report["kv_scales"] == ("2 of 2 KV scales loaded" if with_cache else "")


@pytest.mark.parametrize("name", NAMES)
def test_logits(octet, name):
    """The first four tokens that were recorded: rows as torch computed them, but for codes that flip."""
    path = RECORDED / name / "golden.safetensors"
    header, data = read_safetensors(path)
    begin, _ = header["input_ids"]["data_offsets"]
    ids = struct.unpack("<4i", data[begin:begin + 16])
    expected, [_, vocabulary] = f32_tensor(path, "logits")
    found = octet.json("logits", RECORDED / name, "--tokens", ",".join(map(str, ids)), "--all", "--json", "--dtype", "float32",
                       "--kv-cache-dtype", "float32", "--device", "cpu")["logits"]
    for row in range(4):
        wanted = expected[row * vocabulary:(row + 1) * vocabulary]
        largest = max(map(abs, wanted))
        assert max(abs(a - b) for a, b in zip(found[row], wanted)) < 0.1 * largest


def damaged(tmp_path, name, tensor, change):
    """A copy of a recorded checkpoint with a tensor's bytes changed in place."""
    folder = tmp_path / name
    shutil.copytree(RECORDED / name, folder)
    header, data = read_safetensors(folder / "model.safetensors")
    begin, end = header[tensor]["data_offsets"]
    data[begin:end] = change(bytes(data[begin:end]))
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return folder


@pytest.mark.parametrize("tensor, bytes_of_it", [
    ("model.layers.0.mlp.down_proj.weight_scale", b"\x00\x00"), ("model.layers.0.mlp.down_proj.weight_scale", b"\xc0\x7f"),
    ("model.layers.0.self_attn.q_proj.input_scale", b"\x80\xbf"), ("model.layers.0.self_attn.k_scale", b"\x00\x00"),
    ("model.layers.0.self_attn.v_scale", b"\x80\x7f")])
def test_bad_scales_are_named(octet, tmp_path, tensor, bytes_of_it):
    result = logits(octet, damaged(tmp_path, "ct_fp8_kv", tensor, lambda _: bytes_of_it))
    assert result.returncode == MODEL, result.stderr
    assert f"{tensor}: the scale is" in result.stderr and not result.stdout


def test_nan_codes_are_named(octet, tmp_path):
    folder = damaged(tmp_path, "ct_fp8_kv", "model.layers.0.self_attn.o_proj.weight", lambda old: old[:70] + b"\x7f" + old[71:])
    result = logits(octet, folder)
    assert result.returncode == MODEL
    assert "model.layers.0.self_attn.o_proj.weight: 1 of its f8_e4m3 codes are NaN" in result.stderr and "[1, 6]" in result.stderr


@pytest.mark.parametrize("change, words", [
    ({"quant_method": "gptq"}, ["quant_method", "gptq", "compressed-tensors"]),
    ({"format": "nvfp4-pack-quantized"}, ["format", "nvfp4-pack-quantized"]),
    ({"quant_method": "fp8", "activation_scheme": "magic"}, ["activation_scheme", "magic"]),
    ({"transform_config": {"R1": {}}}, ["transform_config"])])
def test_unknown_configurations_are_named(octet, tmp_path, change, words):
    folder = tmp_path / "model"
    shutil.copytree(RECORDED / "ct_fp8_kv", folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"].update(change)
    (folder / "config.json").write_text(json.dumps(config))
    result = logits(octet, folder)
    assert result.returncode == MODEL, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
