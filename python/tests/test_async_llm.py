"""AsyncLLM beside LLM, on the real model."""
import asyncio
import subprocess
import sys
import time

import pytest

from octet import AsyncEngineArgs, AsyncLLM, OctetError, RequestOutputKind, SamplingParams
from octet.entrypoints.openai.api_server import serve_arguments

GREEDY = SamplingParams(temperature=0, max_tokens=12)
LONG = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
FRANCE = "The capital of France is"


@pytest.fixture(scope="module")
def engine(model):
    with AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, max_model_len=2048)) as engine:
        yield engine


async def outputs_of(engine, prompt, params, request_id=None):
    return [output async for output in engine.generate(prompt, params, request_id)]


def test_outputs_grow_to_what_llm_gives(engine, llm):
    expected = llm.generate(FRANCE, GREEDY)[0]
    outputs = asyncio.run(outputs_of(engine, FRANCE, GREEDY, "mine"))
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    last = outputs[-1]
    assert last.request_id == "mine" and last.prompt == FRANCE and last.prompt_token_ids == expected.prompt_token_ids
    assert last.outputs[0] == expected.outputs[0] and last.outputs[0].finish_reason == "length"
    for before, after in zip(outputs, outputs[1:]):
        assert after.outputs[0].text.startswith(before.outputs[0].text)
        assert len(after.outputs[0].token_ids) > len(before.outputs[0].token_ids)


def test_deltas_add_up_with_logprobs_and_several_sequences(engine, llm):
    params = SamplingParams(temperature=0.8, seed=5, n=2, max_tokens=9, logprobs=1, prompt_logprobs=1)
    expected = llm.generate(FRANCE, params)[0]
    params.output_kind = RequestOutputKind.DELTA
    outputs = asyncio.run(outputs_of(engine, FRANCE, params))
    assert outputs[0].prompt_logprobs == expected.prompt_logprobs
    for index in (0, 1):
        parts = [part for output in outputs for part in output.outputs if part.index == index]
        assert "".join(part.text for part in parts) == expected.outputs[index].text
        assert [token for part in parts for token in part.token_ids] == expected.outputs[index].token_ids
        assert [position for part in parts for position in part.logprobs] == expected.outputs[index].logprobs
        assert parts[-1].finish_reason == expected.outputs[index].finish_reason


def test_only_the_final_output(engine, llm):
    params = SamplingParams(temperature=0, max_tokens=12, output_kind=RequestOutputKind.FINAL_ONLY)
    outputs = asyncio.run(outputs_of(engine, FRANCE, params))
    assert len(outputs) == 1 and outputs[0].outputs == llm.generate(FRANCE, GREEDY)[0].outputs


def test_many_at_once_and_in_a_second_loop(engine, llm):
    prompts = [f"{n} plus one equals" for n in range(24)]
    expected = [output.outputs[0].token_ids for output in llm.generate(prompts, GREEDY, use_tqdm=False)]

    async def all_of_them():
        return await asyncio.gather(*(outputs_of(engine, prompt, GREEDY) for prompt in prompts))

    for _ in range(2):
        assert [outputs[-1].outputs[0].token_ids for outputs in asyncio.run(all_of_them())] == expected


def test_chat(engine, llm):
    messages = [{"role": "user", "content": "What is 2 + 2?"}]

    async def last():
        return [output async for output in engine.chat(messages, GREEDY)][-1]

    expected = llm.chat(messages, GREEDY)[0]
    found = asyncio.run(last())
    assert found.outputs == expected.outputs and found.prompt == expected.prompt


def test_abort_cancel_and_leaving_early_end_requests(engine):
    async def run():
        aborted = asyncio.create_task(outputs_of(engine, FRANCE, LONG, "aborted"))
        cancelled = asyncio.create_task(outputs_of(engine, FRANCE, LONG, "cancelled"))
        async for output in engine.generate(FRANCE, LONG, "left"):
            if len(output.outputs[0].token_ids) >= 3:
                break
        await engine.abort(["aborted", "nobody"])
        assert (await aborted)[-1].outputs[0].finish_reason == "abort"
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        # Were one of them still there, its id would be in use.
        for request_id in ("aborted", "cancelled"):
            assert (await outputs_of(engine, FRANCE, GREEDY, request_id))[-1].finished

    start = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - start < 10  # 1,500 tokens take longer


def test_a_slow_reader_gets_larger_pieces_and_holds_up_nobody(engine):
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, output_kind=RequestOutputKind.DELTA)

    async def slow():
        sizes = []
        async for output in engine.generate(FRANCE, params):
            sizes.append(len(output.outputs[0].token_ids))
            await asyncio.sleep(0.3)
        return sizes

    async def run():
        slow_one = asyncio.create_task(slow())
        assert (await outputs_of(engine, "One, two,", GREEDY))[-1].finished
        return await slow_one

    sizes = asyncio.run(run())
    assert sum(sizes) == 60 and len(sizes) < 30


def test_what_cannot_be_is_said(engine):
    async def run():
        with pytest.raises(ValueError, match="temperature"):
            await outputs_of(engine, FRANCE, SamplingParams(temperature=-1))
        with pytest.raises(ValueError, match="prompt"):
            await outputs_of(engine, {"text": "no"}, GREEDY)
        async for _ in engine.generate(FRANCE, GREEDY, "twice"):
            with pytest.raises(ValueError, match="in use"):
                await outputs_of(engine, FRANCE, GREEDY, "twice")
            break
        await engine.check_health()

    asyncio.run(run())


def test_shutdown_ends_everything(model):
    engine = AsyncLLM(model, max_model_len=2048)

    async def run():
        task = asyncio.create_task(outputs_of(engine, FRANCE, LONG))
        await asyncio.sleep(0.5)
        assert engine.is_running
        engine.shutdown()
        with pytest.raises(OctetError, match="shut down"):
            await task
        with pytest.raises(OctetError, match="shut down"):
            await outputs_of(engine, FRANCE, GREEDY)

    asyncio.run(run())
    assert not engine.is_running


def test_the_server_under_vllms_name():
    assert serve_arguments(["--port", "1", "--model", "m", "--dtype=auto"]) == ["m", "--port", "1", "--dtype=auto"]
    assert serve_arguments(["--model=m"]) == ["m"]
    help_text = subprocess.run([sys.executable, "-m", "octet.entrypoints.openai.api_server", "--help"], capture_output=True, text=True, check=True).stdout
    assert "octet serve [OPTIONS] model" in help_text
