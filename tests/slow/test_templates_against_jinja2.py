"""The model's own chat template on random conversations: what Python's jinja2 renders with Hugging Face's settings."""
import json

import jinja2.sandbox

CONVERSATIONS = 300
ROLES = ["system", "user", "assistant", "tool"]
CONTENTS = ["", "Hi", " spaced ", "two\nlines\n", "{{ messages }}", "<|im_end|>", "naïve 🙂", "'quoted' \"twice\"", "x" * 300]


def test_random_conversations(octet, model, generator):
    config = json.loads((model / "tokenizer_config.json").read_text())
    path = model / "chat_template.jinja"
    source = path.read_text() if path.exists() else config["chat_template"]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = lambda message: (_ for _ in ()).throw(jinja2.TemplateError(message))
    template = environment.from_string(source)
    lines = [{"messages": [{"role": generator.choice(ROLES), "content": generator.choice(CONTENTS)}
                           for _ in range(generator.randrange(1, 6))],
              "add_generation_prompt": generator.random() < 0.5, "bos_token": "<b>", "eos_token": "<e>"}
             for _ in range(CONVERSATIONS)]
    for line, answer in zip(lines, octet.json_lines("render", model, lines=lines)):
        assert answer.get("prompt") == template.render(**line), line
