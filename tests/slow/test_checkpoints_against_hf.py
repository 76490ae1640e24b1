"""Folders that `octet convert` writes, read by Hugging Face's own libraries (versions in scripts/record_checkpoints.py):
weights by safetensors, tokenizers by tokenizers and transformers, the configuration by transformers."""
import json
import pathlib

import numpy
import pytest
import safetensors.numpy
import tokenizers
import transformers

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "golden" / "checkpoints"


@pytest.fixture(params=["tiny_llama", "tiny_spm"])
def converted(request, octet, tmp_path):
    octet.text("convert", GOLDENS / f"{request.param}.gguf", "--out", tmp_path / "out", "--dtype", "f32")
    return request.param, tmp_path / "out"


def test_tokens(converted):
    name, folder = converted
    for tokenizer in (tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), transformers.AutoTokenizer.from_pretrained(folder)):
        for case in json.loads((GOLDENS / "tokens.json").read_text())[f"{name}.gguf"]:
            encoded = tokenizer.encode(case["text"], add_special_tokens=False)
            assert getattr(encoded, "ids", encoded) == case["ids"], case["text"]


def test_sentencepiece_begins_with_bos(octet, tmp_path):
    octet.text("convert", GOLDENS / "tiny_spm.gguf", "--out", tmp_path / "out")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("hen").input_ids[0] == 1


def test_weights(octet, tmp_path):
    octet.text("convert", GOLDENS / "tiny_llama.gguf", "--out", tmp_path / "out", "--dtype", "f32")
    ours = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    expected = safetensors.numpy.load_file(GOLDENS / "tiny_llama.safetensors")
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        numpy.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_configuration(converted):
    _, folder = converted
    config = transformers.AutoConfig.from_pretrained(folder)
    assert isinstance(config, transformers.LlamaConfig)
    assert (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (64, 4, 2, 16)
    assert config.rope_parameters["rope_theta"] == 50000.0
    assert (config.bos_token_id, config.eos_token_id, config.tie_word_embeddings) == (1, 2, True)


def test_the_real_model_loads_whole(model):
    torch = pytest.importorskip("torch")
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(model, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids])
    answer = loaded.float().generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1]:]
    assert "Paris" in tokenizer.decode(answer)
