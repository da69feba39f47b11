"""Small real runs of the entry scripts on toy models and data, and what they leave behind."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import forked
import torch
from patience import PATIENCE
from safetensors.torch import load_file
from toys import make_model, make_tokenizer

from open_r1.launch.backend_environment import backend_environment

ROOT = Path(__file__).parents[2]
VOLATILE = ("time/", "memory/", "tokens_per_second", "runtime", "per_second")


def make_folder(folder, arch="qwen2", rows=24):
    """`model/`, `problems.jsonl` (problem, answer) and `traces.jsonl` (messages) in `folder`."""
    make_tokenizer(folder / "model", pad=None)
    make_model(folder / "model", arch=arch)
    rng = random.Random(0)
    with (folder / "problems.jsonl").open("w") as problems, (folder / "traces.jsonl").open("w") as traces:
        for i in range(rows):
            a, b = rng.randint(1, 99), rng.randint(1, 99)
            problems.write(json.dumps({"problem": f"What is {a}+{b}?" + " Hm." * (i % 3), "answer": str(a + b)}) + "\n")
            answer = f"<think>\n{a}+{b}={a + b}{' yes' * (i % 5)}\n</think>\n<answer>\n{a + b}\n</answer>"
            turns = [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": answer}]
            traces.write(json.dumps({"messages": turns}) + "\n")
    return folder


def arguments(folder, task, out, **options):
    """The command line of a run of a few steps; a random model's completions differ in `tests/training/odd.py`."""
    data = {"sft": "traces.jsonl", "grpo": "problems.jsonl"}[task]
    settings = {
        "model_name_or_path": folder / "model",
        "dataset_name": folder / data,
        "output_dir": out,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 8,
        "max_steps": 4,
        "save_steps": 2,
        "gradient_checkpointing": "false",
        "use_cpu": "true",
        "seed": 7,
    }
    if task == "grpo":
        settings |= {
            "dataset_prompt_column": "problem",
            "num_generations": 4,
            "max_completion_length": 10,
            "reward_funcs": "odd_rewards:vowels",
        }
    settings |= options
    words = []
    for name, value in settings.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def backend_env(name):
    """What makes torchrun start the backend of `recipes/accelerate_configs/<name>.yaml`, in float32."""
    return backend_environment(ROOT / f"recipes/accelerate_configs/{name}.yaml", processes=2)


def launch(task, argv, processes=1, check=True, env=None, torchrun=False):
    """Runs an entry script in `processes`, which are a group if there are several or `env` chooses a backend. With
    `torchrun` as users start them, which takes longer: to see how they end together."""
    return launch_script(ROOT / "src/open_r1" / f"{task}.py", argv, processes, check, env, torchrun)


def launch_script(script, argv, processes=1, check=True, env=None, torchrun=False):
    """Runs a script as `launch` runs an entry script."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **(env or {})}
    if torchrun:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        command += ["--master_port", str(_free_port()), str(script), *argv]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    else:
        in_group = processes > 1 or "ACCELERATE_MIXED_PRECISION" in (env or {})
        done = forked.run(script, argv, group(environment, processes) if in_group else [environment])
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def group(environment, processes):
    """The variables by which torchrun tells each of its processes which one it is."""
    size = str(processes)
    shared = {
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    return [environment | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def metrics(out):
    """Metrics lines without what depends on the clock."""
    lines = [json.loads(line) for line in (Path(out) / "run/metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not any(word in k for word in VOLATILE)} for line in lines]


def weights(folder):
    """Tensors of a saved model."""
    return load_file(Path(folder) / "model.safetensors")


def assert_same_weights(one, two, atol=0.0):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=atol)


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
