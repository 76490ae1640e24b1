"""Fresh random strings: the ids must be Hugging Face tokenizers' ids, and decoding them its text."""
import tokenizers

ROUNDS = 20
LINES = 500
ALPHABETS = [
    "abcdefghij ABC ", "0123456789,.- ", " \t\n\r\u00a0\u2003\u3000\u200b", "'s't're've'm'll'd' dD'S ",
    "äöüßéèñçøå\u0301\u0308\u0327", "Здравствуйте мир ", "日本語中文字漢かなカナ한국어 ", "مرحبا العالم ", "नमस्ते दुनिया ", "สวัสดี ",
    "🙂🙃👩\u200d👧🏽\ufe0f🇫🇷", "!?#@%&*()[]{}<>|\\/\"'`~^_+=:;", "ﬁﬂⅣ①½²ﾊﾟ\u1e9b\u0323", "\u0000\u0001\u007f\ufeff\ufffd\ufffe",
]
WORDS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "the", " the", "def f(x):\n    return", "http://a.b/c?d=e", "I'll", "  ", "\n\n"]


def random_string(generator):
    pieces = []
    for _ in range(generator.randrange(1, 12)):
        kind = generator.random()
        if kind < 0.2:
            pieces.append(generator.choice(WORDS))
        elif kind < 0.3:
            point = generator.randrange(0x110000)
            pieces.append(chr(point) if not 0xD800 <= point < 0xE000 else "?")
        else:
            alphabet = generator.choice(ALPHABETS)
            pieces.append("".join(generator.choice(alphabet) for _ in range(generator.randrange(1, 20))))
    return "".join(pieces)


def test_random_strings(octet, model, generator):
    reference = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    for _ in range(ROUNDS):
        texts = [random_string(generator) for _ in range(LINES)]
        answers = octet.json_lines("tokenize", model, lines=[{"text": t, "add_special_tokens": False} for t in texts])
        expected = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
        for text, answer, ids in zip(texts, answers, expected):
            assert answer["ids"] == ids, repr(text)
        # Random ids as well: most byte-level sequences are no text.
        random_ids = [[generator.randrange(reference.get_vocab_size()) for _ in range(generator.randrange(1, 9))] for _ in texts]
        for skip in (True, False):
            decoded = octet.json_lines("detokenize", model, lines=[{"ids": i, "skip_special_tokens": skip} for i in random_ids])
            for ids, answer in zip(random_ids, decoded):
                assert answer["text"] == reference.decode(ids, skip_special_tokens=skip), ids
