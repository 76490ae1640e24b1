"""`octet eval task` beside the real lm-evaluation-harness: the same prompts, character by character, log-likelihoods and
answers of the same model as transformers runs it in F32, and the same metrics. Data is made here, in the forms of the data
sets on the Hub; the harness reads it through its own task files, of which only the data set's place is changed."""
import json
import pathlib

import pytest

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("torch")
pytest.importorskip("transformers")
huggingface = pytest.importorskip("lm_eval.models.huggingface")
lm_tasks = pytest.importorskip("lm_eval.tasks")

TASKS = pathlib.Path(lm_tasks.__file__).parent
NOUNS = ["river", "stone", "bird", "engine", "cloud", "teacher", "garden", "lamp", "ship", "letter", "café", "mountain"]
VERBS = ["carries", "needs", "follows", "holds", "leaves"]
QUESTIONS = 4


def arc(generator, count):
    lines = []
    for i in range(count):
        texts = [f"the {noun} " + "very " * generator.randrange(3) + generator.choice(VERBS) for noun in generator.sample(NOUNS, 4)]
        labels = ["A", "B", "C", "D"] if i % 3 else ["1", "2", "3", "4"]
        lines.append({"id": str(i), "question": f"What {generator.choice(VERBS)} the {generator.choice(NOUNS)} number {i}?",
                      "choices": {"text": texts, "label": labels}, "answerKey": generator.choice(labels)})
    return lines


def hellaswag(generator, count):
    return [{"ind": i, "activity_label": f"Moving a {generator.choice(NOUNS)}", "ctx_a": f"[header] A person {generator.choice(VERBS)} it.",
             "ctx_b": f"the {generator.choice(NOUNS)} [title] Number {i}", "ctx": "unused",
             "endings": [f"{generator.choice(VERBS)} the  {noun}. [substeps] Then it ends." for noun in generator.sample(NOUNS, 4)],
             "label": str(generator.randrange(4))} for i in range(count)]


def mmlu(generator, count):
    return [{"question": f" Which of these {generator.choice(VERBS)} {i}? ", "subject": "anatomy", "choices": generator.sample(NOUNS, 4),
             "answer": generator.randrange(4)} for i in range(count)]


def winogrande(generator, count):
    return [{"sentence": f"The {a} met the {b} and the _ {generator.choice(VERBS)} it, number {i}.", "option1": a, "option2": b,
             "answer": generator.choice(["1", "2"])} for i in range(count) for a, b in [generator.sample(NOUNS, 2)]]


def truthfulqa(generator, count):
    lines = []
    for i in range(count):
        choices = [f"It {generator.choice(VERBS)} the {noun}." for noun in generator.sample(NOUNS, 4)]
        lines.append({"question": f"What does the {generator.choice(NOUNS)} do, {i}?", "mc1_targets": {"choices": choices, "labels": [1, 0, 0, 0]},
                      "mc2_targets": {"choices": choices, "labels": [1, 0, 1, 0]}})
    return lines


def gsm8k(generator, count):
    lines = []
    for _ in range(count):
        a, b = generator.randrange(2, 900), generator.randrange(2, 900)
        lines.append({"question": f"Ann has {a} stones and finds {b} more. How many has she?", "answer": f"{a} + {b} = {a + b}.\n#### {a + b:,}"})
    return lines


# name: (the harness's file, lines, the splits that it asks and takes examples from, examples)
CASES = {
    "arc_easy": ("arc/arc_easy.yaml", arc, "test", "train", 0),
    "arc_challenge": ("arc/arc_challenge.yaml", arc, "test", "train", 6),
    "hellaswag": ("hellaswag/hellaswag.yaml", hellaswag, "validation", "train", 3),
    "mmlu": ("mmlu/default/mmlu_anatomy.yaml", mmlu, "test", "dev", 5),
    "winogrande": ("winogrande/default.yaml", winogrande, "validation", "train", 5),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", truthfulqa, "validation", None, 0),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", truthfulqa, "validation", None, 0),
    "gsm8k": ("gsm8k/gsm8k.yaml", gsm8k, "test", "train", 2),
}


@pytest.fixture(scope="module")
def harness_model(model):
    return huggingface.HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1)


def harness(lm, task, file, splits, shots, folder):
    config = {"include": str(TASKS / file), "task": f"local_{task}", "dataset_path": "json", "dataset_name": None,
              "dataset_kwargs": {"data_files": splits}}
    (folder / "task.yaml").write_text(json.dumps(config))  # JSON is YAML
    manager = lm_tasks.TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(model=lm, tasks=[f"local_{task}"], num_fewshot=shots, task_manager=manager, log_samples=True, bootstrap_iters=0)
    return results["results"][f"local_{task}"], results["samples"][f"local_{task}"]


@pytest.mark.parametrize("task", CASES)
def test_same_prompts_and_scores(octet, model, harness_model, generator, tmp_path, monkeypatch, task):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file, make, asked, examples, shots = CASES[task]
    splits = {}
    for split, count in [(asked, QUESTIONS), (examples, 40)]:
        if split is not None:
            splits[split] = str(tmp_path / f"{split}.jsonl")
            pathlib.Path(splits[split]).write_text("".join(json.dumps(line) + "\n" for line in make(generator, count)))
    metrics, samples = harness(harness_model, task, file, splits, shots, tmp_path)
    ours = octet.json("eval", "task", task, "--model", model, "--data", splits[asked], *(["--examples", splits[examples]] if shots else []),
                      "--num-fewshot", shots, "--answers", tmp_path / "answers", "--kv-cache-dtype", "f32", "--device", "cpu", "--json")
    answers = [json.loads(line) for line in (tmp_path / "answers").read_text().splitlines()]
    by_question = {}
    for sample in samples:
        by_question.setdefault(sample["doc_id"], sample)
    assert len(answers) == len(by_question) == QUESTIONS
    for i, answer in enumerate(answers):
        arguments = by_question[i]["arguments"]
        if isinstance(arguments, dict):
            arguments = [tuple(pair.values()) for pair in arguments.values()]
        assert answer["contexts"] == [context for context, *_ in arguments]
        if task == "gsm8k":
            assert answer["text"] == by_question[i]["resps"][0][0]
            continue
        assert answer["continuations"] == [continuation for _, continuation, *_ in arguments]
        theirs = [float(resp[0][0] if isinstance(resp[0], (list, tuple)) else resp[0]) for resp in by_question[i]["resps"]]
        assert answer["log_likelihoods"] == pytest.approx(theirs, abs=2e-3)
    for name, metric in ours["metrics"].items():
        assert metric["value"] == pytest.approx(metrics[name if "," in name else f"{name},none"], abs=1e-3 if task == "truthfulqa_mc2" else 1e-9)
