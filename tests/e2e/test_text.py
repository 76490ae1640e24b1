"""The commands that need no weights: tokenize, detokenize, render."""
import json

import pytest

TEXTS = [
    "Hello, world!",
    "  leading and trailing  ",
    "tabs\tand\nnew lines\r\n\n\n",
    "naïve café — “quotes” … 東京 🙂👩‍👩‍👧 Здравствуй",
    "def f(x):\n    return x ** 2  # 12345.678",
    "<|im_start|>user\nhi<|im_end|>",
    "e\u0301 \u00a0 \u200b \ufeff",
    "",
]


def test_round_trip(octet, model):
    encoded = octet.json_lines("tokenize", model, lines=[{"text": t, "add_special_tokens": False} for t in TEXTS])
    assert all(isinstance(i, int) for answer in encoded for i in answer["ids"])
    decoded = octet.json_lines("detokenize", model,
                               lines=[{"ids": answer["ids"], "skip_special_tokens": False} for answer in encoded])
    assert [answer["text"] for answer in decoded] == TEXTS


def test_stream_pieces_make_the_text_and_never_a_broken_character(octet, model):
    encoded = octet.json_lines("tokenize", model, lines=[{"text": t, "add_special_tokens": False} for t in TEXTS])
    streamed = octet.json_lines(
        "detokenize", model, lines=[{"ids": e["ids"], "skip_special_tokens": False, "stream": True} for e in encoded])
    for text, answer, ids in zip(TEXTS, streamed, encoded):
        assert len(answer["pieces"]) == len(ids["ids"])
        assert "".join(piece or "" for piece in answer["pieces"]) + answer["tail"] == text
        assert all("\ufffd" not in (piece or "") for piece in answer["pieces"])


def test_skip_special_tokens(octet, model):
    [encoded] = octet.json_lines("tokenize", model, lines=[{"text": "<|im_start|>hi<|im_end|>", "add_special_tokens": False}])
    [decoded] = octet.json_lines("detokenize", model, lines=[{"ids": encoded["ids"], "skip_special_tokens": True}])
    assert decoded["text"] == "hi"


def test_render_chat(octet, model):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
    [answer] = octet.json_lines("render", model, lines=[{"messages": messages, "add_generation_prompt": True}])
    assert answer["prompt"] == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
                                "<|im_start|>assistant\n")


def test_render_template_file(octet, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}{{ eos_token }}")
    [answer] = octet.json_lines("render", "--template", template,
                                lines=[{"messages": [{"role": "user", "content": "x"}], "eos_token": "</s>"}])
    assert answer["prompt"] == "[user|x]</s>"


def test_render_reports_a_template_that_raises(octet, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ raise_exception('roles must alternate') }}")
    [answer] = octet.json_lines("render", "--template", template, lines=[{"messages": []}])
    assert "roles must alternate" in answer["error"]


@pytest.mark.parametrize("line", ["{", "[]", '{"no_text": 1}', '{"text": 3}'])
def test_bad_json_line_is_an_error_not_a_crash(octet, model, line):
    result = octet("tokenize", model, stdin=line + "\n")
    assert result.returncode in (0, 1, 2), result.stderr
    assert result.returncode != 0 or "error" in json.loads(result.stdout)
