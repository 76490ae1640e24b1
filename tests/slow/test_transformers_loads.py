"""Whole checkpoints that `octet quantize` writes, loaded by the real transformers with compressed-tensors: every linear's
dequantised weight is codes * scale of the file, bit for bit, and everything else is the source's."""
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")
safetensors_torch = pytest.importorskip("safetensors.torch")

TEXT = [{"text": f"The {a} and the {b} are {a} and {b}, and what follows {b} is {c}. " * 6} for a, b, c in
        [("sun", "moon", "night"), ("one", "two", "three"), ("river", "sea", "rain"), ("cat", "dog", "mouse"), ("red", "blue", "green")]]


@pytest.fixture(scope="module", params=["fp8_channel", "int8", "mixed", "w8a16"])
def written(request, octet, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    arguments = []
    if request.param == "mixed":  # with what smoothing folds
        (folder / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in TEXT))
        arguments = ["--calibration", folder / "text.jsonl", "--smooth", "auto", "--plain-share", "0.1"]
    octet.text("quantize", model, "--scheme", request.param, "--dialect", "compressed-tensors", *arguments, "--out", folder / "out")
    return request.param, folder / "out"


def test_dequantised_weights(written, model):
    scheme, out = written
    # Decompressed when loaded: weights become real numbers.
    config = transformers.CompressedTensorsConfig(run_compressed=False)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, quantization_config=config)
    parameters = dict(loaded.named_parameters())
    stored = safetensors_torch.load_file(out / "model.safetensors")
    source = safetensors_torch.load_file(model / "model.safetensors")
    dtypes = set()
    for name, tensor in stored.items():
        if name.endswith("_scale"):
            continue
        found = parameters[name].detach().float()
        scale = stored.get(f"{name}_scale")
        dtypes.add(tensor.dtype)
        expected = tensor.float() if scale is None else tensor.float() * scale
        assert torch.equal(found, expected), name
        if scale is None and scheme != "mixed":
            assert torch.equal(tensor, source[name]), name
    wanted = {"fp8_channel": {torch.float8_e4m3fn}, "int8": {torch.int8}, "mixed": {torch.int8}, "w8a16": {torch.float8_e4m3fn}}[scheme]
    assert wanted < dtypes


def test_logits(written, octet):
    """Where activations stay as they are nothing is rounded while running: the logits are octet's but for F32's rounding."""
    scheme, out = written
    if scheme != "w8a16":
        pytest.skip("activations are rounded while running")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    ids = torch.tensor([[504, 3575, 282, 4649, 314]])
    with torch.no_grad():
        theirs = loaded(ids).logits[0, -1]
    answer = octet.json("logits", out, "--tokens", ",".join(str(i) for i in ids[0].tolist()), "--json", "--kv-cache-dtype", "f32")
    assert torch.allclose(theirs, torch.tensor(answer["logits"]), atol=1e-3)
