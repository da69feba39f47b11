"""Tokenizers and chat templates for training and sampling. Nothing here changes a model's files."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from open_r1.errors import UserError, first_line, warn_user
from open_r1.files import check_no_lfs_pointers
from open_r1.hub import reading_hub

CHATML = (
    "{{% for message in messages %}}"
    "{{{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '{end}' + '\\n' }}}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")
FAULTS = (TypeError, ValueError, KeyError, AttributeError, IndexError)
"""What Python raises when a template does not fit the messages."""
SAMPLE = "What is 12 + 30?"
"""A text that must survive encoding and decoding, except for spaces and case."""
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>")


def prepare_tokenizer(
    name: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    eos_token: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    option: str = "model_name_or_path",
) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or local folder, with a chat template that renders.

    `chat_template` is a Jinja template or a file that contains one; it defaults to the tokenizer's own, else to ChatML,
    with a warning. `chat_template_kwargs` become the defaults of its variables, also in the template that is saved.
    `eos_token` replaces the tokenizer's. `option` is what error messages call `name`. Raises `UserError`.
    """
    tokenizer = _load_tokenizer(name, revision, trust_remote_code, option)
    _check_round_trip(tokenizer, f"{option} {name}")
    return settle_tokenizer(tokenizer, name, chat_template, eos_token, chat_template_kwargs)


def settle_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    chat_template: str | None = None,
    eos_token: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """Sets chat template and end token of `tokenizer`, in place, as `prepare_tokenizer` does; `name` is the model."""
    if eos_token is not None:
        if eos_token not in tokenizer.get_vocab():
            raise UserError(f"eos_token is {eos_token!r}: expected a single token of the tokenizer's vocabulary.")
        tokenizer.eos_token = eos_token
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = _chatml(name, tokenizer)
    elif isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise UserError(
            f"{name} has chat templates named {', '.join(sorted(tokenizer.chat_template))}, but none named default: "
            "set chat_template to a Jinja template or a file."
        )
    if chat_template_kwargs:
        tokenizer.chat_template = _with_defaults(tokenizer.chat_template, chat_template_kwargs)
    render(tokenizer, [{"role": "user", "content": "1 + 1"}], where="chat_template")
    return tokenizer


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token to pad with: the pad token, a token reserved for padding, or eos. Padding is always masked.

    The tokenizer is not changed, so a loss that masks `tokenizer.pad_token_id` never hides the eos token.
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    vocabulary = tokenizer.get_vocab()
    for token in PAD_TOKENS:
        if token in vocabulary:
            return vocabulary[token]
    return tokenizer.eos_token_id or 0


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None) -> tuple[int, ...]:
    """All tokens that end a completion, ascending: those of the generation config, the tokenizer's eos token, and the
    token with which the chat template ends an assistant turn."""
    configured = generation_config.eos_token_id if generation_config is not None else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    ids += [tokenizer.eos_token_id, end_of_turn(tokenizer)]
    return tuple(sorted({i for i in ids if i is not None}))


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Any],
    *,
    add_generation_prompt: bool = False,
    tools: list[dict[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    where: str = "the conversation",
) -> str:
    """`messages` as text, by the chat template with the variables in `settings`. Raises `UserError` with `where` if the
    template fails."""
    schemas: Any = tools
    try:
        text = tokenizer.apply_chat_template(
            list(messages),
            tools=schemas,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **dict(settings or {}),
        )
    except (TemplateError, *FAULTS) as error:
        raise UserError(f"{where}: the chat template raised an error: {str(error).rstrip('.')}.") from error
    assert isinstance(text, str)
    return text


def encode(tokenizer: PreTrainedTokenizerBase, rendered: str) -> list[int]:
    """Token ids of rendered text. Adds no special tokens: the template has written them."""
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """All special and added tokens, as text."""
    added = tokenizer.added_tokens_decoder.values()  # type: ignore[attr-defined]
    return {*tokenizer.all_special_tokens, *map(str, added)}


def _load_tokenizer(name: str, revision: str | None, trust_remote_code: bool, option: str) -> PreTrainedTokenizerBase:
    folder = Path(name).expanduser()
    if folder.is_dir() and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            f"{option} {name}: the folder has no tokenizer: copy tokenizer.json and tokenizer_config.json of its base "
            "model there."
        )
    if not folder.exists() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise UserError(f"{option} {name}: there is no such folder.")
    if folder.is_dir():
        check_no_lfs_pointers(folder, option)
    try:
        with reading_hub(name, option):
            return AutoTokenizer.from_pretrained(
                str(folder) if folder.is_dir() else name, revision=revision, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError, ImportError, AttributeError, KeyError, TypeError) as error:
        reason = first_line(error)
        raise UserError(f"{option} {name}: the tokenizer cannot be loaded: {reason}") from error


def _check_round_trip(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    decoded = tokenizer.decode(encode(tokenizer, SAMPLE), skip_special_tokens=True)
    assert isinstance(decoded, str)
    if "".join(decoded.split()).lower() != "".join(SAMPLE.split()).lower():
        raise UserError(
            f"{where}: the tokenizer turns {SAMPLE!r} into {decoded!r}, so text would be lost: copy tokenizer.json and "
            "tokenizer_config.json of its base model there."
        )


def _read_template(chat_template: str) -> str:
    if "{" in chat_template:
        return chat_template
    path = Path(chat_template).expanduser()
    if not path.is_file():
        raise UserError(f"chat_template is {chat_template!r}: expected a Jinja template, or a file that exists.")
    return path.read_text(encoding="utf-8")


def _with_defaults(template: Any, variables: Mapping[str, Any]) -> Any:
    """`template` (one, or several by name) with `variables` as defaults. Raises `UserError` for a variable that no
    template uses."""
    texts = list(template.values()) if isinstance(template, dict) else [template]
    for name in variables:
        if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
            raise UserError(f"chat_template_kwargs has {name!r}, which the chat template does not use: remove it.")
    lines = [
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}\n"
        for name, value in variables.items()
    ]
    if isinstance(template, dict):
        return {name: "".join(lines) + text for name, text in template.items()}
    return "".join(lines) + template


def _literal(value: Any) -> str:
    """A plain value as a Jinja literal."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(str(k))}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _chatml(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    end = "<|im_end|>" if "<|im_end|>" in tokenizer.get_vocab() else tokenizer.eos_token
    if end is None:
        raise UserError(f"{name} has neither a chat template nor an end token: set chat_template and eos_token.")
    warn_user("%s has no chat template: using ChatML, with %s at the end of each turn.", name, end)
    return CHATML.format(end=end)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template writes right after an assistant's content, if any. If the template
    writes plain text between several of them, the last one counts (Kimi K3 closes a part, then the message)."""
    if tokenizer.chat_template is None:
        return None
    answer = "forty-two"
    text = render(tokenizer, [{"role": "user", "content": "6 * 7"}, {"role": "assistant", "content": answer}])
    tail = encode(tokenizer, text.rpartition(answer)[2].lstrip())
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}  # type: ignore[attr-defined]
    if not tail or tail[0] not in special:
        return None
    words = any(token not in special and str(tokenizer.decode([token])).strip() for token in tail)
    return next(token for token in reversed(tail) if token in special) if words else tail[0]
