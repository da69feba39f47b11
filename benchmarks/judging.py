"""Programs judged a second: in the sandbox of this machine, in a bare subprocess, and by Piston's protocol.

    python benchmarks/judging.py --programs 128 --tests 1 4 16 --parallel 2
    python benchmarks/judging.py --programs 1024 --tests 4 --parallel 16 --languages python   # a step on 16 cores
    PISTON_ENDPOINTS=http://host:2000/api/v2 python benchmarks/judging.py

Programs are all different. Processor time is that of this process and its children, which other work on the machine
changes less than wall clock; compilers in a sandbox are not in it. The last column is the part of this process, which
in a GRPO run is the trainer. A line on standard error reports each round.

The second table is a GRPO step: completions arrive at a steady rate within some seconds, judging of each begins at
once, and the trainer asks for all rewards after the last one. What it then waits for is what judging adds to the step.

Piston without PISTON_ENDPOINTS is its protocol with a stand-in for its server, a process that runs programs in bare
subprocesses: what the protocol alone costs. Where there is neither bubblewrap nor Landlock, programs run under resource
limits only.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from open_r1.evaluation.code.livecodebench import read_rows
from open_r1.rewards import code_reward
from open_r1.rewards.code.choose import best_isolation
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.code.usage import usage

PROGRAMS = {
    "python": "a, b = map(int, input().split())\nprint(a + b)  # {number}\n",
    "cpp": "#include <iostream>\nint main() {{ long a, b; std::cin >> a >> b; std::cout << a + b; }} // {number}\n",
}
Judge = Callable[[list[str], list[dict]], list[float | None]]
ROW_SECONDS = 5.0
"""After which a row gets no further rounds."""


class Server(ThreadingHTTPServer):
    request_queue_size = 256


class StandIn(BaseHTTPRequestHandler):
    """Answers like Piston's `/execute`, in Python only."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        command = [interpreter(), "-c", body["files"][0]["content"]]
        done = subprocess.run(command, input=body["stdin"], capture_output=True, text=True)
        reply = json.dumps({"run": {"stdout": done.stdout, "stderr": "", "code": done.returncode, "signal": None}})
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *arguments: object) -> None:
        pass


def in_sandbox(language: str, parallel: int, provider: str = "unsafe") -> Judge:
    """The code reward."""

    def judge(sources: list[str], cases: list[dict]) -> list[float | None]:
        info = [{"language": language, "test_cases": cases}] * len(sources)
        answers = [f"```{language}\n{source}\n```" for source in sources]
        return code_reward(answers, info, num_parallel=parallel, provider_type=provider)

    return judge


def in_subprocess(language: str, parallel: int) -> Judge:
    """What a judge without any limit would do: an interpreter or a compiled program for each test."""

    def one(source: str, cases: list[dict]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "main.py" if language == "python" else "main.cpp")
            path.write_text(source)
            command = [interpreter(), str(path)]
            if language == "cpp":
                command = [f"{folder}/program"]
                subprocess.run(["g++", "-O2", "-std=c++17", str(path), "-o", *command], check=True)
            runs = [subprocess.run(command, input=c["input"], capture_output=True, text=True).stdout for c in cases]
        return sum(out.strip() == c["output"] for out, c in zip(runs, cases, strict=True)) / len(cases)

    def judge(sources: list[str], cases: list[dict]) -> list[float | None]:
        with ThreadPoolExecutor(parallel) as threads:
            return list(threads.map(lambda source: one(source, cases), sources))

    return judge


def in_evaluation(sources: list[str], cases: list[dict]) -> list[float | None]:
    """LiveCodeBench's judge: programs get its imports, and the first test that fails is reported."""
    row = {"question_content": "Add.", "question_id": "add", "public_test_cases": json.dumps(cases)}
    (problem,) = read_rows("lcb", None, [row | {"private_test_cases": "[]"}], "benchmark")
    assert problem.judge is not None
    verdicts = problem.judge([(problem, f"```python\n{source}\n```") for source in sources])
    return [float(verdict.correct is True) for verdict in verdicts]


def programs(language: str, first: int, count: int) -> list[str]:
    """Sources that differ, from number `first` on."""
    return [PROGRAMS[language].format(number=number) for number in range(first, first + count)]


def measure(judge: Judge, sources: list[str], cases: list[dict]) -> tuple[float, float, float]:
    """Wall clock, processor seconds, and those of this process alone."""
    began, used, own = time.perf_counter(), usage(os.getpid()).cpu_seconds, time.process_time()
    scores = judge(sources, cases)
    assert scores == [1.0] * len(sources), "a right program was judged wrong"
    own = time.process_time() - own
    return time.perf_counter() - began, usage(os.getpid()).cpu_seconds - used, own


def as_written(language: str, parallel: int, seconds: float, waited: list[float]) -> Judge:
    """The code reward for completions that arrive within `seconds`; `waited` gets the time after the last one."""

    def judge(sources: list[str], cases: list[dict]) -> list[float | None]:
        info = [{"language": language, "test_cases": cases}] * len(sources)
        answers = [f"```{language}\n{source}\n```" for source in sources]
        began = time.perf_counter()
        for number, answer in enumerate(answers):
            time.sleep(max(0.0, began + seconds * number / len(answers) - time.perf_counter()))
            code_reward([answer], info[:1], num_parallel=parallel, provider_type="unsafe", wait=False)
        written = time.perf_counter()
        scores = code_reward(answers, info, num_parallel=parallel, provider_type="unsafe")
        waited.append(time.perf_counter() - written)
        return scores

    return judge


def compare(language: str, tests: list[int], args: argparse.Namespace) -> None:
    """Prints a row for each judge and number of tests, then the GRPO step."""
    judges = {"sandbox": in_sandbox(language, args.parallel), "subprocess": in_subprocess(language, args.parallel)}
    if language == "python":
        judges["evaluation (lcb)"] = in_evaluation
        judges["Piston's protocol"] = in_sandbox(language, args.parallel, "piston")
    print("| language | judge | tests | programs/s | range | CPU ms a program | of this process |")
    print("| --- | --- | --: | --: | --- | --: | --: |")
    for count in tests:
        cases = cases_of(count, args.padding)
        for name, judge in judges.items():
            judge(programs(language, -args.parallel, args.parallel), cases)  # starts what stays
            rounds: list[tuple[float, float, float]] = []
            while len(rounds) < args.repeat and sum(wall for wall, _, _ in rounds) < ROW_SECONDS:
                sources = programs(language, len(rounds) * args.programs, args.programs)
                rounds.append(measure(judge, sources, cases))
                print(f"{language}, {name}, {count} tests: {rounds[-1][0]:.1f} s", file=sys.stderr, flush=True)
            rates = sorted(args.programs / wall for wall, _, _ in rounds)
            used, own = (
                sorted(1000 * part / args.programs for part in times)[len(rounds) // 2]
                for times in list(zip(*rounds, strict=True))[1:]
            )
            row = f"{rates[len(rates) // 2]:.1f} | {rates[0]:.1f} to {rates[-1]:.1f} | {used:.1f} | {own:.2f}"
            print(f"| {language} | {name} | {count} | {row} |", flush=True)
    print(
        "\n| language | tests | completions | written within (s) | then the trainer waits (s) | its CPU ms a program |"
    )
    print("| --- | --: | --: | --: | --: | --: |")
    for count in tests:
        for number, seconds in enumerate(args.writing_seconds, 1):
            waited: list[float] = []
            sources = programs(language, -number * args.programs - args.parallel, args.programs)
            _, _, own = measure(
                as_written(language, args.parallel, seconds, waited), sources, cases_of(count, args.padding)
            )
            row = f"{args.programs} | {seconds:g} | {waited[0]:.2f} | {1000 * own / args.programs:.2f}"
            print(f"| {language} | {count} | {row} |", flush=True)
    print()


def cases_of(count: int, padding: int) -> list[dict]:
    """Test cases that add two numbers, with `padding` characters behind them in all inputs together."""
    rest = "1234567 " * (padding // count // 8)
    return [{"input": f"{k} {k + 1}\n{rest}", "output": str(2 * k + 1)} for k in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=64, help="in a round (default: %(default)s)")
    parser.add_argument("--tests", type=int, nargs="+", default=[1, 4, 16], help="per program (default: 1 4 16)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--parallel", type=int, default=cores, help="programs at once (default: %(default)s)")
    parser.add_argument("--languages", nargs="+", default=["python", "cpp"], choices=list(PROGRAMS))
    parser.add_argument("--repeat", type=int, default=3, help="most rounds; median and range are shown (default: 3)")
    parser.add_argument(
        "--writing_seconds", type=float, nargs="+", default=[1.0, 4.0], help="of a GRPO step (default: 1 4)"
    )
    parser.add_argument("--padding", type=int, default=0, help="characters that all inputs hold besides (default: 0)")
    args = parser.parse_args()
    if "PISTON_ENDPOINTS" not in os.environ:
        server = Server(("127.0.0.1", 0), StandIn)
        multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True).start()
        os.environ["PISTON_ENDPOINTS"] = f"http://127.0.0.1:{server.server_port}/api/v2"
    isolation = best_isolation()
    user = "this user" if isolation.user is None else "users of their own"
    print(f"{args.programs} programs, {args.parallel} at once, Python {sys.version.split()[0]}, {cores} cores")
    print(f"isolation: {isolation.kind}, programs run as {user}\n", flush=True)
    for language in args.languages:
        if language == "cpp" and shutil.which("g++") is None:
            print("cpp is left out: g++ is not installed", file=sys.stderr)
            continue
        compare(language, args.tests, args)


if __name__ == "__main__":
    main()
