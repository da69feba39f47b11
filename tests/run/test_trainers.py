"""`GRPOTrainer` and `SFTTrainer` from Python: what the commands do, with models, rows and rewards of the caller."""

import json
import os
import signal

import odd_rewards
import pytest
import torch
from datasets import Dataset
from runs import arguments, assert_same_weights, make_folder, metrics, weights
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from open_r1 import GRPOConfig, GRPOTrainer, Interrupted, ModelConfig, SFTConfig, SFTTrainer, UserError, grpo, sft
from open_r1.engine.transformers_engine import ReplicaEngine, TransformersEngine
from open_r1.report.recorder import read_rollouts

TRAINERS = {"grpo": (GRPOTrainer, GRPOConfig, grpo.main), "sft": (SFTTrainer, SFTConfig, sft.main)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def rows(folder, task="grpo"):
    """Problems with their text in `prompt`, or traces."""
    lines = (folder / {"grpo": "problems.jsonl", "sft": "traces.jsonl"}[task]).read_text().splitlines()
    loaded = [json.loads(line) for line in lines]
    return [{"prompt": row.pop("problem"), **row} for row in loaded] if task == "grpo" else loaded


def config(task, out, **options):
    """The configuration that `runs.arguments` gives to the command, for two steps."""
    values = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "max_steps": 2, "save_steps": 2, "seed": 7}
    values |= {"gradient_checkpointing": False, "use_cpu": True}
    if task == "grpo":
        values |= {"num_generations": 4, "max_completion_length": 10}
    return TRAINERS[task][1](str(out), **values | options)


def trainer_of(folder, task, out, model=None, data=None, reward_funcs=odd_rewards.vowels, options=None, **named):
    """A trainer of a few steps on the toy data; `named` go to it, `options` to its configuration."""
    if task == "grpo":
        named["reward_funcs"] = reward_funcs
    kind = TRAINERS[task][0]
    data = rows(folder, task) if data is None else data
    return kind(model or folder / "model", config(task, out, **options or {}), train_dataset=data, **named)


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_python_trains_what_the_command_trains(folder, tmp_path, task):
    options = {"max_steps": 2, "packing": True} if task == "sft" else {"max_steps": 2, "beta": 0.1}
    TRAINERS[task][2](arguments(folder, task, tmp_path / "command", **options))
    trainer = trainer_of(folder, task, tmp_path / "python", options=options)
    result = trainer.train()
    assert result.global_step == 2 and "train_loss" in result.metrics
    assert_same_weights(tmp_path / "command", tmp_path / "python")

    def figures(name):
        lines = metrics(tmp_path / name)
        return [{k.replace("odd_rewards:", ""): v for k, v in line.items()} for line in lines]

    assert figures("command") == figures("python") and len(figures("python")) == 2
    for file in ("checkpoint-2/trainer_state.json", "run/config.yaml", "README.md", "tokenizer.json"):
        assert (tmp_path / "python" / file).exists(), file


def test_rewards_of_ones_own_read_columns_and_stand_beside_registered_ones(folder, tmp_path):
    asked = []

    def digits(prompts, completions, answer, **columns):
        asked.extend(zip(prompts, answer, strict=True))
        return [float(len(set(c[-1]["content"]))) for c in completions]

    class Length:
        def __call__(self, completions, **columns):
            return [len(c[-1]["content"]) / 10 for c in completions]

    options = {"max_steps": 1, "reward_weights": [1.0, 0.5, 1.0]}
    trainer_of(folder, "grpo", tmp_path, reward_funcs=[digits, Length(), "accuracy"], options=options).train()
    golds = {row["prompt"]: row["answer"] for row in rows(folder)}
    assert asked and all(golds[prompt[-1]["content"]] == answer for prompt, answer in asked)
    table = read_rollouts(tmp_path / "run").to_pylist()
    assert len(table) == 8
    for row in table:
        assert row["reward"] == pytest.approx(
            row["reward/digits"] + 0.5 * row["reward/Length"] + row["reward/accuracy"]
        )
        assert row["reward/digits"] == len(set(row["completion"]))
    assert {"rewards/digits/mean", "rewards/Length/mean", "rewards/accuracy/mean"} <= metrics(tmp_path)[0].keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_is_trained_in_place_as_from_its_folder(folder, tmp_path, dtype):
    half = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    half.save_pretrained(tmp_path / "saved")
    AutoTokenizer.from_pretrained(folder / "model").save_pretrained(tmp_path / "saved")
    options = {"beta": 0.1, "learning_rate": 0.01}  # so that the reference differs from the policy in step 2
    trainer_of(folder, "grpo", tmp_path / "by-name", model=str(tmp_path / "saved"), options=options).train()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=dtype)
    trainer = trainer_of(folder, "grpo", tmp_path / "loaded", model=loaded, options=options)
    trainer.train()
    assert trainer.model is loaded and loaded.dtype == torch.float32
    assert_same_weights(tmp_path / "by-name", tmp_path / "loaded")
    assert metrics(tmp_path / "by-name") == metrics(tmp_path / "loaded")
    assert metrics(tmp_path / "loaded")[1]["kl"] > 0


@pytest.mark.parametrize("bf16", [False, True])
def test_the_model_of_one_training_goes_on_in_another(folder, tmp_path, bf16):
    first = trainer_of(folder, "sft", tmp_path / "sft", options={"bf16": True, "max_steps": 1, "mlp_chunk_tokens": 8})
    first.train()
    options = {"max_steps": 1, "mlp_chunk_tokens": 8, "bf16": bf16}
    fresh = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    fresh.load_state_dict(first.model.state_dict())
    trainer_of(folder, "grpo", tmp_path / "fresh", model=fresh, options=options).train()
    trainer_of(folder, "grpo", tmp_path / "same", model=first.model, options=options).train()
    assert_same_weights(tmp_path / "fresh", tmp_path / "same")
    assert weights(tmp_path / "sft")["model.norm.weight"].dtype == torch.bfloat16


def test_a_model_from_nowhere_needs_a_tokenizer_which_stays_as_it_is(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    nameless = type(model)(model.config)
    nameless.config.name_or_path = ""
    with pytest.raises(UserError, match="tokenizer is missing: the model was not loaded from a folder"):
        trainer_of(folder, "sft", tmp_path, model=nameless)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    template = tokenizer.chat_template
    options = {"max_steps": 1, "chat_template": template.replace("<|im_start|>", "<|im_start|>:")}
    trainer = trainer_of(folder, "sft", tmp_path, model=nameless, tokenizer=tokenizer, options=options)
    trainer.train()
    assert tokenizer.chat_template == template != trainer.processing_class.chat_template
    assert weights(tmp_path)


def test_lora_is_asked_for_with_a_model_config(folder, tmp_path):
    options = ModelConfig(str(folder / "model"), use_peft=True, lora_r=2)
    trainer_of(folder, "sft", tmp_path, model=options, options={"max_steps": 1}).train()
    assert (tmp_path / "adapter_config.json").exists()


@pytest.mark.parametrize("form", ["text", "messages", "dataset", "column"])
def test_prompts_are_text_or_messages_in_lists_or_datasets(folder, tmp_path, form):
    data, named = rows(folder), {"system_prompt": "Add."}
    if form == "messages":
        turns = [{"role": "system", "content": "Add."}]
        data = [{**row, "prompt": [*turns, {"role": "user", "content": row["prompt"]}]} for row in data]
        named = {}
    if form == "column":
        data = [{"problem": row["prompt"], "answer": row["answer"]} for row in data]
        named["dataset_prompt_column"] = "problem"
    trainer = trainer_of(folder, "grpo", tmp_path, data=Dataset.from_list(data) if form == "dataset" else data, **named)
    expected = [
        f"<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        for row in rows(folder)
    ]
    assert trainer.train_dataset["prompt_text"][:] == expected
    assert trainer.train_dataset["answer"][:] == [row["answer"] for row in rows(folder)]


def test_columns_that_some_rows_lack_are_empty_there(folder, tmp_path):
    data = rows(folder)
    data[3]["hint"] = "carry the one"
    trainer = trainer_of(folder, "grpo", tmp_path, data=data)
    assert [i for i, hint in enumerate(trainer.train_dataset["hint"][:]) if hint is not None] == [3]


def test_rows_that_are_handed_over_are_not_changed(folder, tmp_path):
    data = Dataset.from_list(rows(folder)).with_format("torch")
    data.info.description = "mine"
    trainer_of(folder, "grpo", tmp_path, data=data)
    assert data.column_names == ["prompt", "answer"] and data.info.description == "mine"
    assert data.format["type"] == "torch"


def test_an_interrupted_training_goes_on_with_the_same_call(folder, tmp_path, capfd):
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    trainer_of(folder, "grpo", tmp_path / "whole", options=options).train()

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1 and not stopped:
                stopped.append(os.kill(os.getpid(), signal.SIGINT))

    stopped = []
    before = signal.getsignal(signal.SIGINT)
    trainer = trainer_of(folder, "grpo", tmp_path / "stopped", options=options, callbacks=[Stop()])
    with pytest.raises(Interrupted, match="Stopped after step 2"):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer.train().global_step == 3
    assert "step 2 of 3" in capfd.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")

    again = trainer_of(folder, "grpo", tmp_path / "whole", options=options)  # another process, a finished run
    assert again.train().global_step == 3
    assert "This run is finished" in capfd.readouterr().out
    named = trainer_of(folder, "grpo", tmp_path / "whole", options=options)
    assert named.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-1")).global_step == 3
    assert "step 1 of 3" in capfd.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    with pytest.raises(UserError, match="resume_from_checkpoint is False, but runs continue automatically"):
        named.train(resume_from_checkpoint=False)
    assert len(metrics(tmp_path / "whole")) == 3


@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_models_are_evaluated_before_and_after_on_any_rows(folder, tmp_path, task):
    held_out = rows(folder, task)[:4]
    trainer = trainer_of(folder, task, tmp_path, eval_dataset=held_out, options={"max_steps": 1})
    name = {"sft": "eval_loss", "grpo": "eval_reward"}[task]
    before = trainer.evaluate()
    assert trainer.evaluate(held_out)[name] == before[name]
    assert trainer.evaluate(Dataset.from_list(rows(folder, task)[4:]), metric_key_prefix="test").keys() >= {
        name.replace("eval", "test")
    }
    assert not (tmp_path / "run/metrics.jsonl").exists()
    trainer.train()
    after = trainer.evaluate()
    assert after[name] != before[name]
    lines = metrics(tmp_path)
    assert ["loss" in line for line in lines] == [True, False] and lines[1][name] == after[name]
    bare = trainer_of(folder, task, tmp_path / "bare", options={"max_steps": 1})
    with pytest.raises(UserError, match="eval_dataset is missing: give it to evaluate, or to the trainer"):
        bare.evaluate()


def test_an_engine_that_is_given_writes_with_the_policys_weights_and_stays_open(folder, tmp_path):
    class Counting(ReplicaEngine):
        updates = closed = 0

        def update_weights(self, named_tensors, version):
            self.updates += 1
            super().update_weights(named_tensors, version)

        def close(self):
            self.closed += 1

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    random = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "model"))
    engine = Counting(random, tokenizer)
    trainer = trainer_of(folder, "grpo", tmp_path / "given", engine=engine)
    trainer.train()
    trainer.close()
    assert (engine.updates, engine.closed) == (2, 0)
    own = trainer_of(folder, "grpo", tmp_path / "own")
    own.train()
    assert isinstance(own.engine, TransformersEngine)
    assert_same_weights(tmp_path / "given", tmp_path / "own", atol=1e-5)


def test_a_model_can_be_saved_anywhere(folder, tmp_path):
    trainer = trainer_of(folder, "sft", tmp_path / "out", options={"max_steps": 1})
    trainer.train()
    trainer.save_model(str(tmp_path / "copy"))
    assert_same_weights(tmp_path / "out", tmp_path / "copy")
    assert (tmp_path / "copy/tokenizer.json").exists()


def test_without_arguments_the_folder_is_named_after_the_model(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = SFTTrainer(folder / "model", train_dataset=rows(folder, "sft"))
    assert trainer.args.output_dir == "model-SFT" and trainer.args.learning_rate == SFTConfig("x").learning_rate


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"reward_funcs": []}, r"reward_funcs is \[\]: expected a function"),
        ({"reward_funcs": 3}, "reward_funcs is 3: expected a function"),
        ({"reward_funcs": ["accuracy", 3]}, "reward_funcs: 3 is neither a function nor the name"),
        ({"reward_funcs": "acuracy"}, "there is no reward 'acuracy'. Did you mean 'accuracy'"),
        ({"reward_funcs": [lambda completions: 1, lambda completions: 2]}, "two rewards have the name '<lambda>'"),
        ({"train_dataset": None}, "train_dataset is missing: expected a datasets.Dataset"),
        ({"train_dataset": []}, "train_dataset is an empty list"),
        ({"train_dataset": "problems.jsonl"}, "train_dataset is a str: expected a datasets.Dataset"),
        ({"train_dataset": [{"task": "1+1?", "answer": "2"}]}, "train_dataset: there is no column prompt, problem"),
        (
            {"train_dataset": [{"prompt": "1+1?", "answer": ""}]},
            "train_dataset, row 1, column answer: the right answer",
        ),
        ({"train_dataset": [{"prompt": "1?", "a": 1}, {"prompt": "2?", "a": "x"}]}, "a column has values of different"),
        ({"eval_dataset": []}, "eval_dataset is an empty list"),
        ({"model": None}, "model is a NoneType: expected a hub id, a folder, a ModelConfig or a loaded model"),
        ({"args": {"max_steps": 1}}, r"args is a builtins.dict: expected an open_r1.GRPOConfig"),
        ({"engine": object()}, "engine is a object, which cannot take over the weights of a policy"),
        ({"sistem_prompt": "Add."}, "unknown option 'sistem_prompt'. Did you mean 'system_prompt'"),
        ({"peft_config": {}}, "unknown option 'peft_config'"),
        ({"dry_run": True}, "dry_run is true, which only the commands"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_leaves_no_folder(folder, tmp_path, named, said):
    right = {"model": folder / "model", "args": config("grpo", tmp_path / "out"), "reward_funcs": "accuracy"}
    with pytest.raises(UserError, match=said) as raised:
        GRPOTrainer(**{**right, "train_dataset": rows(folder), **named})
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_an_evaluation_that_has_no_rows_is_refused(folder, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1}
    with pytest.raises(UserError, match="eval_strategy needs an evaluation set: give eval_dataset"):
        trainer_of(folder, "sft", tmp_path, options=options)
