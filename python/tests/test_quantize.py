import json

import pytest

import octet
from octet import LLM


def test_quantize_and_load(model, tmp_path):
    seen = []
    report = octet.quantize(model, tmp_path / "out", scheme="fp8", on_progress=lambda done, total: seen.append((done, total)))
    assert report["scheme"] == "fp8" and report["dialect"] == "autofp8" and len(report["linears"]) == 210
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert all(0 < linear["weight_error"] < 2e-3 for linear in report["linears"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "fp8"
    llm = LLM(str(tmp_path / "out"), max_model_len=256)
    assert llm.generate("Hello, my name is")[0].outputs[0].text


def test_an_interrupted_run_is_resumed(model, tmp_path):
    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        octet.quantize(model, tmp_path / "out", on_progress=stop)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="--resume"):
        octet.quantize(model, tmp_path / "out")
    octet.quantize(model, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "config.json").exists()


def test_wrong_arguments(model, tmp_path):
    with pytest.raises(ValueError, match="scheme \"fp9\""):
        octet.quantize(model, tmp_path / "out", scheme="fp9")
    with pytest.raises(ValueError, match="static"):
        octet.quantize(model, tmp_path / "out", scheme="int8", activation_scheme="static")
