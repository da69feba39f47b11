"""`open-r1 generate` without its command line. `open-r1 data pass-rate` uses it too."""

from typing import TYPE_CHECKING

from open_r1.engine.options import EngineOptions
from open_r1.generation.options import GenerateOptions, SamplingOptions, output_folder
from open_r1.progress_bars import hide_library_bars

if TYPE_CHECKING:
    from open_r1.generation.problems import Problems


def generate(options: GenerateOptions, engine_options: EngineOptions) -> None:
    """Writes the completions into `options.output`, or continues an existing run. Raises `UserError`."""
    from rich.console import Console

    from open_r1.engine.opening import open_engine
    from open_r1.engine.protocol import Sampling
    from open_r1.generation.run import Generation
    from open_r1.generation.store import ShardStore
    from open_r1.generation.summary import begin, finish, summary_table

    hide_library_bars()
    console = Console()
    sampling = Sampling(
        n=options.num_generations,
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    problems = read_problems(options.hf_dataset, options)
    digest, longest = problems.digest()
    engine = open_engine(engine_options)
    settings = {
        "model": None if engine.identity.get("weights") else engine_options.model,
        "revision": engine_options.revision,
        "weights": engine.identity.get("weights"),
        "dtype": engine_options.dtype,
        "prompt_column": problems.prompt_column,
        "prompt_template": options.prompt_template,
        "system_prompt": options.system_prompt,
        "answer_column": options.answer_column,
        **(
            {"chat_template_kwargs": engine_options.chat_template_kwargs} if engine_options.chat_template_kwargs else {}
        ),
        "data": digest,
        "num_generations": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "shard": "/".join(map(str, options.part)),
    }
    folder = output_folder(options.output, options.part)
    store = ShardStore(folder, settings, len(problems), sampling.n)
    begin(folder, engine_options.model, [options.hf_dataset])
    run = Generation(
        problems,
        range(options.part[0], len(problems), options.part[1]),
        engine,
        sampling,
        store,
        rows_per_shard=options.rows_per_shard,
        skip_long=options.skip_long_prompts,
    )
    run.run(longest, console)
    engine.engine.close()
    console.print(summary_table(finish(folder, len(run.too_long))))
    console.print(f"The rows are in {folder}.", soft_wrap=True, highlight=False)


def read_problems(dataset: str, options: SamplingOptions) -> "Problems":
    """The rows of `dataset` as prompts. Raises `UserError`."""
    from open_r1.data.load import load_split
    from open_r1.generation.problems import Problems

    return Problems(
        load_split(dataset, config=options.hf_dataset_config, split=options.hf_dataset_split),
        options,
        template=options.prompt_template,
        system_prompt=options.system_prompt,
    )
