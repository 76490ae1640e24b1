"""Many requests at once through a small KV cache, with preemption: every answer equals the one the request gets alone."""
import json

NUM_PROMPTS = 48
SUBJECTS = ["rain", "bread", "a lighthouse", "chess", "the sea", "iron", "a letter", "winter", "bees", "an old clock", "salt", "maps"]


def generate(octet, model, prompts, *flags):
    arguments = [part for prompt in prompts for part in ("-p", prompt)]
    out = octet.text("generate", model, "--temperature", "0", "--max-tokens", "48", "--json", *flags, *arguments)
    return [json.loads(line) for line in out.splitlines()]


def test_crowded_equals_alone(octet, model, generator):
    prompts = [f"Write about {generator.choice(SUBJECTS)} and {generator.choice(SUBJECTS)}." * generator.randrange(1, 8)
               for _ in range(NUM_PROMPTS)]
    crowded = generate(octet, model, prompts, "--max-num-seqs", "16", "--max-num-batched-tokens", "96",
                       "--max-model-len", "512", "--kv-cache-memory-bytes", str(1100 * 23040))
    alone = generate(octet, model, prompts, "--max-num-seqs", "1", "--no-enable-prefix-caching")
    assert len(crowded) == len(alone) == NUM_PROMPTS
    for prompt, a, b in zip(prompts, crowded, alone):
        assert a["outputs"] == b["outputs"], prompt


def test_three_ranks_give_the_same_tokens_in_f32(octet, model):
    prompts = [f"Write about {subject}." for subject in SUBJECTS]
    one = generate(octet, model, prompts, "--dtype", "float32")
    two = generate(octet, model, prompts, "--dtype", "float32", "--tensor-parallel-size", "3")
    assert [line["outputs"] for line in one] == [line["outputs"] for line in two]
