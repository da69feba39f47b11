"""Measures `open-r1 evaluate` on several GPUs: a native engine on each (data parallel), or vLLM over all (tensor
parallel).

    python benchmarks/evaluation_layouts.py --gpus 1 2 --engines native --models SmolLM2-135M-Instruct \
        --data gsm8k_test.jsonl.gz --samples 8 --results evaluation.jsonl
    python benchmarks/evaluation_layouts.py --gpus 1 2 4 --engines vllm --shapes 1.5b 7b \
        --tokenizer SmolLM2-135M-Instruct --data gsm8k_test.jsonl.gz --samples 1 --results evaluation.jsonl
    python benchmarks/evaluation_layouts.py --gpus 1 2 --engines native --models <a tiny model> --data problems.jsonl \
        --problems 16 --samples 2 --max_new_tokens 32                                               # CPU processes
    python benchmarks/evaluation_layouts.py ... --table         # what --results has; measures nothing

Each case is the whole command in a process of its own. Native engines have the same work each (weak scaling): --samples
completions of every problem on each GPU. With vLLM, all GPUs share these. The first rate is that of generation with
grading, once the engines have started, until the last sample is on disk and graded; the second that of the whole
command. A model of a shape has random weights, and ends its completions after about --mean tokens at temperature 1.
vLLM needs a number of attention heads that the GPUs divide; other cases are left out. A case that fails or is cut is a
row too; the end of its log follows.
Results are appended as they come; a case that does not fit into the rest of --time_budget is left out, and the same
command measures what --results lacks.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grpo import save_model
from measure import SHAPES
from session import Session, add_options, choose_logs, end_of_log

from open_r1.devices import visible_devices
from open_r1.processes.child import ChildProcess, describe_exit

SETTINGS = ("data", "problems", "samples", "max_new_tokens", "max_num_seqs", "mean", "memory", "eager")
"""Options that a result depends on, besides its case."""
LAYOUTS = {"native": "native engines", "vllm": "vLLM, tensor parallel"}
HEAD = (
    "| {model} | GPUs | samples | tokens/s | per GPU, of one | of the whole command | start-up, s | generating, s | |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: | --- |"
)


def cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases, model by model and engine by engine, fewest GPUs first."""
    heads = {name: json.loads((Path(name) / "config.json").read_text())["num_attention_heads"] for name in args.models}
    heads |= {shape: SHAPES[shape][3] for shape in args.shapes}
    return [
        {"model": Path(model).name, "engine": engine, "gpus": gpus}
        for model, count in heads.items()
        for engine in args.engines
        for gpus in args.gpus
        if engine == "native" or count % gpus == 0
    ]


class Evaluations(Session):
    """The cases of this benchmark."""

    first_seconds = 40.0

    def __init__(self, args: argparse.Namespace, folders: dict[str, Path]) -> None:
        super().__init__(args, SETTINGS)
        self.folders = folders
        """The folder of each model; those of shapes are written when they are needed."""

    def name(self, case: dict[str, Any]) -> str:
        """A case in words."""
        return f"{case['model']}, {LAYOUTS[case['engine']]}, {case['gpus']} GPU{'s' * (case['gpus'] > 1)}"

    def head(self, case: dict[str, Any]) -> str:
        """A table for each model."""
        return HEAD.format(model=case["model"])

    def cells(self, case: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """Rates with and without start-up, and the rate per GPU as a share of that of one GPU."""
        first = [LAYOUTS[case["engine"]], str(case["gpus"])]
        if "tokens" not in result:
            return [*first, *["-"] * 6]
        rate, one = rate_of(result), rate_of(self.get(case | {"gpus": 1}))
        return [
            *first,
            f"{result['samples']:,}",
            f"{rate:,.0f}",
            f"{rate / case['gpus'] / one:.1%}" if one else "-",
            f"{result['tokens'] / result['whole_seconds']:,.0f}",
            f"{result['whole_seconds'] - result['seconds']:.1f}",
            f"{result['seconds']:.1f}",
        ]

    def launch(self, case: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Runs the command."""
        args, gpus, model = self.args, case["gpus"], self.folders[case["model"]]
        if not model.exists():
            save_model(case["model"], args.tokenizer, args.mean, str(model))
        slug = self.name(case).replace(", ", "-").replace(" ", "-")
        log = args.logs / f"{slug}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        native = case["engine"] == "native"
        samples = args.samples * (gpus if native else 1)
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "open_r1.cli", "evaluate", "--model", str(model)]
            words += ["--tasks", args.data, "--num-samples", str(samples), "--output", folder]
            words += ["--max-new-tokens", str(args.max_new_tokens), "--max-num-seqs", str(args.max_num_seqs)]
            if case["model"] in SHAPES:  # otherwise the end of a completion, its likeliest token, would come at once
                words += ["--temperature", "1", "--top-p", "1"]
            words += ["--engine", case["engine"]]
            words += ["--data-parallel-size", str(gpus if native else 1)]
            words += ["--tensor-parallel-size", str(1 if native else gpus)]
            words += ["--limit", str(args.problems)] if args.problems else []
            words += ["--gpu-memory-utilization", str(args.memory)] if args.memory else []
            words += ["--enforce-eager"] if args.eager else []
            variables = {"CUDA_VISIBLE_DEVICES": ",".join(visible_devices()[:gpus])}
            began = time.perf_counter()
            with ChildProcess(slug, words, variables, log) as child:
                code = child.wait(timeout)
                whole = time.perf_counter() - began
            found = list(Path(folder).glob("*/results.json"))
            results = json.loads(found[0].read_text()) if found else {}
        if code != 0 or not results:
            ended = f"not finished after {timeout:.0f} s" if code is None else f"ended with {describe_exit(code)}"
            return {"cut" if code is None else "error": ended, "log": end_of_log(log)}
        count = results["n_problems"] * results["num_samples"]
        return {
            "samples": count,
            "tokens": round(results["mean_tokens"] * count),
            "seconds": results["seconds"],
            "whole_seconds": whole,
            "pass@1": results["pass@1"],
        }


def rate_of(result: dict[str, Any]) -> float:
    """Tokens/s once the engines have started; 0 without a result."""
    return result["tokens"] / result["seconds"] if "tokens" in result else 0.0


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="on a CPU: processes")
    parser.add_argument("--engines", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--models", nargs="*", default=[], help="model folders")
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), default=[], help="random weights of these shapes")
    parser.add_argument("--tokenizer", help="with --shapes: the folder of a tokenizer with a chat template")
    parser.add_argument("--mean", type=float, default=400, help="--shapes: mean completion, tokens, before the limit")
    parser.add_argument("--data", required=True, help="a file of problems with answers, or a task")
    parser.add_argument("--problems", type=int, help="use only the first ones")
    parser.add_argument("--samples", type=int, default=4, help="completions per problem, with native engines per GPU")
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--max_num_seqs", type=int, default=512, help="completions that an engine decodes at once")
    parser.add_argument("--memory", type=float, help="share of a GPU's memory")
    parser.add_argument("--eager", action="store_true", help="starts faster, decodes slower")
    add_options(parser, case_timeout=200)
    args = parser.parse_args(argv)
    if not args.models and not args.shapes:
        parser.error("give --models, or --shapes with --tokenizer")
    if args.shapes and not args.tokenizer:
        parser.error("--shapes needs --tokenizer")
    return args


def main(argv: list[str] | None = None) -> None:
    """Measures every case that is not there yet."""
    args = parse(sys.argv[1:] if argv is None else argv)
    choose_logs(args)
    with tempfile.TemporaryDirectory() as folder:
        folders = {Path(model).name: Path(model) for model in args.models}
        folders |= {shape: Path(folder, shape) for shape in args.shapes}
        Evaluations(args, folders).run(cases(args))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main()
