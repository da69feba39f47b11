"""`benchmarks/training.py`: unsloth's case runs in a process of its own, with the same completions and rewards."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = ["--shape", "tiny", "--lora", "--cases", "unsloth", "--checkpointing", "off", "--completions", "8"]
WORDS += ["--group", "4", "--micro_batch", "4", "--median", "20", "--mean", "25", "--cap", "40", "--steps", "2"]
UNSLOTH = """
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

class FastLanguageModel:
    def from_pretrained(name, max_seq_length, dtype, load_in_4bit, use_gradient_checkpointing, local_files_only):
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype), AutoTokenizer.from_pretrained(name)

    def get_peft_model(model, r, lora_alpha, target_modules, use_gradient_checkpointing):
        return get_peft_model(model, LoraConfig(r=r, lora_alpha=lora_alpha, target_modules=target_modules))
"""
TRL = """
import json
from types import SimpleNamespace

GRPOConfig = SFTConfig = SimpleNamespace

class GRPOTrainer:
    def __init__(self, model, reward_funcs, args, train_dataset, processing_class, rollout_func, callbacks):
        self.rewards, self.args, self.callback = reward_funcs, args, callbacks[0]
        self.rollout, self.pad = rollout_func, processing_class.pad_token_id
        self.prompts = [row["prompt"] for row in train_dataset for _ in range(args.num_generations)]

    def remove_callback(self, callback):
        pass

    def _generate_and_score_completions(self, inputs):
        found = self.rollout([row["prompt"] for row in inputs], self)
        scores = [reward(completions=[], **found) for reward in self.rewards]
        print(json.dumps({"options": vars(self.args), "pad": self.pad, "scores": scores} | found))

    def train(self):
        control = SimpleNamespace(should_training_stop=False)
        while not control.should_training_stop:
            self.callback.on_step_begin(self.args, None, control)
            self._generate_and_score_completions([{"prompt": prompt} for prompt in self.prompts])
            self.callback.on_step_end(self.args, None, control)
"""


@pytest.fixture(scope="module")
def training():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("training")


def test_unsloth_gets_the_same_completions_and_rewards(training, tmp_path, capfd):
    (tmp_path / "unsloth.py").write_text(UNSLOTH)
    (tmp_path / "trl.py").write_text(TRL)
    words = [*WORDS, "--unsloth_path", str(tmp_path)]
    (result,) = training.main(words)
    batch = training.draw_batch(training.parse(words))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    seen = json.loads(lines[0])
    assert (result.case, result.error) == ("unsloth, checkpointing off, auto, 4 sequences", None)
    assert result.parameters > 100_000 and len(result.seconds) == 2 and len(lines) == 4
    assert result.tokens == result.computed == [batch.tokens] * 2
    assert seen["prompt_ids"] == [prompt for prompt in batch.prompts for _ in range(4)]
    assert seen["completion_ids"] == [ids for group in batch.completions for ids in group]
    assert seen["scores"] == [[reward for group in batch.rewards for reward in group]]
    assert all(seen["pad"] not in ids for ids in seen["prompt_ids"] + seen["completion_ids"])
    options = seen["options"]
    assert options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] == 8


def test_a_process_that_fails_is_a_result(training, tmp_path):
    (tmp_path / "unsloth.py").write_text("raise ImportError('no GPU')")
    (result,) = training.main([*WORDS, "--unsloth_path", str(tmp_path)])
    assert "training_unsloth.py" in result.error and not result.seconds


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([word for word in WORDS if word != "--lora"], "--cases unsloth needs --lora"),
        ([*WORDS, "--micro_batch", "3"], "--micro_batch 3 does not divide --completions 8"),
    ],
)
def test_options_that_cannot_be_measured_are_refused(training, capsys, words, reason):
    with pytest.raises(SystemExit):
        training.parse(words)
    assert reason in capsys.readouterr().err
