"""`open-r1 generate` beside the engine alone, and its memory as rows stream through.

    python benchmarks/traces.py --rows 100000                                   # through a fake server
    python benchmarks/traces.py --model M --data gsm8k.jsonl --problems 100     # the engine alone, then generate
    python benchmarks/traces.py --latency 0.5 --data gsm8k.jsonl --problems 500  # the same, through a fake server

The fake server answers at once, so that the first measures the client alone: rows a second, and the memory of the
process and its graders at every tenth of the way. The second has the same engine write the same requests through
`Engine.stream` (nothing read, graded or written), and through the whole of `open-r1 generate`, in turns.
"""

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import psutil

WORDS = "so the number of apples is twelve and half of them are red which makes six of them red and six green "


def main() -> None:
    """Measures, and prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="through the fake server")
    parser.add_argument("--characters", type=int, default=2000, help="of each of its answers")
    parser.add_argument("--concurrency", type=int, default=1024)
    parser.add_argument("--model", help="measure an engine instead")
    parser.add_argument("--latency", type=float, help="measure the servers' client; seconds for an answer")
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers", "openai"))
    parser.add_argument("--data", help="problems for the engine, with the column problem")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.model or args.latency:
            beside_the_engine(args, Path(folder))
        else:
            through_a_fake_server(args, Path(folder))


def through_a_fake_server(args: argparse.Namespace, folder: Path) -> None:
    """`args.rows` rows, four a problem."""
    from open_r1 import generate

    problems = args.rows // 4
    data = folder / "problems.jsonl"
    with data.open("w") as file:
        for i in range(problems):
            text = f"{i} + 1? " + WORDS * 3
            file.write(json.dumps({"problem": text, "answer": str(i + 1), "source": "made"}) + "\n")
    server, url = start_server(args.characters, 0.0)
    arguments = ["--hf-dataset", str(data), "--prompt-column", "problem", "--model", "m", "--vllm-server-url", url]
    arguments += ["--num-generations", "4", "--input-batch-size", str(args.concurrency // 4)]
    arguments += ["--output", str(folder / "out")]
    finished = threading.Event()
    memory = threading.Thread(target=watch, args=(folder / "out", args.rows, finished), daemon=True)
    memory.start()
    started = time.monotonic()
    generate.main(arguments)
    seconds = time.monotonic() - started
    finished.set()
    memory.join()
    size = sum(path.stat().st_size for path in (folder / "out" / "data").iterdir())
    print(f"{args.rows} rows in {seconds:.0f} s: {args.rows / seconds:.0f} rows/s, {size / 1e6:.0f} MB of shards")
    server.terminate()


def watch(folder: Path, rows: int, finished: threading.Event) -> None:
    """Prints memory at every tenth of the way: private to the process, with mapped files, and of its children."""
    from open_r1.generation.store import shard_files

    process = psutil.Process()
    tenth = 0
    while not finished.wait(0.5):
        done = 2000 * len(shard_files(folder))
        if done * 10 // rows > tenth:
            tenth = done * 10 // rows
            own = process.memory_full_info()
            graders = [child.memory_info().rss for child in process.children() if "worker" in " ".join(child.cmdline())]
            print(
                f"{done:>8} rows: {own.uss / 1e6:.0f} MB private, {own.rss / 1e6:.0f} MB with mapped files, "
                f"graders {sum(graders) / 1e6:.0f} MB",
                flush=True,
            )


def start_server(characters: int, latency: float) -> tuple[multiprocessing.Process, str]:
    """The fake server in a process of its own, and its URL."""
    port = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port, characters, latency), daemon=True)
    server.start()
    return server, f"http://127.0.0.1:{port.get()}/v1"


def serve(port: "multiprocessing.Queue[int]", characters: int, latency: float) -> None:
    """An HTTP server that does as little as it can: every answer is `characters` long and comes after `latency` s."""
    filler = (WORDS * (characters // len(WORDS) + 1))[:characters]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            length = next((int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
            body = await reader.readexactly(length)
            if length:
                question = json.loads(body)["messages"][-1]["content"]
                number = question.split()[0]
                answer = f"<think>\n{filler}\n</think>\n\\boxed{{{int(number) + 1 if number.isdigit() else 7}}}"
                await asyncio.sleep(latency)
                choice = {"message": {"content": answer}, "finish_reason": "stop"}
                reply = json.dumps({"choices": [choice], "usage": {"completion_tokens": characters // 4}}).encode()
            else:
                reply = b'{"data": [{"id": "m", "max_model_len": 32768}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply) + reply)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def beside_the_engine(args: argparse.Namespace, folder: Path) -> None:
    """Tokens a second of the engine alone and of the whole, the same requests in turns on one engine."""
    from open_r1 import generate
    from open_r1.engine.opening import EngineOptions, open_engine
    from open_r1.engine.protocol import Request, Sampling, request_seed, token_count

    server, url = start_server(args.characters, args.latency) if args.latency else (None, None)
    if url:
        args.model, args.engine = "m", "openai"
    options = EngineOptions(
        args.model,
        base_url=url,
        concurrency=args.concurrency,
        engine=args.engine,
        dtype=args.dtype,
        gpu_memory_utilization=args.gpu_memory_utilization,
        enforce_eager=args.enforce_eager,
    )
    engine = open_engine(options)
    close, engine.engine.close = engine.engine.close, lambda: None  # one engine for all turns
    arguments = ["--hf-dataset", args.data, "--hf-dataset-split", f"train[:{args.problems}]", "--model", args.model]
    arguments += ["--prompt-column", "problem", "--num-generations", "4", "--engine", args.engine]
    arguments += ["--max-new-tokens", str(args.max_new_tokens), "--temperature", "0.6"]
    arguments += ["--vllm-server-url", url] if url else []
    parsed = generate.parser().parse_args([*arguments, "--output", str(folder / "unused")])
    problems = generate.read_problems(parsed)
    _, longest = problems.digest()
    engine.reserve(longest + 512 + args.max_new_tokens)

    def requests():
        for problem in problems.read(range(len(problems))):
            prompt = engine.render(problem.messages)
            for sample in range(4):
                seed = request_seed(0, problem.index, sample)
                stops = engine.stop_token_ids
                limits = {"max_tokens": args.max_new_tokens, "stop_token_ids": stops}
                sampling = Sampling(1, 0.6, 0.95, seed=seed, logprobs=False, **limits)
                yield Request((problem.index, sample), prompt, sampling)

    for _ in engine.engine.stream(list(requests())[:8]):
        pass  # starts and warms up
    generate.open_engine = lambda options: engine
    speeds: dict[str, list[float]] = {"engine alone": [], "open-r1 generate": []}
    for turn in range(args.turns):
        asked = list(requests())
        started = time.monotonic()
        tokens = sum(token_count(c) or 0 for _, found in engine.engine.stream(asked) for c in found)
        speeds["engine alone"].append(tokens / (time.monotonic() - started))
        output = folder / f"turn-{turn}"
        started = time.monotonic()
        generate.main([*arguments, "--output", str(output)])
        tokens = json.loads((output / "run" / "summary.json").read_text())["tokens"]
        speeds["open-r1 generate"].append(tokens / (time.monotonic() - started))
        print({name: round(values[-1], 1) for name, values in speeds.items()}, flush=True)
    for name, values in speeds.items():
        middle = sorted(values)[len(values) // 2]
        print(f"{name}: median {middle:.1f} tokens/s, {min(values):.1f} to {max(values):.1f}")
    close()
    if server is not None:
        server.terminate()


if __name__ == "__main__":
    main()
