"""`open-r1 evaluate` and `open-r1 compare`, as they are typed."""

import base64
import json
import re
import shutil
import zlib

import pyarrow.parquet as pq
import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, save
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1 import evaluate
from open_r1.cli import main
from open_r1.errors import UserError
from open_r1.evaluation import compare as compare_command
from open_r1.evaluation.answers_page import write_report
from open_r1.evaluation.compare import compare


@pytest.fixture
def evaluated(tiny_model, sums, tmp_path):
    def run(name, *options):
        folder = tmp_path / name
        arguments = ["--model", str(tiny_model), "--tasks", str(sums), "--output", str(folder), *options]
        evaluate.main([*arguments, "--max_new_tokens", "8", "--num-samples=2"])
        return folder

    return run


def test_evaluate_writes_and_prints(evaluated, capsys):
    folder = evaluated("a", "--limit", "3")
    results = json.loads((folder / "sums" / "results.json").read_text())
    assert (results["n_problems"], results["num_samples"], results["engine"]) == (3, 2, "transformers")
    assert results["protocol"]["max_new_tokens"] == 8
    out = capsys.readouterr().out
    assert "sums" in out and "3 × 2" in out


def test_options_may_stand_in_a_file(tiny_model, sums, tmp_path):
    options = {"model": str(tiny_model), "tasks": [str(sums)], "output": str(tmp_path / "out"), "max_new_tokens": 8}
    options |= {"protocol": ["greedy"], "limit": 5, "system_prompt": "Add."}
    (tmp_path / "evaluate.yaml").write_text(json.dumps(options))
    evaluate.main(["--config", str(tmp_path / "evaluate.yaml"), "--limit", "2", "--no-system-prompt"])
    results = json.loads((tmp_path / "out" / "sums" / "results.json").read_text())
    assert (results["n_problems"], results["num_samples"], results["protocol"]["system_prompt"]) == (2, 1, None)


def test_the_native_engine_answers_as_transformers_does(tiny_model, sums, tmp_path):
    texts = {}
    for engine in ("native", "transformers"):
        words = ["--model", str(tiny_model), "--tasks", str(sums), "--output", str(tmp_path / engine), "--limit", "3"]
        evaluate.main([*words, "--engine", engine, "--protocol", "greedy", "--max-new-tokens", "8"])
        assert json.loads((tmp_path / engine / "sums/results.json").read_text())["engine"] == engine
        texts[engine] = pq.read_table(tmp_path / engine / "sums/samples.parquet")["completion"].to_pylist()
    assert texts["native"] == texts["transformers"]


def test_both_protocols_by_one_command_give_what_each_gives(evaluated, capsys):
    both = evaluated("both", "--protocol", "greedy,deepseek", "--k", "2", "--limit", "3")
    for protocol, samples in (("greedy", 1), ("deepseek", 2)):
        results = json.loads((both / protocol / "sums" / "results.json").read_text())
        assert (results["num_samples"], results["protocol"]["name"]) == (samples, protocol)
    assert f"open-r1 report {both / 'greedy'}" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(UserError, match="the folder of one protocol in it"):
        write_report(both)
    alone = evaluated("alone", "--limit", "3")
    assert compare(both / "deepseek", alone)[0].difference.value == 0


@pytest.mark.parametrize("wrong", ["greedy,greedy", "beam", ""])
def test_protocols_that_are_not_there_are_named(evaluated, wrong):
    with pytest.raises(UserError, match=r"expected one of deepseek, greedy|give each protocol once"):
        evaluated("a", "--protocol", wrong)


def test_compare_pairs_the_problems(evaluated, capsys):
    a, b = evaluated("a"), evaluated("b", "--seed", "1")
    (comparison,) = compare(a, b)
    assert comparison.n_problems == 6
    assert comparison.difference.value == pytest.approx(comparison.b - comparison.a)
    assert comparison.difference.ci95[0] <= comparison.difference.value <= comparison.difference.ci95[1]
    with pytest.raises(SystemExit) as end:
        main(["compare", str(a), str(b)])
    assert end.value.code == 0
    assert "points" in capsys.readouterr().out


def test_compare_writes_a_page_with_both_answers(evaluated, tmp_path, capsys):
    a, b, page = evaluated("a"), evaluated("b", "--seed", "1"), tmp_path / "page.html"
    compare_command.main([str(a), str(b), "--html", str(page)])
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    html = page.read_text()
    texts = pq.read_table(b / "sums/samples.parquet")["completion"].to_pylist()
    pieces = re.findall(r'id="piece-0-\d">([^<]*)</script>', html)
    assert len(pieces) == 6
    unpacked = json.loads(zlib.decompress(base64.b64decode(pieces[0])))
    assert [sample[0] for sample in unpacked[1]] == texts[:2]
    with pytest.raises(UserError, match="cannot be written"):
        compare_command.main([str(a), str(b), "--html", str(tmp_path / "none" / "page.html")])


def test_compare_refuses_other_problems(evaluated):
    with pytest.raises(UserError, match="have different problems"):
        compare(evaluated("a"), evaluated("b", "--limit", "3"))


def test_compare_refuses_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match="has no finished benchmark"):
        compare(tmp_path, tmp_path)


def test_files_of_another_program_are_named(evaluated):
    folder = evaluated("a", "--limit", "1")
    samples, results = folder / "sums/samples.parquet", folder / "sums/results.json"
    pq.write_table(pq.read_table(samples).drop_columns(["index"]), samples)
    with pytest.raises(UserError, match=r"samples\.parquet has no column 'index'"):
        compare(folder, folder)
    results.write_text('{"task": "sums"}')
    with pytest.raises(UserError, match=r"results\.json has no entry 'model'"):
        write_report(folder)


@pytest.mark.parametrize("name", ["results.json", "samples.parquet", "settings.json"])
def test_a_damaged_file_is_named(evaluated, tmp_path, name):
    folder = evaluated("a", "--limit", "1")
    (folder / "sums" / name).write_bytes(b'{"half')
    with pytest.raises(UserError, match=f"{name} is damaged"):
        evaluated("a", "--limit", "1") if name == "settings.json" else write_report(folder)
    (folder / "sums" / name).unlink()
    evaluated("a", "--limit", "1")
    assert write_report(folder).path.exists()


def test_a_page_that_cannot_be_written_is_a_sentence(evaluated, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"report\.html cannot be written \(Not a directory\)"):
        write_report(evaluated("a", "--limit", "1"), tmp_path / "file" / "report.html")


def without_a_tensor(weights):
    return save(
        {name: tensor for name, tensor in load(weights).items() if "layers.0.self_attn.q_proj.weight" not in name}
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [(lambda weights: weights[:500], "cannot be loaded"), (without_a_tensor, "the weights lack 1 tensors")],
)
def test_weights_that_are_not_whole_are_refused(tiny_model, sums, tmp_path, change, expected):
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=expected):
        evaluate.main(["--model", str(tmp_path / "model"), "--tasks", str(sums)])


def test_lora_adapters_alone_are_not_for_vllm(tiny_model, sums, tmp_path, monkeypatch):
    monkeypatch.setattr("open_r1.engine.choose.gpu_count", lambda: 1)
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    policy.save_pretrained(tmp_path / "lora")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "lora")
    words = ["--model", str(tmp_path / "lora"), "--tasks", str(sums), "--limit", "1", "--max-new-tokens", "4"]
    with pytest.raises(UserError, match="only LoRA adapters"):
        evaluate.main([*words, "--engine", "vllm"])
    evaluate.main(words)
    assert json.loads((tmp_path / "lora/evaluation/sums/results.json").read_text())["engine"] == "transformers"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "{model}", "--tasks", "aime23"], "there is no task 'aime23'"),
        (["--model", "{empty}", "--tasks", "{sums}"], "the folder has no tokenizer"),
        (["--model", "{model}", "--tasks", "{sums},{sums}"], "names of different tasks"),
        (["--model", "{model}", "--tasks", "{sums}", "--engine", "openai"], "give --base-url"),
        (["--model", "{model}", "--tasks", "aime24", "--data-dir", "{empty}"], r"aime24\.jsonl"),
        (["--model", "m", "--tasks", "{sums}", "--base-url", "http://127.0.0.1:1/v1"], "does not answer"),
    ],
)
def test_bad_input_is_one_sentence(tiny_model, sums, tmp_path, capsys, arguments, expected):
    places = {"model": tiny_model, "sums": sums, "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    with pytest.raises(UserError, match=expected):
        evaluate.main([word.format(**places) for word in [*arguments, "--output", str(tmp_path / "out")]])
