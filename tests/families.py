# ruff: noqa: E501
"""Chat templates in the manner of the families that people train, as short as their manner allows."""

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
    f"{LAST_USER}[gMASK]<sop>{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{SPLIT}<|assistant|>\n"
    "{% if loop.index0 > ns.last and r %}<think>{{ r.strip() }}</think>{% else %}<think></think>{% endif %}\n"
    "{{ c.strip() }}{% else %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GPT_OSS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% if loop.last and m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
DEEPSEEK = (
    "<bos>{% for m in messages %}{% if m['role'] == 'assistant' %}<|Assistant|>"
    "{{ m['content'].split('</think>')[-1] }}<eos>"
    "{% elif m['role'] == 'user' %}<|User|>{{ m['content'] }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
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
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    f"{{% else %}}{OTHERS}{{% endif %}}{{% endfor %}}{START}{{% endif %}}"
)

FAMILIES = {
    # name: template, tokens that are not ChatML's, token that ends a turn, does it keep the last turn's reasoning
    "qwen3": (QWEN3, ("<think>", "</think>"), "<|im_end|>", True),
    "qwen3.5": (QWEN35, ("<think>", "</think>"), "<|im_end|>", True),
    "qwen3.6": (QWEN36, ("<think>", "</think>"), "<|im_end|>", True),
    "nemotron-3": (NEMOTRON3, ("<think>", "</think>"), "<|im_end|>", True),
    "phi-3": (PHI3, ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>"), "<|end|>", True),
    "glm-4.5": (GLM45, ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"), "<|user|>", True),
    "gpt-oss": (GPT_OSS, ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"), "<|end|>", True),
    "deepseek": (DEEPSEEK, ("<bos>", "<eos>", "<|User|>", "<|Assistant|>"), "<eos>", False),
    "gemma": (GEMMA, ("<bos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", True),
    "mistral": (MISTRAL, ("<bos>", "<eos>", "[INST]", "[/INST]"), "<eos>", True),
    "marked": (MARKED, (), "<|im_end|>", True),
}
