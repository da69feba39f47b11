"""Looks into the native engine: what a decoding step is made of, how fast its attention reads, how soon it starts, and
how near its logprobs are to the trainer's.

    python benchmarks/native.py profile --shape 1.5b --sequences 512 --copy training [--top-p 0.95]    # a GPU
    python benchmarks/native.py attention --sequences 8 64 --context 16384                             # a GPU
    python benchmarks/native.py start [--model FOLDER] [--vllm]
    python benchmarks/native.py trainer --model src/open_r1/demo/base
    python benchmarks/native.py trainer --model SmolLM2-135M-Instruct --data gsm8k_train.jsonl.gz --tokens 256 [--vllm]
    python benchmarks/native.py trainer --shape 135m --rounds 40

`start` times fresh processes from the end of their imports, and from their beginning, to the first token, with 1,024
sequences and every graph: with empty caches of compiled code, with what the first has left in them, and without
compilation. Weights are read from a folder, which random ones are written to first. It also prints the parts.

`trainer` samples 16 completions of 16 random prompts (or of 32 problems of `--data`) with each copy of a float32
policy, and with vLLM; the policy scores them under bfloat16 autocast, packed, as GRPO does. Then it updates and samples
`--rounds` times and shows the memory. A shape's random weights are enlarged 2.5 times, so that tokens are far from
equally likely.
"""

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from generation import floor_seconds, save_model
from measure import SHAPES, build_model, memory_bandwidth, synchronize
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.native.loop import STEPS
from open_r1.engine.native.model import training_copy
from open_r1.engine.protocol import Request, Sampling
from open_r1.modeling.attention import ATTENTION
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack, plan_packs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPT = 12
GROUP = 16
VLLM = {"max_num_seqs": 1024, "gpu_memory_utilization": 0.4, "dtype": "bfloat16"}


class NoText:
    """A tokenizer whose texts are empty."""

    is_fast = clean_up_tokenization_spaces = False

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        """An empty text for each row."""
        return [""] * len(rows)


def open_copy(model: Any, kind: str, sequences: int, length: int) -> NativeEngine:
    """The engine on a bfloat16 copy or a training copy of `model`, which it takes."""
    model = model.to(torch.bfloat16)
    model = training_copy(model) if kind == "training" else model
    options = NativeOptions(max_num_seqs=sequences, memory=0.4)
    return NativeEngine(model, NoText(), max_model_len=length, options=options)  # type: ignore[arg-type]


def part_of(kernel: str, launches: float, layers: int) -> str:
    """The part of a step that `kernel` belongs to, which is launched that many times per step."""
    if kernel in ("attend", "join"):
        return "attention over pages"
    if kernel in ("block_sums", "find_floors", "choose"):
        return "sampling"
    if kernel.startswith("triton_"):
        return "norms, rotary embedding, gates, residuals (compiled)"
    if any(word in kernel.lower() for word in ("nvjet", "gemm", "gemv", "cutlass", "splitk")):
        return "matrix products of layers" if launches >= layers else "head in float32"
    return "everything else"


def profile(args: argparse.Namespace) -> None:
    """Prints the parts of a step and its kernels, in milliseconds, 64 steps into a round."""
    model = build_model(args.shape, "sdpa", torch.bfloat16, DEVICE)
    layers = model.config.num_hidden_layers
    bandwidth = args.bandwidth or memory_bandwidth()
    for sequences in args.sequences:
        engine = open_copy(copy.deepcopy(model), args.copy, sequences, 128 + 256)
        loop = engine.loop
        for i in range(max(1, sequences // GROUP)):
            prompt = torch.randint(2, SHAPES[args.shape][5], (128,)).tolist()
            loop.add(i, prompt, Sampling(n=min(GROUP, sequences), top_p=args.top_p, seed=i), 256)
        for _ in range(7):
            loop.turn()
        synchronize()
        began = time.perf_counter()
        loop.turn()
        synchronize()
        step = (time.perf_counter() - began) / STEPS * 1e3
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            loop.turn()
            synchronize()
        kernels = sorted(
            ((e.self_device_time_total / 1e3 / STEPS, e.count / STEPS, e.key) for e in seen.key_averages()),
            reverse=True,
        )
        parts: dict[str, float] = {}
        for milliseconds, launches, kernel in kernels:
            part = part_of(kernel, launches, layers)
            parts[part] = parts.get(part, 0.0) + milliseconds
        context = 128 + 8 * STEPS + STEPS // 2
        floor = floor_seconds(args.shape, sequences, context, 1, bandwidth) * 1e3
        print(f"\n| {args.shape}, {sequences} sequences, {args.copy} copy, {context} tokens each | ms |\n|---|--:|")
        print(f"| one step, by the clock | {step:.2f} |\n| all kernels | {sum(parts.values()):.2f} |")
        for part, milliseconds in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"| {part} | {milliseconds:.2f} |")
        print(f"| floor: weights and live cache at {bandwidth / 1e12:.1f} TB/s | {floor:.2f} |\n")
        for milliseconds, launches, kernel in kernels[:16]:
            print(f"  {milliseconds:8.3f} ms {launches:6.0f} {kernel[:90]}")
        loop.clear()
        engine.close()


def attention(args: argparse.Namespace) -> None:
    """Prints how fast attention reads the cache of one layer of the 1.5B shape."""
    from triton.testing import do_bench

    from open_r1.engine.native.attention import paged_attention

    size, heads, kv_heads, width = 64, 12, 2, 128
    for rows in args.sequences:
        each = args.context // size + 1
        kv_pages = torch.randn(rows * each + 1, 2, kv_heads, size, width, dtype=torch.bfloat16, device=DEVICE)
        table = (torch.randperm(rows * each, device=DEVICE).view(rows, each) + 1).int()
        lengths = torch.full((rows,), args.context, dtype=torch.int32, device=DEVICE)
        q, k, v = (
            torch.randn(rows, n, width, dtype=torch.bfloat16, device=DEVICE) for n in (heads, kv_heads, kv_heads)
        )
        step = (q, k, v, kv_pages, table, lengths, width**-0.5, 0.0, 0, None)
        paged_attention(*step)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            paged_attention(*step)
        seconds = do_bench(graph.replay, return_mode="median") / 1e3
        rate = rows * args.context * kv_heads * width * 2 * 2 / seconds
        print(f"{rows} sequences of {args.context} tokens: {seconds * 1e6:.0f} us, {rate / 1e12:.2f} TB/s", flush=True)


def start(args: argparse.Namespace) -> None:
    """Prints the seconds of fresh processes to their first token."""
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            args.model = Path(folder) / args.shape
            save_model(args.shape, args.model)
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
        cases: dict[str, list[str]] = {"empty caches": [], "warm caches": [], "no compilation": ["--eager"]}
        cases |= {"vLLM": ["--vllm"]} if args.vllm else {}
        for name, options in cases.items():
            command = [sys.executable, __file__, "first", "--model", str(args.model), *options]
            began = imported = time.perf_counter()
            with subprocess.Popen(command, env={**os.environ, **caches}, stdout=subprocess.PIPE, text=True) as child:
                for line in child.stdout or ():
                    now = time.perf_counter()
                    if line.startswith("imported"):
                        imported = now
                    elif line.startswith("first token"):
                        seconds = f"{now - imported:.1f} s after the imports, {now - began:.1f} s after its beginning"
                        print(f"{name}: first token {seconds}", flush=True)
                    elif line.startswith(("parts", "again")):
                        print(f"{name}: {line.strip()}", flush=True)
            if child.returncode:
                print(f"{name}: the process ended with status {child.returncode}", flush=True)


def first(args: argparse.Namespace) -> None:
    """One token, as soon as possible; then another one, after the engine has released its memory."""
    if args.vllm:
        from vllm import LLM, SamplingParams

        print("imported", flush=True)
        llm = LLM(str(args.model), max_model_len=1024, **VLLM)
        llm.generate({"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=1), use_tqdm=False)
        print("first token", flush=True)
        return
    print("imported", flush=True)
    parts = {}
    began = time.perf_counter()

    def part(name: str) -> None:
        nonlocal began
        synchronize()
        parts[name] = time.perf_counter() - began
        began = time.perf_counter()

    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16, device_map=DEVICE)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    part("loading")
    options = NativeOptions(max_num_seqs=1024, memory=0.4, compile=not args.eager, release_memory=True)
    engine = NativeEngine(model, tokenizer, max_model_len=1024, options=options)
    engine.start()
    part("cache")
    decoder = engine.loop.decoder
    decoder.first_prefill()
    part("first prefill")
    step, steps = decoder.step, []

    def timed_step(size: int, truncate: bool) -> None:
        began = time.perf_counter()
        step(size, truncate)
        steps.append(time.perf_counter() - began)

    decoder.step = timed_step  # type: ignore[method-assign]
    engine.start(Sampling())
    part("graphs")
    compiling = sum(steps[:1])
    parts |= {"first step, which compiles": compiling, "graphs": parts.pop("graphs") - compiling}
    request = Request(0, [5, 6, 7], Sampling(max_tokens=1))
    engine.generate([request])
    part("first token")
    print("first token", flush=True)
    print("parts: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items()), flush=True)
    engine.sleep()
    began = time.perf_counter()
    engine.wake()
    engine.generate([request])
    print(f"again after a release: {time.perf_counter() - began:.1f} s", flush=True)


def score(policy: Any, documents: list[TokenSequence], budget: int) -> torch.Tensor:
    """Logprobs of all completions as the trainer computes them, in packs of `budget` tokens."""
    parts: dict[int, torch.Tensor] = {}
    for members in plan_packs(documents, budget):
        pack = build_pack([documents[i] for i in members], DEVICE)
        with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
            logprobs = policy(pack=pack, temperature=1.0).logprobs.cpu()
        parts |= {i: logprobs[(pack.sequence == n).cpu()] for n, i in enumerate(members)}
    return torch.cat([parts[i] for i in range(len(documents))])


def report(name: str, policy: Any, prompts: list[list[int]], sampled: list[tuple[list[int], list[float]]]) -> None:
    """Prints how the logprobs of sampled tokens, 16 completions a prompt, differ from the trainer's.

    KL(sampler, trainer) is estimated as the mean of r - 1 - log r, with r = p(trainer) / p(sampler).
    """
    documents = []
    for i, (ids, _) in enumerate(sampled):
        prompt = prompts[i // GROUP]
        known = torch.tensor(prompt + ids)
        documents.append(TokenSequence(known, torch.arange(len(known)) >= len(prompt)))
    trained = score(policy, documents, 4096).double()
    for title, other in {
        name: torch.cat([torch.tensor(logprobs) for _, logprobs in sampled]),
        "  trainer, packed otherwise": score(policy, documents, 1500),
    }.items():
        d = trained - other.double()
        kl = (d.exp() - 1 - d).mean()
        print(
            f"{title:<28} mean {d.abs().mean():.4f}  99th percentile {d.abs().sort().values[int(0.99 * len(d))]:.4f}  "
            f"KL {kl:.2e}  {len(d)} tokens",
            flush=True,
        )


def draw_prompts(args: argparse.Namespace, vocabulary: int) -> list[list[int]]:
    """16 random prompts, or 32 problems of `--data` in the model's chat format."""
    if args.data is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(3, vocabulary, (16, PROMPT), generator=generator).tolist()
    from datasets import load_dataset

    tokenizer: Any = AutoTokenizer.from_pretrained(args.model)
    problems = load_dataset("json", data_files=args.data, split="train")["problem"][:32]
    turns: Any = [[{"role": "user", "content": problem}] for problem in problems]
    return [tokenizer.apply_chat_template(t, add_generation_prompt=True, return_dict=False) for t in turns]


def against_trainer(args: argparse.Namespace) -> None:
    """Prints how the copies' logprobs differ from the trainer's, and the memory of rounds of update and sampling."""
    if args.model is not None:
        policy: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(DEVICE).eval()
    else:
        policy = build_model(args.shape, "sdpa", torch.float32, DEVICE).eval()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(2.5 if parameter.dim() > 1 else 1)
    copies = {kind: copy.deepcopy(policy) for kind in ("bfloat16", "training")}
    policy.set_attn_implementation(ATTENTION)
    add_logprob_forward(policy)
    prompts = draw_prompts(args, policy.config.vocab_size)
    longest = max(map(len, prompts))
    tokens = min(args.tokens, policy.config.max_position_embeddings - longest)
    requests = [Request(i, p, Sampling(n=GROUP, max_tokens=tokens, seed=i)) for i, p in enumerate(prompts)]
    for kind, model in copies.items():
        engine = open_copy(model, kind, GROUP * len(prompts), longest + tokens)
        engine.update_weights(policy.named_parameters(), 0)
        completions: list[Any] = [c for group in engine.generate(requests) for c in group]
        report(f"{kind} copy", policy, prompts, [(c.token_ids, c.logprobs) for c in completions])
    for number in range(args.rounds):
        engine.update_weights(policy.named_parameters(), number)
        engine.sleep()
        engine.wake()
        engine.generate(requests)
        if DEVICE == "cuda" and number % 10 == 0:
            memory = torch.cuda.memory_allocated() / 2**20, torch.cuda.memory_reserved() / 2**20
            pages = engine.loop.scheduler.pool.free
            print(f"round {number}: {memory[0]:.1f} MiB allocated, {memory[1]:.0f} reserved, {pages} pages free")
    if args.vllm:
        from vllm import LLM, SamplingParams

        llm = LLM(str(args.model), max_model_len=longest + tokens, **VLLM)
        params = SamplingParams(n=GROUP, temperature=1.0, max_tokens=tokens, ignore_eos=True, logprobs=0, seed=0)
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)  # type: ignore
        written = [c for output in outputs for c in output.outputs]
        sampled = [
            (list(c.token_ids), [at[i].logprob for i, at in zip(c.token_ids, c.logprobs, strict=True)]) for c in written
        ]
        report("vLLM", policy, prompts, sampled)


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {"profile": profile, "attention": attention, "start": start, "first": first, "trainer": against_trainer}
    parser.add_argument("what", choices=list(commands))
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
    parser.add_argument("--model", type=Path, help="a folder, instead of random weights of a shape")
    parser.add_argument("--data", help="trainer: JSON lines with a column problem")
    parser.add_argument("--sequences", type=int, nargs="+", default=[512])
    parser.add_argument("--context", type=int, default=16384, help="attention: tokens in the cache")
    parser.add_argument("--copy", choices=["bfloat16", "training"], default="bfloat16")
    parser.add_argument("--bandwidth", type=float, help="profile: bytes/s that memory reaches; default: measured")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=96, help="trainer: of each completion")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="first: no compilation")
    parser.add_argument("--vllm", action="store_true", help="start, trainer: vLLM too")
    args = parser.parse_args()
    commands[args.what](args)


if __name__ == "__main__":
    main()
