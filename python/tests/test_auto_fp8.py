"""AutoFP8's flow, with stand-ins for what transformers and torch give."""
import json
import struct

import pytest

from octet import LLM
from octet.auto_fp8 import AutoFP8ForCausalLM, BaseQuantizeConfig


class Matrix:
    """A tensor as far as AutoFP8 scripts need one."""

    def __init__(self, rows):
        self.rows = rows

    def tolist(self):
        return self.rows


class Encoding(dict):
    """A BatchEncoding: a mapping whose items are attributes too."""

    def __getattr__(self, name):
        return self[name]


@pytest.fixture(scope="module")
def rows(model):
    tokenizer = LLM(model, max_model_len=256).get_tokenizer()
    texts = ["Hello, my name is octet and I count in eights.", "The capital of France is Paris.", "One two three four"]
    return [tokenizer.encode(text) for text in texts]


def header(folder):
    with open(folder / "model.safetensors", "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), file.read()


def input_scales(folder):
    entries, data = header(folder)
    scales = {}
    for name, entry in entries.items():
        if name.endswith("input_scale"):
            assert entry["shape"] == [] and entry["dtype"] == "F32"
            scales[name] = struct.unpack("<f", data[slice(*entry["data_offsets"])])[0]
    return scales


def test_static_flow_leaves_padding_out(model, rows, tmp_path):
    width = max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    examples = Encoding(input_ids=Matrix(padded), attention_mask=Matrix(mask))
    config = BaseQuantizeConfig(quant_method="fp8", activation_scheme="static", kv_cache_quant_targets=("k_proj", "v_proj"))
    quantised = AutoFP8ForCausalLM.from_pretrained(model, config, torch_dtype="auto", device_map="auto")
    assert quantised.seqlen == 8192
    quantised.quantize(examples)
    quantised.save_quantized(tmp_path / "padded")
    written = json.loads((tmp_path / "padded" / "config.json").read_text())["quantization_config"]
    assert written == {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"], "kv_cache_scheme": "static"}
    assert (tmp_path / "padded" / "tokenizer.json").exists()
    assert header(tmp_path / "padded")[0]["model.layers.0.self_attn.k_scale"]["shape"] == []

    quantised.quantize(rows)  # lists without padding
    quantised.save_quantized(tmp_path / "plain")
    scales = input_scales(tmp_path / "padded")
    assert len(scales) == 210 and scales == input_scales(tmp_path / "plain")
    assert LLM(str(tmp_path / "padded"), max_model_len=128).generate("The capital of France is")[0].outputs[0].text


def test_dynamic_needs_no_tokens(model, tmp_path):
    quantised = AutoFP8ForCausalLM.from_pretrained(model, BaseQuantizeConfig(activation_scheme="dynamic"))
    quantised.quantize([])
    quantised.save_quantized(tmp_path / "out")
    assert not input_scales(tmp_path / "out")


def test_arguments():
    config = BaseQuantizeConfig()
    assert (config.quant_method, config.activation_scheme, config.ignore_patterns) == ("fp8", "static", ["re:.*lm_head"])
    assert config.kv_cache_quant_targets is None
    with pytest.raises(ValueError, match="int8"):
        BaseQuantizeConfig(quant_method="int8")
    with pytest.raises(ValueError, match="sometimes"):
        BaseQuantizeConfig(activation_scheme="sometimes")


def test_errors(model, tmp_path):
    with pytest.raises(ValueError, match='"q_cache"'):
        AutoFP8ForCausalLM.from_pretrained(model, BaseQuantizeConfig(kv_cache_quant_targets=("q_cache", "v_proj")))
    quantised = AutoFP8ForCausalLM.from_pretrained(model, BaseQuantizeConfig())
    with pytest.raises(ValueError, match="quantize\\(\\) first"):
        quantised.save_quantized(tmp_path / "out")
    for nothing in (None, [], Encoding(input_ids=Matrix([]))):
        with pytest.raises(ValueError, match="need calibration tokens"):
            quantised.quantize(nothing)
    with pytest.raises(ValueError, match="tokenize the text first"):
        quantised.quantize(["a text"])
    quantised.quantize([[1, 2, 10**6]])
    with pytest.raises(ValueError, match="1000000"):
        quantised.save_quantized(tmp_path / "out")
