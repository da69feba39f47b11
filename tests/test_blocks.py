"""Every block of commands in the READMEs and tutorials runs, or says why it does not.

`<!-- not run: needs a GPU -->` before a block leaves it out. All other blocks of a page run one after another in a
scratch folder (`make test-docs`), which has the sources and, under the same paths, recipes with a tiny model, tiny data
and two steps. `STAND_INS` replaces what a test does not have: models and data of the hub, and servers. A Chinese page
has the blocks of its English one, so only that one runs.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from fake_openai import fake_server
from markdown_it import MarkdownIt
from toys import make_model, make_tokenizer

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *(page for page in TUTORIALS if not page.name.endswith(".zh.md"))]
TWINS = {ROOT / "README_zh.md": PAGES[0]} | {
    page: page.with_name(page.name.replace(".zh.md", ".md")) for page in TUTORIALS if page.name.endswith(".zh.md")
}
MARK = re.compile(r"<!-- not run: (.+) -->")
DEMO = "open-r1 demo --fast"
BEFORE = {"README.md": DEMO, "eight-gpus.md": DEMO}
"""What a page takes for granted."""
STAND_INS = {
    r"Qwen/Qwen2.5-1.5B-Instruct|deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "model",
    r"AI-MO/NuminaMath-TIR": "problems.jsonl",
    r"http://node1:8000,http://node2:8000": "SERVER",
    r"--against math_500.jsonl aime24.jsonl": "--against other.jsonl",
    r"--tasks math_500\b": "--tasks other.jsonl --num-samples 1 --max-new-tokens 8",
    r"--model MODEL --tasks held_out.jsonl": "--model runs/demo/zero --tasks runs/demo/data/held_out.jsonl --limit 4",
    r"--min 0.2 --max 0.8": "--min 0 --max 1 --num-generations 2 --max-new-tokens 8",
    r"(max_steps[=:] ?)50": r"\g<1>2",
    r"(max_completion_length[=:] ?)256": r"\g<1>16",
}
SMALL = {
    "model_name_or_path": "model",
    "dataset_num_proc": None,
    "max_steps": 2,
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 16,
    "max_length": 128,
    "max_tokens_per_microbatch": 1024,
    "save_steps": 1,
}
SERVERS = r"""
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
open-r1() {  # those that serve a page do so until they are stopped
    case "$*" in
        watch*|chat*--web*) ;;
        *) command open-r1 "$@"; return;;
    esac
    command open-r1 "$@" >served.txt & local server=$!
    while kill -0 $server && ! grep -q http:// served.txt; do sleep 0.2; done
    python -c 'import re, urllib.request as web; web.urlopen(re.search(r"http://\S+", open("served.txt").read())[0])'
    kill $server; wait $server || true
}
"""


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    reason: str | None
    """Why it is not run."""


def blocks(page: Path) -> list[Block]:
    found, reason = [], None
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (mark := MARK.search(token.content)):
            reason = mark[1]
        elif token.type == "fence":
            if (language := token.info.strip()) in ("bash", "python"):
                found.append(Block(language, token.content, reason))
            reason = None
    return found


def script(page: Path) -> str:
    """All blocks of the page that run, with stand-ins."""
    parts = [BEFORE.get(page.name, "")]
    for block in blocks(page):
        if block.reason is None:
            parts.append(block.text if block.language == "bash" else f"python - <<'BLOCK'\n{block.text}BLOCK\n")
    text = "\n".join(parts)
    for pattern, stand_in in STAND_INS.items():
        text = re.sub(pattern, stand_in, text)
    return text


def name(page):
    return page.name


@pytest.mark.parametrize("page", [*PAGES, *TWINS], ids=name)
def test_every_block_is_well_formed_and_no_mark_is_left_over(page):
    for block in blocks(page):
        if block.language == "bash":
            text = re.sub(r"<[^<>'/\n]+>", "PLACEHOLDER", block.text)
            checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
            assert checked.returncode == 0, checked.stderr
        else:
            compile(block.text, page.name, "exec")
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("<!-- *not run", text)) == sum(block.reason is not None for block in blocks(page))
    assert len(re.findall(r"^ *```\w+", text, flags=re.MULTILINE)) == len(blocks(page)), "a block of another language"


@pytest.mark.parametrize("page", TWINS, ids=name)
def test_a_chinese_page_has_the_blocks_of_the_english_one(page):
    def plain(blocks):
        words = [re.sub(r'(?<!\S)#.*$|""".*?"""|<[^>]*>', "", block.text, flags=re.MULTILINE) for block in blocks]
        return [(text.split(), block.language, block.reason) for text, block in zip(words, blocks, strict=True)]

    assert plain(blocks(page)) == plain(blocks(TWINS[page]))


@pytest.fixture
def scratch(tmp_path):
    """A folder in which the blocks run."""
    for folder in ("src", "slurm", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    make_model(make_tokenizer(tmp_path / "model", pad=None))
    traces = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>\n2\n</think>\n2"}]
    write(tmp_path / "traces.jsonl", [{"messages": traces}] * 16)
    problems = [(f"What is {i} + {i}?", str(2 * i)) for i in range(16)]
    write(
        tmp_path / "problems.jsonl",
        [{"problem": q, "prompt": [{"role": "user", "content": q}], "answer": a} for q, a in problems],
    )
    write(tmp_path / "other.jsonl", [{"problem": "What is the sine of nothing at all?", "answer": "0"}] * 2)
    for recipe in (ROOT / "recipes").glob("*/*/*.yaml"):
        options = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        grpo = "reward_funcs" in options
        options["dataset_name"] = str(tmp_path / ("problems.jsonl" if grpo else "traces.jsonl"))
        options |= {key: SMALL[key] for key in SMALL.keys() & options.keys()} | {"max_steps": 2}
        small = tmp_path / recipe.relative_to(ROOT)
        small.parent.mkdir(parents=True, exist_ok=True)
        small.write_text(yaml.safe_dump(options), encoding="utf-8")
    (tmp_path / "recipes" / "accelerate_configs").symlink_to(ROOT / "recipes" / "accelerate_configs")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def solve(question):
    """The answer of the server to "What is 3 + 3?"."""
    total = sum(map(int, re.findall(r"\d+", question)))
    return f"<think>\nI add the numbers.\n</think>\nThe answer is \\boxed{{{total}}}."


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_blocks_run(page, scratch):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with fake_server(answer=solve, model="model") as server:
        text = script(page).replace("SERVER", server.url)
        words = ["bash", "-euo", "pipefail", "-c", SERVERS + text]
        done = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
