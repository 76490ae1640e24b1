"""The real lm-evaluation-harness asks `octet serve` through its `local-completions` and `local-chat-completions`, and the same
model through transformers in F32: the same log-likelihoods, the same texts, the same metrics."""
import json
import sys

import pytest

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("torch")
pytest.importorskip("tenacity")  # which its clients of servers need

import test_tasks_against_lm_eval as tasks  # noqa: E402

sys.path.insert(0, str(tasks.pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serving import Server  # noqa: E402

MAX_TOKENS = 48
QUESTIONS = 6


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--dtype", "float32", "--kv-cache-dtype", "f32", "--device", "cpu", "--max-model-len", 2048)
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def transformers_model(model):
    return tasks.huggingface.HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1)


def evaluate(lm, task, splits, shots, folder, model_args=None, **options):
    file = tasks.CASES[task][0]
    config = {"include": str(tasks.TASKS / file), "task": f"local_{task}", "dataset_path": "json", "dataset_name": None,
              "dataset_kwargs": {"data_files": splits}}
    (folder / "task.yaml").write_text(json.dumps(config))  # JSON is YAML
    manager = tasks.lm_tasks.TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(model=lm, model_args=model_args, tasks=[f"local_{task}"], num_fewshot=shots, task_manager=manager,
                                      log_samples=True, bootstrap_iters=0, **options)
    return results["results"][f"local_{task}"], results["samples"][f"local_{task}"]


@pytest.fixture
def splits_of(generator, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def make(task):
        _, lines_of, asked, examples, _ = tasks.CASES[task]
        splits = {}
        for split, count in [(asked, QUESTIONS), (examples, 10)]:
            splits[split] = str(tmp_path / f"{split}.jsonl")
            tasks.pathlib.Path(splits[split]).write_text("".join(json.dumps(line) + "\n" for line in lines_of(generator, count)))
        return splits

    return make


def of_server(server, model, route):
    return {"base_url": f"{server.url}/v1/{route}", "model": "smol", "tokenizer": str(model), "tokenizer_backend": "huggingface",
            "num_concurrent": 1, "max_retries": 1, "max_length": 2048}


def scores(samples):
    """(log-likelihood, greedy) of every continuation, in order."""
    pairs = [resp[0] for sample in sorted(samples, key=lambda s: s["doc_id"]) for resp in sample["resps"]]
    return [float(pair[0]) for pair in pairs], [str(pair[1]) for pair in pairs]


def texts(samples):
    by_question = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}
    return [by_question[i] for i in sorted(by_question)]


def numbers(metrics):
    return {name: value for name, value in metrics.items() if isinstance(value, float) and "stderr" not in name}


@pytest.mark.parametrize(("task", "shots"), [("arc_easy", 0), ("hellaswag", 2), ("winogrande", 0)])
def test_local_completions_scores_as_transformers(server, model, transformers_model, splits_of, tmp_path, task, shots):
    splits = splits_of(task)
    metrics, samples = evaluate("local-completions", task, splits, shots, tmp_path, of_server(server, model, "completions"))
    their_metrics, their_samples = evaluate(transformers_model, task, splits, shots, tmp_path)
    ours, greedy = scores(samples)
    theirs, their_greedy = scores(their_samples)
    assert len(ours) >= 2 * QUESTIONS
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert greedy == their_greedy
    assert numbers(metrics) == numbers(their_metrics) and numbers(metrics)


@pytest.mark.parametrize(("name", "route", "as_chat"), [("local-completions", "completions", False),
                                                       ("local-chat-completions", "chat/completions", True)])
def test_generated_answers_are_those_of_transformers(server, model, transformers_model, splits_of, tmp_path, name, route, as_chat):
    splits = splits_of("gsm8k")
    options = {"apply_chat_template": as_chat, "gen_kwargs": {"max_gen_toks": MAX_TOKENS, "temperature": 0, "do_sample": False}}
    metrics, samples = evaluate(name, "gsm8k", splits, 2, tmp_path, of_server(server, model, route), **options)
    their_metrics, their_samples = evaluate(transformers_model, "gsm8k", splits, 2, tmp_path, **options)
    assert texts(samples) == texts(their_samples)
    assert any(texts(samples))
    assert numbers(metrics) == numbers(their_metrics)
