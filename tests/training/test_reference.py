"""One optimizer step of the real trainers equals the padded reference of `reference.py`: loss and every gradient.

Whoever adds an option that changes the loss adds it to the reference and to the table here.
"""

import copy
import itertools
import json
import math
import random
from collections import Counter

import pytest
import reference
import replay
import torch
from reference import Rollout
from runs import launch_script
from toys import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

GRPO = """
loss_type  level     scale  steps  passes  epsilon  high  delta  beta  kl_ratio  temperature  masked  correction         cap
dapo       token     group  1      2       0.1      -     1.3    0     yes       1            no      sequence_mask      1.5
dapo       token     group  1      2       0.1      0.28  1.3    0.04  no        1            no      sequence_truncate  3
dapo       token     batch  2      2       0.2      -     -      0.04  yes       1            yes     token_truncate     1.5
dapo       sequence  batch  2      1       0.1      -     -      0     yes       0.7          yes     token_mask         1.5
dapo       sequence  none   1      1       0.2      -     -      0.04  no        1            no      -                  3
grpo       token     group  2      2       0.2      0.28  -      0.04  no        0.7          yes     token_truncate     3
grpo       token     batch  1      2       0.1      0.28  1.3    0.04  no        1            no      -                  3
grpo       token     batch  2      1       0.2      0.28  1.3    0.04  no        1            no      token_mask         3
grpo       sequence  batch  1      1       0.2      -     -      0     yes       0.7          yes     sequence_truncate  1.5
grpo       sequence  none   2      1       0.1      0.28  1.3    0.04  yes       0.7          yes     sequence_mask      1.5
bnpo       token     none   2      1       0.1      0.28  1.3    0.04  yes       0.7          no      token_truncate     1.5
bnpo       sequence  group  1      1       0.2      -     -      0.04  no        0.7          yes     sequence_mask      3
bnpo       sequence  group  2      2       0.2      0.28  1.3    0     yes       0.7          no      sequence_truncate  1.5
bnpo       sequence  group  2      2       0.1      0.28  -      0     yes       1            yes     token_mask         3
bnpo       sequence  batch  2      2       0.1      -     1.3    0.04  no        1            yes     -                  3
dr_grpo    token     group  2      1       0.1      -     -      0     yes       0.7          no      -                  3
dr_grpo    token     batch  1      2       0.2      -     1.3    0.04  no        0.7          yes     sequence_mask      1.5
dr_grpo    sequence  none   1      2       0.1      -     1.3    0     yes       1            yes     token_truncate     1.5
dr_grpo    sequence  none   1      2       0.1      0.28  1.3    0.04  yes       1            no      token_mask         1.5
dr_grpo    sequence  none   2      2       0.2      -     1.3    0.04  yes       0.7          yes     sequence_truncate  3
"""  # noqa: E501
"""Every two values that can meet in one run meet in a row. `steps` is `steps_per_generation`, `passes` is
`num_iterations`; clipping needs more than one step a round, and `kl_ratio` a `beta`. `-` is off."""
CISPO = """
loss_type  level     scale  steps  passes  epsilon  high  delta  beta  kl_ratio  temperature  masked  correction         cap
cispo      token     group  2      2       -        1.02  -      0     yes       1            no      token_truncate     3
cispo      token     batch  1      2       -        1.02  -      0.04  yes       0.7          yes     sequence_mask      1.5
cispo      sequence  none   2      2       -        1.02  -      0.04  no        1            no      token_mask         1.5
cispo      sequence  group  2      1       -        1.02  -      0     yes       0.7          yes     -                  3
"""  # noqa: E501
"""Apart from the rest, because `epsilon` and `delta` have no meaning for it, and `high` another one."""

DEFAULTS = {
    "num_generations": 4,
    "max_completion_length": 12,
    "temperature": 1.0,
    "beta": 0.0,
    "use_bias_correction_kl": True,
    "num_iterations": 1,
    "epsilon": 0.2,
    "epsilon_high": None,
    "delta": None,
    "loss_type": "dapo",
    "importance_sampling_level": "token",
    "scale_rewards": "group",
    "mask_truncated_completions": False,
    "vllm_importance_sampling_correction": True,
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 3.0,
}
COLUMNS = {
    "loss_type": ("loss_type", str),
    "level": ("importance_sampling_level", str),
    "scale": ("scale_rewards", str),
    "steps": ("steps_per_generation", int),
    "passes": ("num_iterations", int),
    "epsilon": ("epsilon", float),
    "high": ("epsilon_high", float),
    "delta": ("delta", float),
    "beta": ("beta", float),
    "kl_ratio": ("use_bias_correction_kl", lambda word: word == "yes"),
    "temperature": ("temperature", float),
    "masked": ("mask_truncated_completions", lambda word: word == "yes"),
    "correction": ("vllm_importance_sampling_mode", str),
    "cap": ("vllm_importance_sampling_clip_max", float),
}

SFT = {
    "documents": {},
    "packed": {"packing": True},
    "all_tokens": {"completion_only_loss": False},
    "packed_all_tokens": {"packing": True, "completion_only_loss": False},
}
MAX_LENGTH = 40
"""Of SFT documents: the longest of `TEXTS` are cut."""
TEXTS = [
    {"prompt": f"What is {a} + {b}?" + " Hm." * (a % 3), "completion": f" Let us add: {a + b}." + " Yes." * (5 * b)}
    for a, b in [(1, 0), (2, 1), (3, 2), (4, 0), (5, 3), (6, 1), (7, 0)]
]


def parse_table(table, first=1):
    header, *lines = table.strip().splitlines()
    rows = {}
    for number, line in enumerate(lines, first):
        words = dict(zip(header.split(), line.split(), strict=True))
        options = {COLUMNS[name][0]: COLUMNS[name][1](word) for name, word in words.items() if word != "-"}
        if words["correction"] == "-":
            options["vllm_importance_sampling_correction"] = False
        rows[f"{number:02}-{words['loss_type']}-{words['level']}-{words['correction']}"] = options
    return rows


ROWS = parse_table(GRPO)
ROWS |= parse_table(CISPO, first=len(ROWS) + 1)
ALL_ROWS = {name: ("grpo", options) for name, options in ROWS.items()}
ALL_ROWS |= {name: ("sft", {"max_length": MAX_LENGTH} | options) for name, options in SFT.items()}

OUTCOMES = [
    [(0.0, "stop"), (1.0, "stop"), (1.0, "stop"), (0.25, "length")],
    [(1.0, "stop"), (1.0, "stop"), (1.0, "length"), (1.0, "stop")],  # no signal
    [(0.0, "error"), (1.0, "stop"), (0.5, "length"), (0.0, "stop")],
    [(0.3, "stop"), (math.nan, "stop"), (0.9, "stop"), (0.1, "length")],  # one without a verdict
    [(0.0, "stop"), (0.0, "error"), (0.0, "length"), (0.0, "stop")],  # no signal
    [(1.0, "stop"), (0.0, "empty"), (0.0, "stop"), (1.0, "length")],
    [(0.2, "length"), (0.4, "stop"), (0.1, "length"), (0.1, "stop")],
    [(1.0, "stop"), (math.nan, "stop"), (1.0, "stop"), (1.0, "stop")],  # no signal among the verdicts
]
"""Reward and finish reason of four completions to each of eight prompts; an `empty` one is an error at once."""


def record_rollouts(model):
    """A round whose sampler was noisy: for one token in five its probability was a fifth of the trainer's."""
    rng = random.Random(0)
    rollouts = []
    for number, group in enumerate(OUTCOMES):
        prompt = [10 + number, *(rng.randrange(3, 15) for _ in range(rng.randrange(1, 6)))]
        for reward, finish_reason in group:
            completion = [rng.randrange(3, 15) for _ in range(0 if finish_reason == "empty" else rng.randrange(1, 10))]
            logprobs, learned = reference.token_logprobs(model, [(prompt, completion)])
            noise = [rng.gauss(0, 0.3) - (1.6 if rng.random() < 0.2 else 0.0) for _ in completion]
            sampled = [x + e for x, e in zip(logprobs[learned.bool()].tolist(), noise, strict=True)]
            finish_reason = finish_reason.replace("empty", "error")
            rollouts.append(Rollout(prompt, completion, sampled, reward, finish_reason))
    return rollouts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, recorded rollouts and texts."""
    folder = tmp_path_factory.mktemp("reference")
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "initializer_range": 0.25}
    for name, seed in (("policy", 0), ("reference", 1)):
        make_tokenizer(folder / name, pad=None)
        make_model(folder / name, "llama", seed=seed, tie_word_embeddings=False, **small)
    with torch.no_grad():
        rollouts = record_rollouts(AutoModelForCausalLM.from_pretrained(folder / "policy"))
    (folder / "rollouts.json").write_text(json.dumps(rollouts))
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """What the reference says about options: `(loss, gradients)` of every step."""
    models = [AutoModelForCausalLM.from_pretrained(folder / name) for name in ("policy", "reference")]
    rollouts = [Rollout(*r) for r in json.loads((folder / "rollouts.json").read_text())]

    def steps(steps_per_generation=1, **options):
        size = len(rollouts) // steps_per_generation
        batches = [rollouts[i : i + size] for i in range(0, len(rollouts), size)]
        policy, options = copy.deepcopy(models[0]), DEFAULTS | options
        return list(reference.train_grpo(policy, models[1], batches, replay.LEARNING_RATE, options))

    return steps


def assert_equal_steps(found, wanted, row=""):
    assert len(found) == len(wanted)
    for (loss, gradients), (wanted_loss, wanted_gradients) in zip(found, wanted, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-4, abs=1e-5), row
        assert gradients.keys() == wanted_gradients.keys()
        for name, gradient in gradients.items():
            error = (gradient - wanted_gradients[name]).abs().max()
            assert error <= 1e-3 * wanted_gradients[name].abs().max() + 1e-7, (row, name)


def differ(one, two):
    """Whether some step's loss or gradients differ by more than what rounding could explain."""
    for (loss, gradients), (other, others) in zip(one, two, strict=True):
        norm = max(g.norm() for g in gradients.values())
        if abs(loss - other) > 1e-3 or any((g - others[n]).norm() > 1e-2 * norm for n, g in gradients.items()):
            return True
    return False


@pytest.mark.parametrize("row", ROWS)
def test_grpo_steps_equal_the_reference(folder, expected, row):
    assert_equal_steps(replay.grpo_steps(folder, **ROWS[row]), expected(**ROWS[row]))


def test_each_option_matters(expected):
    """In three rows or more the reference computes something else with the default: who ignores an option is caught."""
    stated, matters = set(), Counter()
    for options in ROWS.values():
        with_it = expected(**options)
        for name, value in options.items():
            if name in ("steps_per_generation", "num_iterations") or value == DEFAULTS[name]:
                continue
            stated.add((name, value))
            if matters[name, value] < 3:
                matters[name, value] += differ(with_it, expected(**{**options, name: DEFAULTS[name]}))
    few = {option for option in stated if matters[option] < 3}
    assert few == {("loss_type", "bnpo")}  # which equals dapo by definition


def test_later_passes_really_clip(expected):
    for row, options in ROWS.items():
        if options["num_iterations"] > 1:
            unclipped = expected(**{**options, "epsilon": 1e6, "epsilon_high": 1e6, "delta": None})
            assert differ(expected(**options)[-1:], unclipped[-1:]), row


def test_the_rows_hold_every_pair_of_values_that_can_meet():
    lines = [line.split() for line in GRPO.strip().splitlines()]
    header, rows = lines[0], lines[1:]
    values = {name: {row[i] for row in rows} for i, name in enumerate(header)}
    seen = {pair for row in rows for pair in itertools.combinations(zip(header, row, strict=True), 2)}
    pairs = {
        pair
        for one, two in itertools.combinations(header, 2)
        for pair in itertools.product(((one, v) for v in values[one]), ((two, v) for v in values[two]))
    }
    assert pairs - seen == {
        (("beta", "0"), ("kl_ratio", "no")),
        (("correction", "-"), ("cap", "1.5")),
    }


def sft_reference(folder, completion_only_loss=True, packing=None):
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    documents = []
    for text in TEXTS:
        prompt, completion = (tokenizer(text[part])["input_ids"] for part in ("prompt", "completion"))
        whole = [*prompt, *completion, tokenizer.eos_token_id][:MAX_LENGTH]
        start = len(prompt) if completion_only_loss else 1
        documents.append((whole[:start], whole[start:]))
    assert any(len(prompt) + len(completion) == MAX_LENGTH for prompt, completion in documents)
    model = AutoModelForCausalLM.from_pretrained(folder / "policy")
    loss = reference.sft_loss(model, documents)
    return [(loss.item(), reference.sgd_step(model, loss, 0.0))]


@pytest.mark.parametrize("row", SFT)
def test_an_sft_step_equals_the_reference(folder, row):
    assert_equal_steps(replay.sft_steps(folder, max_length=MAX_LENGTH, **SFT[row]), sft_reference(folder, **SFT[row]))


@pytest.mark.parametrize(("processes", "sizes", "every"), [(2, [1], 1), (4, [2, 4], 4)])
def test_steps_of_several_processes_equal_the_reference(folder, expected, processes, sizes, every):
    """Rows by processes that are started once, of which so many (`sizes`) share each pack."""
    rows = dict(list(ALL_ROWS.items())[::every])
    (folder / "rows.json").write_text(json.dumps(rows))
    launch_script(replay.__file__, [folder / "rows.json", folder / "found.pt", *sizes], processes)
    found = torch.load(folder / "found.pt")
    assert set(found) == set(itertools.product(sizes, rows))
    for row, (task, options) in rows.items():
        wanted = expected(**options) if task == "grpo" else sft_reference(folder, **SFT[row])
        for size in sizes:
            assert_equal_steps(found[size, row], wanted, f"{row}, packs shared by {size}")
