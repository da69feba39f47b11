# ruff: noqa: E501
"""Chat templates in the manner of the families that people train, as short as their manner allows, and what a model
is to learn under each."""

from dataclasses import dataclass

USER = "{% if m['role'] == 'user' %}"
SPLIT = (
    "{% set r = m.reasoning_content or '' %}{% set c = m['content'] %}"
    "{% if not r and '</think>' in c %}{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
)
LAST_USER = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
)
CALLS = "{% for t in m.tool_calls or [] %}\n<call>{{ t.function.name }} {{ t.function.arguments | tojson }}</call>{% endfor %}"
TOOLS = "{% for t in tools or [] %}<|im_start|>system\n{{ t | tojson }}<|im_end|>\n{% endfor %}"
OTHERS = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
START = "{% if add_generation_prompt %}<|im_start|>assistant\n"

QWEN3 = (
    f"{LAST_USER}{TOOLS}{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{SPLIT}<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last and (loop.last or r) %}<think>\n{{ r.strip('\\n') }}\n</think>\n\n{% endif %}"
    f"{{{{ c.lstrip('\\n') }}}}{CALLS}<|im_end|>\n{{% else %}}{OTHERS}{{% endif %}}{{% endfor %}}{START}{{% endif %}}"
)
QWEN35 = (
    f"{LAST_USER}{TOOLS}{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{SPLIT}<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last %}<think>\n{{ r.strip() }}\n</think>\n\n{% endif %}"
    f"{{{{ c.strip() }}}}{CALLS}<|im_end|>\n{{% else %}}{OTHERS}{{% endif %}}{{% endfor %}}{START}<think>\n{{% endif %}}"
)
QWEN36 = QWEN35.replace("loop.index0 > ns.last %}<think>", "preserve is not defined or loop.index0 > ns.last %}<think>")
NEMOTRON3 = (
    f"{LAST_USER}{TOOLS}{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{SPLIT}<|im_start|>assistant\n"
    "{% if r and loop.index0 > ns.last %}<think>\n{{ r }}\n</think>\n{% else %}<think></think>{% endif %}"
    f"{{{{ c.strip() }}}}{CALLS}<|im_end|>\n{{% else %}}{OTHERS}{{% endif %}}{{% endfor %}}{START}<think>\n{{% endif %}}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GLM45 = (
    f"{LAST_USER}[gMASK]<sop>{{% for t in tools or [] %}}<|system|>\n{{{{ t | tojson }}}}{{% endfor %}}"
    f"{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{SPLIT}<|assistant|>\n"
    "{% if loop.index0 > ns.last and r %}<think>{{ r.strip() }}</think>{% else %}<think></think>{% endif %}{{ '\\n' }}"
    f"{{{{ c.strip() }}}}{CALLS}{{% else %}}<|{{{{ 'observation' if m['role'] == 'tool' else m['role'] }}}}|>\n"
    "{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GPT_OSS = (
    "{% for t in tools or [] %}<|start|>developer<|message|>{{ t | tojson }}<|end|>{% endfor %}"
    "{% set ns = namespace(call='') %}{% for m in messages %}{% if m.tool_calls %}{% set f = m.tool_calls[0].function %}"
    "{% set ns.call = f.name %}<|start|>assistant to={{ f.name }}<|message|>{{ f.arguments | tojson }}<|call|>"
    "{% elif m['role'] == 'assistant' %}"
    "{% if loop.last and m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% elif m['role'] == 'tool' %}<|start|>{{ ns.call }} to=assistant<|message|>{{ m['content'] }}<|end|>"
    "{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
DEEPSEEK = (
    "<bos>{% for m in messages %}{% if m['role'] == 'assistant' %}<|Assistant|>"
    "{{ m['content'].split('</think>')[-1] }}<eos>"
    "{% elif m['role'] == 'user' %}<|User|>{{ m['content'] }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
DEEPSEEK_V3 = (
    "<bos>{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "<|Assistant|>{{ m['content'] }}"
    "{% for t in m.tool_calls or [] %}{{ '<call>' + t.function.name + ' ' + t.function.arguments + '</call>' }}{% endfor %}<eos>"
    "{% elif m['role'] == 'user' %}<|User|>{{ m['content'] }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{% endif %}"
)
GEMMA = (
    "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    f"{LAST_USER}<bos>{{% for m in messages %}}"
    "{% if m['role'] == 'user' %}[INST] {% if loop.index0 == ns.last and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] }}\n\n{% endif %}{{ m['content'] }}[/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}<eos>{% endif %}{% endfor %}"
)
COMMAND = (
    "{% for m in messages %}<|start|><|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<|answer|>{{ m['content'] }}"
    "<|answered|>{% else %}{{ m['content'] }}{% endif %}<|end|>{% endfor %}<|start|><|assistant|>"
)
"""Writes a generation prompt always (Command R7B)."""
PARTS = (
    "{% for m in messages %}{% set r = m.reasoning_content or '' %}<|open|>{{ m['role'] }}<|sep|>"
    "{% if m['role'] == 'assistant' %}<|open|>think<|sep|>{{ r }}<|close|>think<|sep|><|open|>response<|sep|>"
    "{{ m['content'] }}<|close|>response<|sep|>{% else %}{{ m['content'] }}{% endif %}<|end_of_msg|>{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant<|sep|><|open|>think<|sep|>{% endif %}"
)
"""Closes parts by name, and then the message (Kimi K3)."""
ROUTED = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{% if m.tool_calls %}"
    "{% set f = m.tool_calls[0].function %}<|start|>assistant to={{ f.name }}<|message|>"
    "<invoke>{{ f.name }} {{ f.arguments | tojson }}</invoke><|eot|>"
    "{% elif m['role'] == 'assistant' %}{% if m.reasoning %}<|start|>assistant to=self<|message|>{{ m.reasoning }}<|eom|>"
    "{% endif %}<|start|>assistant to=user<|message|>{{ m['content'] }}<|eot|>"
    "{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
"""Says to whom a message goes, so that the name of a call is there twice (Muse)."""
OPEN_END = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{% set final = loop.last %}<|begin_{{ m['role'] }}|>\n"
    "{{ m['content'] }}{% for t in m.tool_calls or [] %}<call>{{ t.function.name }} {{ t.function.arguments | tojson }}"
    "{% if not final %}, {{ t.id }}{% endif %}</call>{% endfor %}"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ '\\n' }}<|end|>{% endif %}{% if m['role'] != 'assistant' or not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|begin_assistant|>\n{% endif %}"
)
"""Ends every assistant's turn but the last (Apriel, Apertus)."""
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    f"{{% else %}}{OTHERS}{{% endif %}}{{% endfor %}}{START}{{% endif %}}"
)

THINK = ("<think>", "</think>")
CALL = '<call>weather {"city": "Bonn"}</call>'


@dataclass(frozen=True)
class Family:
    """A template and the tokens that are not ChatML's. `stops`: at which the model stops, besides the end of a turn.

    Learned are, of an answer "say" with the reasoning "why", `thought`; of two turns with "say0" and "say1", `turns`; of
    a call of a tool and the answer after it, `call`. In place of each a text that begins with "error: " is the refusal.
    `earlier` says what happens to the reasoning of earlier turns, `system` where the system message is.
    """

    template: str
    tokens: tuple[str, ...]
    thought: str
    turns: tuple[str, str]
    call: tuple[str, str] | str
    earlier: str
    system: str = "kept"
    stops: tuple[str, ...] = ()
    eos: str = "<|im_end|>"


NO_CALLS = "error: drops the tool calls"
IM_END = ("say0<|im_end|>\n", "say1<|im_end|>\n")
FAMILIES = {
    "qwen3": Family(
        QWEN3,
        THINK,
        "<think>\nwhy\n</think>\n\nsay<|im_end|>\n",
        ("say0<|im_end|>\n", "<think>\n\n</think>\n\nsay1<|im_end|>\n"),
        (f"{CALL}<|im_end|>\n", "<think>\n\n</think>\n\nend<|im_end|>\n"),
        "dropped",
    ),
    "qwen3.5": Family(
        QWEN35,
        THINK,
        "why\n</think>\n\nsay<|im_end|>\n",
        ("say0<|im_end|>\n", "\n</think>\n\nsay1<|im_end|>\n"),
        (f"\n</think>\n\n{CALL}<|im_end|>\n", "\n</think>\n\nend<|im_end|>\n"),
        "dropped",
    ),
    "qwen3.6": Family(
        QWEN36,
        THINK,
        "why\n</think>\n\nsay<|im_end|>\n",
        ("\n</think>\n\nsay0<|im_end|>\n", "\n</think>\n\nsay1<|im_end|>\n"),
        (f"\n</think>\n\n{CALL}<|im_end|>\n", "\n</think>\n\nend<|im_end|>\n"),
        "kept",
    ),
    "nemotron-3": Family(
        NEMOTRON3,
        THINK,
        "why\n</think>\nsay<|im_end|>\n",
        ("</think>say0<|im_end|>\n", "</think>say1<|im_end|>\n"),
        (f"</think>{CALL}<|im_end|>\n", "</think>end<|im_end|>\n"),
        "dropped",
    ),
    "phi-3": Family(
        PHI3,
        ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<eos>"),
        "<think>\nwhy\n</think>\n\nsay<|end|>\n<eos>",
        ("say0<|end|>\n", "say1<|end|>\n<eos>"),
        NO_CALLS,
        "kept",
        eos="<eos>",
    ),
    "glm-4.5": Family(
        GLM45,
        ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", *THINK),
        "\n<think>why</think>\nsay<|im_end|>",
        ("\n<think></think>\nsay0<|user|>", "\n<think></think>\nsay1<|im_end|>"),
        (f"\n<think></think>\n{CALL}<|observation|>", "\n<think></think>\nend<|im_end|>"),
        "dropped",
        stops=("<|user|>", "<|observation|>"),
    ),
    "gpt-oss": Family(
        GPT_OSS,
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"),
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>say<|return|>",
        ("<|channel|>final<|message|>say0<|end|>", "<|channel|>final<|message|>say1<|return|>"),
        (' to=weather<|message|>{"city": "Bonn"}<|call|>', "<|channel|>final<|message|>end<|return|>"),
        "dropped",
        eos="<|return|>",
        stops=("<|call|>",),
    ),
    "deepseek": Family(
        DEEPSEEK,
        ("<bos>", "<eos>", "<|User|>", "<|Assistant|>"),
        "error: drops the reasoning before </think>",
        ("say0<eos>", "say1<eos>"),
        NO_CALLS,
        "dropped",
        eos="<eos>",
    ),
    "deepseek-v3": Family(
        DEEPSEEK_V3,
        ("<bos>", "<eos>", "<|User|>", "<|Assistant|>"),
        "<think>\nwhy\n</think>\n\nsay<eos>",
        ("say0<eos>", "say1<eos>"),
        (f"{CALL}<eos>", "end<eos>"),
        "kept",
        eos="<eos>",
    ),
    "gemma": Family(
        GEMMA,
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<think>\nwhy\n</think>\n\nsay<end_of_turn>\n",
        ("say0<end_of_turn>\n", "say1<end_of_turn>\n"),
        "error: roles must alternate",
        "kept",
        system="error: System role not supported",
    ),
    "mistral": Family(
        MISTRAL,
        ("<bos>", "<eos>", "[INST]", "[/INST]"),
        " <think>\nwhy\n</think>\n\nsay<eos>",
        (" say0<eos>", " say1<eos>"),
        NO_CALLS,
        "kept",
        eos="<eos>",
    ),
    "command": Family(
        COMMAND,
        ("<|start|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|answer|>", "<|answered|>"),
        "<|answer|><think>\nwhy\n</think>\n\nsay<|answered|><|end|>",
        ("<|answer|>say0<|answered|><|end|>", "<|answer|>say1<|answered|><|end|>"),
        NO_CALLS,
        "kept",
        eos="<|end|>",
    ),
    "parts": Family(
        PARTS,
        ("<|open|>", "<|sep|>", "<|close|>", "<|end_of_msg|>"),
        "why<|close|>think<|sep|><|open|>response<|sep|>say<|close|>response<|sep|><|end_of_msg|>",
        tuple(  # type: ignore[arg-type]
            f"<|close|>think<|sep|><|open|>response<|sep|>say{i}<|close|>response<|sep|><|end_of_msg|>" for i in (0, 1)
        ),
        NO_CALLS,
        "kept",
    ),
    "routed": Family(
        ROUTED,
        ("<|start|>", "<|message|>", "<|eot|>", "<|eom|>", "<invoke>", "</invoke>"),
        " to=self<|message|>why<|eom|><|start|>assistant to=user<|message|>say<|eot|>",
        (" to=user<|message|>say0<|eot|>", " to=user<|message|>say1<|eot|>"),
        (
            ' to=weather<|message|><invoke>weather {"city": "Bonn"}</invoke><|eot|>',
            " to=user<|message|>end<|eot|>",
        ),
        "kept",
    ),
    "open end": Family(
        OPEN_END,
        ("<|begin_user|>", "<|begin_assistant|>", "<|begin_system|>", "<|begin_tool|>", "<|end|>"),
        "<think>\nwhy\n</think>\n\nsay<|end|>",
        ("say0\n<|end|>", "say1<|end|>"),
        ('<call>weather {"city": "Bonn"}, c1</call>\n<|end|>', "end<|end|>"),
        "kept",
        eos="<|end|>",
    ),
    "marked": Family(
        MARKED,
        (),
        "<think>\nwhy\n</think>\n\nsay<|im_end|>",
        ("say0<|im_end|>", "say1<|im_end|>"),
        NO_CALLS,
        "kept",
    ),
}
