#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/: small tokenizers in the shape of each family, and what Hugging Face's `tokenizers` does
with them.

    pip install tokenizers==0.22.1 && scripts/record_tokenizers.py

Each family has the normalizer, pre-tokenizer, decoder, post-processor and added tokens of the real one; only the vocabulary
is small, trained here on generated text. <family>/tokenizer.json is the tokenizer; <family>/cases.json holds
{"encode": [[text, ids], ...], "decode": [[ids, text with special tokens, text without], ...]}.
tests/slow/tokenizers_vs_hf.py uses the same families and texts with the real vocabularies.
"""
import json
import pathlib
import random

import tokenizers
from tokenizers import Tokenizer

PINNED = "0.22.1"
GPT2_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK_V3 = [
    r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(use_regex, add_prefix_space=False):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def sequence(kind, *parts):
    return {"type": "Sequence", {"n": "normalizers", "p": "pretokenizers", "d": "decoders", "x": "processors"}[kind]: list(parts)}


def template(token, token_id, after=False):
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [text, special] if after else [special, text]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}}}


def replace(a, b):
    return {"type": "Replace", "pattern": {"String": a}, "content": b}


def metaspace(scheme, split_):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split_}


SPM_NORMALIZER = sequence("n", {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁"))
SPM_DECODER = sequence("d", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                       {"type": "Strip", "content": " ", "start": 1, "stop": 0})

# name -> pipeline; "special" are added tokens, given as (content, flags).
FAMILIES = {
    "llama3": {"pre_tokenizer": sequence("p", split(LLAMA3), byte_level(False)), "decoder": GPT2_DECODER, "ignore_merges": True,
               "bos": "<|begin_of_text|>", "byte_level_processor": True,
               "added": [("<|begin_of_text|>", {}), ("<|end_of_text|>", {}), ("<|eot_id|>", {})]},
    "qwen2": {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence("p", split(QWEN2), byte_level(False)), "decoder": byte_level(False),
              "added": [("<|endoftext|>", {}), ("<|im_start|>", {}), ("<|im_end|>", {}),
                        ("<tool_call>", {"special": False}), ("<think>", {"special": False})]},
    "smollm2": {"pre_tokenizer": sequence("p", {"type": "Digits", "individual_digits": True}, byte_level(True)), "decoder": GPT2_DECODER,
                "added": [("<|endoftext|>", {}), ("<|im_start|>", {}), ("<|im_end|>", {}), ("<repo_name>", {})]},
    "deepseek3": {"normalizer": sequence("n"), "pre_tokenizer": sequence("p", *map(split, DEEPSEEK_V3), byte_level(False)),
                  "decoder": GPT2_DECODER, "bos": "<｜begin▁of▁sentence｜>",
                  "added": [("<｜begin▁of▁sentence｜>", {}), ("<｜User｜>", {"special": False}),
                            ("<|EOT|>", {"normalized": True}), ("<｜fim▁hole｜>", {"special": False})]},
    "gpt4o": {"pre_tokenizer": sequence("p", split(GPT4O), byte_level(False)), "decoder": GPT2_DECODER,
              "added": [("<|eot|>", {}), ("<|image|>", {"rstrip": True})]},
    "llama2": {"normalizer": SPM_NORMALIZER, "decoder": SPM_DECODER, "spm": True, "bos": "<s>",
               "added": [("<unk>", {"normalized": True}), ("<s>", {}), ("</s>", {"normalized": True})]},
    "mistral": {"pre_tokenizer": metaspace("first", False), "decoder": SPM_DECODER, "spm": True, "bos": "<s>",
                "added": [("<unk>", {}), ("<s>", {}), ("</s>", {}), ("[INST]", {}), ("[/INST]", {})]},
    "metaspace": {"normalizer": sequence("n", {"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": False},
                                         {"type": "Lowercase"}),
                  "pre_tokenizer": sequence("p", {"type": "Punctuation", "behavior": "MergedWithPrevious"}, metaspace("always", True)),
                  "decoder": metaspace("always", True), "spm": True, "no_fallback": True,
                  "added": [("<unk>", {}), ("<mask>", {"lstrip": True}), ("word", {"special": False, "single_word": True}),
                            ("<R>", {"rstrip": True, "normalized": True}), ("a b", {"special": False, "normalized": True})]},
    "splits": {"normalizer": sequence("n", {"type": "NFD"}, {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": " "}),
               "pre_tokenizer": sequence("p", split(" ", "MergedWithNext", kind="String"), split(r"\d+", "MergedWithPrevious"),
                                         split(",", "Contiguous", kind="String"), split(r"[^x]+", "Removed", invert=True),
                                         byte_level(True, True)),
               "decoder": GPT2_DECODER, "eos": "</s>", "added": [("</s>", {}), ("<a>", {"lstrip": True, "rstrip": True})]},
}


def pipeline(family, first_added_id):
    """The tokenizer.json of a family without its vocabulary; `first_added_id(content)` gives the id of an added token."""
    spec = FAMILIES[family]
    added = []
    for content, flags in spec["added"]:
        token = {"id": first_added_id(content), "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}
        added.append({**token, **flags})
    post = None
    if "bos" in spec:
        post = template(spec["bos"], first_added_id(spec["bos"]))
        if spec.get("byte_level_processor"):
            post = sequence("x", byte_level(True, True), post)
    if "eos" in spec:
        post = template(spec["eos"], first_added_id(spec["eos"]), after=True)
    spm = spec.get("spm", False)
    fallback = spm and not spec.get("no_fallback")
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>" if spm else None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": spm, "byte_fallback": fallback,
             "ignore_merges": spec.get("ignore_merges", False), "vocab": {}, "merges": []}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": sorted(added, key=lambda t: t["id"]),
            "normalizer": spec.get("normalizer"), "pre_tokenizer": spec.get("pre_tokenizer"), "post_processor": post,
            "decoder": spec["decoder"], "model": model}


WORDS = ("the of and to in a is that for it as was with be by on not he I this are or his from at which but have an had they you "
         "were their one all we can her has there been if more when will would who so no she other its may these what them than "
         "some him time into only do such my new about out also two any up first could our then most see me should after "
         "tokenizer network language model training inference quantization attention window function return value while").split()
CODE = ["def f(x):\n    return x + 1\n", "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i];\n}\n", "#include <vector>\n",
        "if x != None and y >= 10:\n        print(f\"{x:>10}\")\n", "SELECT * FROM t WHERE id = 42;\n", "{\"key\": [1, 2.5e-3, null]}"]
FOREIGN = ["Größe über Straße", "naïve café déjà vu", "Привет, как дела?", "这是一个测试。你好世界", "日本語のテキストです。カタカナ", "한국어 문장입니다",
           "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Γειά σου Κόσμε", "Xin chào thế giới", "ქართული", "አማርኛ"]
NASTY = ["", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\r\n", "\r\n\r\n  x", "\t", "\t\t x", " a", "a ", " a ", "  a  b  ", "a\u00a0b", "\u3000x",
         "\u2028", "\u180e a", "\u200b", "\u200d", "\ufeff", "\ufeffabc", "\x00", "\x01\x02", "a\x00b", "\u0085", "\x1c\x1d", "\x7f",
         "I'm you're he'll we'VE they'D it'S don'T", "'s 't ''s 'ſ 'K '\u2019s", "it’s", "O'Reilly's", "1", "12", "123", "1234", "12345678901234567890", "3.14159",
         "1,000,000", "٣٤٥", "Ⅷ ⅳ ½ ²³", "१२३", "０１２", "𝟘𝟙𝟚", "🙂", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪🇫🇷", "❤️", "e\u0301", "é", "\u0301", "a\u0301\u0323", "a\u0323\u0301", "ệ",
         "\u1100\u1161\u11a8", "각", "\u212b \u2126 \ufb01 \u1e9b\u0323", "\u0344\u0345", "\u0f73\u0f71", "ʼn", "ß SS ſ", "İ i̇ ı", "ΑΣ σς", "ﷺ", "\u0958",
         "\U0001d15e", "\U0001d400", "\U00020000\U0002a6d6", "\U000e0001", "\uffff", "\ufffd", "\U0010ffff", "\ue000", "▁", "▁▁a", "a▁b", " ▁ ▁", "Ġ", "Ċ", "ĠĠa",
         "<0x0A>", "<0xFF>", "<unk>", "<s>", "</s>", "<s>a</s>", " <s> a </s> ", "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|>", "<|im_end|", "<|im_end|><|im_end|>",
         "<|endoftext|>", "<|begin_of_text|>x<|eot_id|>", "<|eot_id|> a", "[INST] hi [/INST] a", "[INST]hi[/INST]", "<tool_call>\n{}\n</tool_call>", "<think>\n",
         "<｜begin▁of▁sentence｜><｜User｜>你好", "<|EOT|>", " <|EOT|> ", "<｜fim▁hole｜>", "<repo_name>x", "<|image|>   x", "<|eot|>", "<mask>", "a <mask> b", "a   <mask>  b",
         "<mask> <mask>", "word", "words word sword word.", "a word b", "_word_ word", "<R>   x", "<r>  x", "a b", "A B", "xa bx", "a  b", "<a>", " <a>  <a> ", "x <a> y <a>\n",
         "a" * 100, "ab" * 60, " " * 100, "\n" * 50, "=" * 80, "-" * 33 + "\n", "." * 7, "!!!???", "...\n\n", "a" * 700, "aA" * 80, "x1" * 60, "你" * 70, "🙂" * 20,
         "hello, world!", "Hello World", "HELLO", "camelCaseAndPascalCase XMLHttpRequest", "snake_case_name", "https://example.com/a?b=c&d=e#f", "user@example.com",
         "C:\\Users\\x\\n", "1+1=2", "a,b,,c", "x,,,y,z", "3 x 4 x5", "12ab34", "a\tb\tc", "a \t\n b", "line1\nline2\r\nline3", "  indented\n    more", "x  \n\n  y", "$100 €20 ₿",
         "#!/bin/sh", "\\u00e9", "\"quoted\" 'single' `tick`", "(a)[b]{c}<d>", "a—b–c", "…", "«guillemets»", "¿Qué? ¡Sí!", "№ ™ ® ©", "\ud7ff\ue000", "ǅ ǈ", "ᾳ", "ʰ ˢ", "ªº"]


def texts(count, seed, specials=()):
    """Hand-made nasty texts, then `count` random ones."""
    rng = random.Random(seed)
    out = list(NASTY) + CODE + FOREIGN
    pools = [
        lambda: rng.choice(WORDS), lambda: rng.choice(WORDS).capitalize(), lambda: rng.choice(CODE), lambda: rng.choice(FOREIGN), lambda: rng.choice(NASTY[:-30])[:40],
        lambda: " " * rng.randint(1, 5), lambda: "\n" * rng.randint(1, 3), lambda: rng.choice([" ", "\t", "\r\n", "\u00a0", "\u3000", "\u2003", "\u0085"]),
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 12))), lambda: chr(rng.choice([rng.randint(0, 0x7F), rng.randint(0x80, 0x24F), rng.randint(0x250, 0x2FFF)])),
        lambda: random_character(rng), lambda: rng.choice("'’") + rng.choice(["s", "S", "t", "re", "VE", "ll", "d", "x"]), lambda: rng.choice(".,;:!?-_/\\|@#$%^&*()[]{}<>\"'`~=+"),
        lambda: chr(rng.randint(0x300, 0x36F)), lambda: rng.choice(specials) if specials else "", lambda: "".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, 30))),
    ]
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 12)):
            parts.append(rng.choice(pools)())
            if rng.random() < 0.5:
                parts.append(" ")
        out.append("".join(parts))
    return out


def random_character(rng):
    while True:
        c = rng.randint(0, 0x10FFFF) if rng.random() < 0.3 else rng.randint(0, 0x1FFFF)
        if not 0xD800 <= c <= 0xDFFF:
            return chr(c)


def corpus(seed):
    rng = random.Random(seed)
    lines = []
    for _ in range(3000):
        lines.append(" ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 15))).capitalize() + rng.choice([".", "!", "?\n", ",", ";\n\n"]))
        lines.append(rng.choice(FOREIGN) + " " + rng.choice(CODE) + str(rng.randint(0, 99999)))
    return lines


def train(family):
    """The family's tokenizer.json with a vocabulary of about a thousand tokens."""
    spec = FAMILIES[family]
    byte = not spec.get("spm")
    start = [c for c, _ in spec["added"]] if not byte else []
    if spec.get("spm") and not spec.get("no_fallback"):
        start += [f"<0x{b:02X}>" for b in range(256)]
    base = pipeline(family, lambda content: 0)
    base["added_tokens"], base["post_processor"] = [], None
    base["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    if not byte:  # train on words, as SentencePiece does, so that merges do not cross spaces
        base["pre_tokenizer"] = metaspace("always", True)
        base["normalizer"] = None if "Prepend" in json.dumps(base["normalizer"]) else base["normalizer"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000 if byte else 900, special_tokens=start, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet() if byte else ["▁"], limit_alphabet=400 if byte else 120)
    tokenizer = Tokenizer.from_str(json.dumps(base))
    tokenizer.train_from_iterator(corpus(7), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    vocab = trained["vocab"]
    ids = dict(vocab)
    for content, _ in spec["added"]:
        ids.setdefault(content, len(ids))
    out = pipeline(family, ids.__getitem__)
    out["model"].update(vocab=vocab, merges=trained["merges"])
    if family == "smollm2":  # the older spelling
        out["model"]["merges"] = [" ".join(m) for m in trained["merges"]]
    return out


def record(tokenizer, spec, count, seed):
    specials = [c for c, _ in spec["added"]]
    encode = [[t, tokenizer.encode(t).ids] for t in texts(count, seed, specials)]
    encode = [case for case in encode if len(case[0]) < 900]
    rng = random.Random(seed + 1)
    size = tokenizer.get_vocab_size()
    decode = []
    lists = [ids for _, ids in rng.sample(encode, 60)]
    lists += [[rng.randrange(size) for _ in range(rng.randint(1, 12))] for _ in range(60)]
    if spec.get("spm"):
        lists += [[rng.randrange(0, 262) for _ in range(rng.randint(1, 9))] for _ in range(60)]
    for ids in lists:
        decode.append([ids, tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids, skip_special_tokens=True)])
    return {"encode": encode, "decode": decode}


def main():
    assert tokenizers.__version__ == PINNED, f"needs tokenizers {PINNED}, found {tokenizers.__version__}"
    root = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/tokenizers"
    for family, spec in FAMILIES.items():
        folder = root / family
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(train(family), ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text + "\n")
        cases = record(Tokenizer.from_str(text), spec, 250, 11)
        rows = ",\n".join(f'"{key}":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in value) + "\n]" for key, value in cases.items())
        (folder / "cases.json").write_text("{" + rows + "}\n")
        print(family, len(text), len(cases["encode"]), len(cases["decode"]))


if __name__ == "__main__":
    main()
