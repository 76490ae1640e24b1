"""The surface that vLLM's users know, on a real model."""
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest

from octet import LLM, GuidedDecodingParams, OctetError, PoolingParams, SamplingParams, StructuredOutputsParams

GREEDY = SamplingParams(temperature=0, max_tokens=12)


def test_the_documented_snippet(model):
    result = LLM(model).generate("Hello, my name is")
    assert isinstance(result[0].outputs[0].text, str) and result[0].finished
    result = LLM(model, quantization="fp8").generate("Hello, my name is")
    assert len(result[0].outputs[0].token_ids) <= 16
    result = LLM(model=model, kv_cache_dtype="fp8").generate("Hello, my name is")
    assert result[0].prompt == "Hello, my name is"


def test_a_known_answer(llm):
    text = llm.generate("The capital of France is", GREEDY)[0].outputs[0].text
    assert "Paris" in text


def test_results_come_in_input_order_and_do_not_depend_on_the_batch(llm):
    prompts = [f"{n} plus one equals" for n in ("One", "Two", "Three", "Seven", "Twelve")]
    together = llm.generate(prompts, GREEDY, use_tqdm=False)
    assert [output.prompt for output in together] == prompts
    for prompt, output in zip(prompts, together):
        assert llm.generate(prompt, GREEDY)[0].outputs[0].token_ids == output.outputs[0].token_ids


def test_token_ids_and_dict_prompts(llm):
    tokenizer = llm.get_tokenizer()
    ids = tokenizer.encode("The capital of France is")
    assert tokenizer.decode(ids) == "The capital of France is"
    expected = llm.generate("The capital of France is", GREEDY)[0].outputs[0].token_ids
    for prompt in ({"prompt_token_ids": ids}, {"prompt": "The capital of France is"}, ids, [ids]):
        assert llm.generate(prompt, GREEDY)[0].outputs[0].token_ids == expected


def test_skip_tokenizer_init(model, llm):
    ids = llm.get_tokenizer().encode("The capital of France is")
    bare = LLM(model, skip_tokenizer_init=True, max_model_len=256)
    output = bare.generate({"prompt_token_ids": ids}, GREEDY)[0].outputs[0]
    assert output.token_ids == llm.generate([ids], GREEDY)[0].outputs[0].token_ids and output.text == ""
    with pytest.raises(ValueError, match="prompt_token_ids"):
        bare.generate("text", GREEDY)


def test_logprobs(llm):
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=3, prompt_logprobs=2)
    output = llm.generate("The capital of France is", params)[0]
    completion = output.outputs[0]
    assert len(completion.logprobs) == len(completion.token_ids) == 4
    for token, position in zip(completion.token_ids, completion.logprobs):
        assert position[token].rank == 1 and 3 <= len(position) <= 4
        assert sum(math.exp(entry.logprob) for entry in position.values()) <= 1.0001
    total = sum(position[token].logprob for token, position in zip(completion.token_ids, completion.logprobs))
    assert completion.cumulative_logprob == pytest.approx(total, abs=1e-4)
    assert output.prompt_logprobs[0] is None and len(output.prompt_logprobs) == len(output.prompt_token_ids)
    for token, position in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:]):
        assert token in position
    # A generated text scored as a prompt has the log-probabilities it was generated with.
    ids = output.prompt_token_ids + completion.token_ids
    scored = llm.generate({"prompt_token_ids": ids}, SamplingParams(max_tokens=1, prompt_logprobs=0))[0].prompt_logprobs
    for token, position, rescored in zip(completion.token_ids, completion.logprobs, scored[-4:]):
        assert rescored[token].logprob == pytest.approx(position[token].logprob, abs=1e-4)


def test_seeds_do_not_depend_on_neighbours(llm):
    params = SamplingParams(temperature=1.0, seed=7, max_tokens=12)
    alone = llm.generate("Once upon a time", params)[0].outputs[0].token_ids
    crowd = llm.generate(["Once upon a time"] + ["Noise"] * 5, [params] + [SamplingParams(max_tokens=20)] * 5)
    assert crowd[0].outputs[0].token_ids == alone
    other = llm.generate("Once upon a time", SamplingParams(temperature=1.0, seed=8, max_tokens=12))[0].outputs[0].token_ids
    assert other != alone


def test_several_answers(llm):
    output = llm.generate("Once upon a time", SamplingParams(n=3, temperature=1.0, seed=1, max_tokens=12))[0]
    assert [completion.index for completion in output.outputs] == [0, 1, 2]
    assert len({tuple(completion.token_ids) for completion in output.outputs}) == 3


def test_stop_strings_and_finish_reasons(llm):
    full = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=24))[0].outputs[0]
    assert full.finish_reason in ("length", "stop")
    word = full.text.split()[1][:4]
    cut = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=24, stop=word))[0].outputs[0]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", word)
    assert cut.text == full.text[: full.text.index(word)]
    first = full.token_ids[0]
    by_id = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=24, stop_token_ids=[first]))[0].outputs[0]
    assert (by_id.finish_reason, by_id.stop_reason, by_id.text, by_id.token_ids) == ("stop", first, "", [first])


def test_chat_keeps_user_text_text(llm):
    reply = llm.chat([{"role": "user", "content": "What is the capital of France? Answer in one word."}], GREEDY)[0]
    assert "Paris" in reply.outputs[0].text
    end = llm.get_tokenizer().convert_tokens_to_ids("<|im_end|>")
    plain = llm.chat([{"role": "user", "content": "hello"}], GREEDY)[0].prompt_token_ids.count(end)
    spelled = llm.chat([{"role": "user", "content": "hello <|im_end|>"}], GREEDY)[0]
    assert spelled.prompt_token_ids.count(end) == plain
    assert "<|im_end|>" in llm.get_tokenizer().decode(spelled.prompt_token_ids)


def test_float32_and_threads(model, llm):
    exact = LLM(model, dtype="float32", max_model_len=256, num_threads=1)
    assert "Paris" in exact.generate("The capital of France is", GREEDY)[0].outputs[0].text
    assert exact.report()["weight_bytes"] > 1.9 * llm.report()["weight_bytes"]


def test_fp8_weighs_less(model, llm):
    report = LLM(model, quantization="fp8", max_model_len=256).report()
    assert report["weight_bytes"] < 0.65 * llm.report()["weight_bytes"]
    assert report["scale_bytes"] < 0.02 * report["weight_bytes"]


def test_tensor_parallel_gives_the_same_tokens(model):
    one = LLM(model, dtype="float32", max_model_len=256).generate("The capital of France is", GREEDY)[0]
    two = LLM(model, dtype="float32", max_model_len=256, tensor_parallel_size=3).generate("The capital of France is", GREEDY)[0]
    assert one.outputs[0].token_ids == two.outputs[0].token_ids


def test_errors_name_the_field(llm, model):
    with pytest.raises(ValueError, match="top_p"):
        llm.generate("x", SamplingParams(top_p=1.5))
    with pytest.raises(ValueError, match="max_model_len|2048"):
        llm.generate({"prompt_token_ids": [1] * 5000}, GREEDY)
    with pytest.raises(ValueError, match="prompt"):
        llm.generate({"text": "x"}, GREEDY)
    with pytest.raises(TypeError, match="no_such_argument"):
        LLM(model, no_such_argument=1)
    with pytest.raises(OctetError, match="no/such-model|no such"):
        LLM("no/such-model")
    with pytest.raises((ValueError, OctetError), match="nonsense"):
        LLM(model, quantization="nonsense")
    # The engine is as it was.
    assert "Paris" in llm.generate("The capital of France is", GREEDY)[0].outputs[0].text


def test_ignored_arguments_warn(model):
    with pytest.warns(UserWarning, match="swap_space"):
        LLM(model, swap_space=4, max_model_len=128)


def test_the_gil_is_released_while_generating(llm):
    ticks = 0
    done = threading.Event()

    def tick():
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.monotonic()
    llm.generate(["Tell me a story."] * 4, SamplingParams(temperature=0, max_tokens=64, ignore_eos=True))
    elapsed = time.monotonic() - start
    done.set()
    thread.join()
    assert ticks > 20 * elapsed  # a held GIL would let the thread run about never


def test_hub_cache_name(model, tmp_path):
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.mkdir()
    for path in pathlib.Path(model).iterdir():
        os.link(path, snapshot / path.name) if path.stat().st_dev == tmp_path.stat().st_dev else snapshot.joinpath(path.name).write_bytes(path.read_bytes())
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    code = "from octet import LLM, SamplingParams; print(LLM('someone/tiny', max_model_len=128).generate('The capital of France is', SamplingParams(temperature=0))[0].outputs[0].text)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HOME": str(tmp_path)})
    assert result.returncode == 0 and "Paris" in result.stdout, result.stderr


def test_structured_outputs(llm):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "maximum": 99, "minimum": 0}},
              "required": ["ok", "n"], "additionalProperties": False}

    def text(**form):
        params = SamplingParams(temperature=1.0, seed=4, max_tokens=60, structured_outputs=StructuredOutputsParams(**form))
        output = llm.generate("The answer is", params)[0].outputs[0]
        assert output.finish_reason == "stop"
        return output.text

    for given in (schema, json.dumps(schema)):
        answer = json.loads(text(json=given))
        assert set(answer) == {"ok", "n"} and isinstance(answer["ok"], bool) and 0 <= answer["n"] <= 99
    assert re.fullmatch("[A-C]{2}-[0-9]{3}", text(regex="[A-C]{2}-[0-9]{3}"))
    assert text(choice=["left", "right"]) in ("left", "right")
    assert re.fullmatch("a+b", text(grammar='root ::= "a"{1,5} "b"'))
    older = SamplingParams(temperature=0, max_tokens=9, guided_decoding=GuidedDecodingParams(choice=["up"]))
    assert llm.generate("I go", older)[0].outputs[0].text == "up"


def test_bad_structured_outputs_are_refused(llm):
    for form in ({}, {"regex": "a", "grammar": "b"}):
        with pytest.raises(ValueError, match="exactly one"):
            StructuredOutputsParams(**form)
    for form in ({"regex": "("}, {"json": "{"}, {"json": {"type": "nonsense"}}):
        with pytest.raises(ValueError):
            llm.generate("x", SamplingParams(structured_outputs=StructuredOutputsParams(**form)))


def test_embeddings(model, llm):
    texts = ["The cat sat on the mat.", "A cat is sitting on a mat.", "Interest rates rose by a quarter point."]
    outputs = llm.embed(texts)
    vectors = [output.outputs.embedding for output in outputs]
    assert all(len(vector) == 576 and math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-4) for vector in vectors)
    assert outputs[0].prompt_token_ids == llm.get_tokenizer().encode(texts[0])
    [alone] = llm.embed({"prompt_token_ids": outputs[0].prompt_token_ids})
    assert alone.outputs.embedding == pytest.approx(vectors[0], abs=1e-5)
    [raw] = llm.embed(texts[0], pooling_params=PoolingParams(normalize=False))
    length = math.sqrt(sum(x * x for x in raw.outputs.embedding))
    assert [x / length for x in raw.outputs.embedding] == pytest.approx(vectors[0], abs=1e-5) and length > 1.1
    [short] = llm.embed(texts[0], pooling_params=PoolingParams(dimensions=64, normalize=False))
    assert short.outputs.embedding == pytest.approx(raw.outputs.embedding[:64], abs=1e-5)
    with pytest.raises(ValueError, match="dimensions"):
        llm.embed(texts[0], pooling_params=PoolingParams(dimensions=577))
    # The mean over tokens tells likeness better than a generator's last state does.
    mean = LLM(model, max_model_len=256, pooler_config={"pooling_type": "MEAN", "normalize": True})
    a, b, c = (output.outputs.embedding for output in mean.embed(texts))
    dot = lambda x, y: sum(p * q for p, q in zip(x, y))  # noqa: E731
    assert dot(a, b) > dot(a, c)
