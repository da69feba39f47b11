import io

from datasets import Dataset
from rich.console import Console
from toys import make_tokenizer

from open_r1.configs import SFTConfig
from open_r1.data.chat import prepare_tokenizer
from open_r1.data.sft import tokenize_sft
from open_r1.run.preview import LONGEST, show_rows


def shown(tmp_path, answer="7", **console):
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path)))
    args = SFTConfig(output_dir="unused", max_length=10_000)
    dataset = Dataset.from_list([{"problem": "[b]3 + 4[/b]", "solution": answer}])
    rows = tokenize_sft(dataset, tokenizer, args, None)
    out = io.StringIO()
    show_rows(rows, tokenizer, Console(file=out, width=100, **console))
    return out.getvalue(), sum(rows[0]["loss_mask"]), len(rows[0]["input_ids"])


def test_the_learned_part_is_marked_without_colors_and_special_tokens_are_shown(tmp_path):
    for options in ({}, {"force_terminal": True, "no_color": True}):
        text, learned, total = shown(tmp_path, **options)
        assert "<|im_start|>user\n[b]3 + 4[/b]<|im_end|>\n<|im_start|>assistant\n⟦7<|im_end|>\n⟧" in text
        assert f"{learned} tokens learned, {total - learned} not" in text


def test_the_learned_part_is_green_on_a_terminal(tmp_path):
    text, _, _ = shown(tmp_path, force_terminal=True, color_system="standard", no_color=False)
    assert "\x1b[32m7<|im_end|>" in text and "⟦" not in text


def test_long_parts_show_both_ends(tmp_path):
    text, _, _ = shown(tmp_path, answer="begin" + "a" * 3000 + "end")
    assert "⟦begin" in text and "characters ...]" in text and "end<|im_end|>" in text and len(text) < 2 * LONGEST
