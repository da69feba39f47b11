"""An engine that writes what it is told to."""

from dataclasses import dataclass, field

from open_r1.engine.opening import OpenEngine
from open_r1.engine.protocol import Completion, Engine
from open_r1.evaluation.run import prepare, run_benchmark
from open_r1.report.sampling_progress import SamplingProgress


@dataclass
class Scripted(Engine):
    """Answers `texts[index][sample]`; dies after `lives` requests if that is given."""

    texts: dict
    lives: int | None = None
    asked: list = field(default_factory=list)

    def stream(self, requests):
        for request in requests:
            if self.lives is not None and len(self.asked) >= self.lives:
                raise RuntimeError("CUDA error: out of memory\nand more")
            self.asked.append(request.id)
            index, first = request.id
            yield request.id, [completion(self.texts[index][first + i]) for i in range(request.sampling.n)]


class Started(Scripted):
    """Has processes to start, like vLLM; `asked` begins with what is called before the first request."""

    def start(self, sampling=None):
        self.asked.append("start")


def before_the_clock(monkeypatch, module, engine):
    """Notes in `engine.asked` when `module` starts the clock of its progress."""

    def begun(*arguments, **options):
        engine.asked.append("clock")
        return SamplingProgress(*arguments, **options)

    monkeypatch.setattr(f"{module}.SamplingProgress", begun)


def completion(text):
    reason = "length" if text.endswith("...") else "error" if text == "failed" else "stop"
    return Completion(text, list(range(len(text))), None, reason, 0)


def opened(engine, context=None, budget=None):
    """`engine` as `open_engine` gives it; prompts are their messages."""
    return OpenEngine(
        engine=engine,
        name="scripted",
        context=context,
        stop_token_ids=(7,),
        render=lambda prompt, where="": getattr(prompt, "messages", prompt),
        prompt_tokens=lambda messages: len(messages[-1]["content"]),
        max_tokens_per_batch=budget,
    )


def evaluate_task(task, problems, model, engine, protocol, folder, **options):
    """The results of one task, as `open-r1 evaluate` computes them."""
    benchmark = prepare(task, problems, model, engine, protocol, folder, **options)
    engine.reserve(benchmark.longest)
    return run_benchmark(benchmark)
