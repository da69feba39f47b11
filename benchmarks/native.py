"""Looks into the native engine: what a decoding step is made of, and how near its logprobs are to the trainer's.

    python benchmarks/native.py profile --shape 1.5b --sequences 512 --copy training [--top-p 0.95]    # a GPU
    python benchmarks/native.py trainer --model src/open_r1/demo/base
    python benchmarks/native.py trainer --shape 135m --rounds 40

`trainer` samples 16 completions of 16 random prompts with each copy of a float32 policy, and has the policy score them
under bfloat16 autocast, packed, as GRPO does; then it updates and samples `--rounds` times and shows the memory. A
shape's random weights are enlarged 2.5 times, so that tokens are far from equally likely.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from measure import SHAPES, build_model, synchronize
from transformers import AutoModelForCausalLM

from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.native.model import training_copy
from open_r1.engine.protocol import Request, Sampling
from open_r1.modeling.attention import ATTENTION
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack, plan_packs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPT = 12


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
    options = NativeOptions(max_num_seqs=sequences, memory=0.5)
    return NativeEngine(model, NoText(), max_model_len=length, options=options)  # type: ignore[arg-type]


def profile(args: argparse.Namespace) -> None:
    """Prints the kernels of a step, in milliseconds, 64 steps into a round."""
    model = build_model(args.shape, "sdpa", torch.bfloat16, DEVICE)
    engine = open_copy(model, args.copy, args.sequences, 128 + 256)
    loop = engine.start()
    for i in range(max(1, args.sequences // 16)):
        prompt = torch.randint(2, SHAPES[args.shape][5], (128,)).tolist()
        loop.add(i, prompt, Sampling(n=min(16, args.sequences), top_p=args.top_p, seed=i), 256)
    for _ in range(8):
        loop.turn()
    synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        loop.turn()
        synchronize()
    events = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
    print(f"{args.shape}, {args.sequences} sequences: {sum(e.self_device_time_total for e in events) / 8e3:.3f} ms")
    for event in events[:16]:
        print(f"  {event.self_device_time_total / 8e3:8.3f} ms {event.count / 8:6.0f} {event.key[:90]}")


def score(policy: Any, documents: list[TokenSequence], budget: int) -> torch.Tensor:
    """Logprobs of all completions as the trainer computes them, in packs of `budget` tokens."""
    parts: dict[int, torch.Tensor] = {}
    for members in plan_packs(documents, budget):
        pack = build_pack([documents[i] for i in members], DEVICE)
        with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
            logprobs = policy(pack=pack, temperature=1.0).logprobs.cpu()
        parts |= {i: logprobs[(pack.sequence == n).cpu()] for n, i in enumerate(members)}
    return torch.cat([parts[i] for i in range(len(documents))])


def report(name: str, difference: torch.Tensor) -> None:
    """KL(sampler, trainer) is estimated as the mean of r - 1 - log r, with r = p(trainer) / p(sampler)."""
    d = difference.double()
    kl = (d.exp() - 1 - d).mean()
    print(f"{name:<28} mean {d.abs().mean():.4f}  99th percentile {d.abs().quantile(0.99):.4f}  KL {kl:.2e}")


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
    generator = torch.Generator().manual_seed(0)
    tokens = min(args.tokens, policy.config.max_position_embeddings - PROMPT)
    prompts = torch.randint(3, policy.config.vocab_size, (16, PROMPT), generator=generator).tolist()
    requests = [Request(i, p, Sampling(n=16, max_tokens=tokens, seed=i)) for i, p in enumerate(prompts)]
    for kind, model in copies.items():
        engine = open_copy(model, kind, 256, PROMPT + tokens)
        engine.update_weights(policy.named_parameters(), 0)
        found = [
            (r.prompt + c.token_ids, c) for r, g in zip(requests, engine.generate(requests), strict=True) for c in g
        ]
        documents = [TokenSequence(torch.tensor(ids), torch.arange(len(ids)) >= PROMPT) for ids, _ in found]
        sampled = torch.cat([torch.tensor(c.logprobs) for _, c in found])
        trained = score(policy, documents, 4096)
        report(f"{kind} copy", trained - sampled)
    report("trainer, packed in two ways", score(policy, documents, 1500) - trained)
    for number in range(args.rounds):
        engine.update_weights(policy.named_parameters(), number)
        engine.sleep()
        engine.wake()
        engine.generate(requests)
        if DEVICE == "cuda" and number % 10 == 0:
            memory = torch.cuda.memory_allocated() / 2**20, torch.cuda.memory_reserved() / 2**20
            pages = engine.start().scheduler.pool.free
            print(f"round {number}: {memory[0]:.1f} MiB allocated, {memory[1]:.0f} reserved, {pages} pages free")


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["profile", "trainer"])
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
    parser.add_argument("--model", type=Path, help="trainer: a folder, instead of random weights of a shape")
    parser.add_argument("--sequences", type=int, default=512)
    parser.add_argument("--copy", choices=["bfloat16", "training"], default="bfloat16")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=96, help="trainer: of each completion")
    parser.add_argument("--rounds", type=int, default=0)
    args = parser.parse_args()
    profile(args) if args.what == "profile" else against_trainer(args)


if __name__ == "__main__":
    main()
