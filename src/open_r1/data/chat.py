"""Tokenizers and chat templates, as training and sampling need them. Nothing here edits a model's files."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from open_r1.errors import UserError, first_line
from open_r1.files import check_no_lfs_pointers
from open_r1.hub import reading_hub

logger = logging.getLogger(__name__)

CHATML = (
    "{{% for message in messages %}}"
    "{{{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '{end}' + '\\n' }}}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")
SAMPLE = "What is 12 + 30?"
"""A text that encoding and decoding must give back, but for spaces and capitals."""
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>")


def prepare_tokenizer(
    name: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    eos_token: str | None = None,
    option: str = "model_name_or_path",
) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or local folder, which was given as `option`, with a chat template that renders.

    `chat_template` is Jinja or a file that holds it; without one, and without one of the tokenizer's own, ChatML
    is used and a warning says so. `eos_token` replaces the token that ends a text. Raises `UserError`.
    """
    tokenizer = _load_tokenizer(name, revision, trust_remote_code, option)
    _check_round_trip(tokenizer, f"{option} {name}")
    return settle_tokenizer(tokenizer, name, chat_template, eos_token)


def settle_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str, chat_template: str | None = None, eos_token: str | None = None
) -> PreTrainedTokenizerBase:
    """`tokenizer` itself, of the model `name`, with a chat template and an end token as in `prepare_tokenizer`."""
    if eos_token is not None:
        _require_token(tokenizer, eos_token)
        tokenizer.eos_token = eos_token
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = _chatml(name, tokenizer)
    elif isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise UserError(
            f"{name} has chat templates named {', '.join(sorted(tokenizer.chat_template))}, and none named default: "
            "give chat_template, Jinja or a file that holds it."
        )
    render(tokenizer, [{"role": "user", "content": "1 + 1"}], where="chat_template")
    return tokenizer


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill padding with, which is always masked: the pad token, a token kept for padding, or eos.

    The tokenizer is not changed, so no loss that masks `tokenizer.pad_token_id` can hide the eos token.
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    vocabulary = tokenizer.get_vocab()
    for token in PAD_TOKENS:
        if token in vocabulary:
            return vocabulary[token]
    return tokenizer.eos_token_id or 0


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None) -> tuple[int, ...]:
    """Every token that ends a completion, ascending: those of the generation config, the tokenizer's eos token, and the
    one with which the chat template ends an assistant turn."""
    configured = generation_config.eos_token_id if generation_config is not None else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    ids += [tokenizer.eos_token_id, _end_of_turn(tokenizer)]
    return tuple(sorted({i for i in ids if i is not None}))


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Any],
    *,
    add_generation_prompt: bool = False,
    where: str = "the conversation",
) -> str:
    """`messages` as text by the chat template; a template that refuses them raises `UserError` with `where`."""
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise UserError(f"{where}: the chat template refuses this: {error}.") from error
    assert isinstance(text, str)
    return text


def encode(tokenizer: PreTrainedTokenizerBase, rendered: str) -> list[int]:
    """Token ids of rendered text, to which the template has already added every special token."""
    return tokenizer(rendered, add_special_tokens=False)["input_ids"]


def with_system_prompt(messages: Sequence[Any], system_prompt: str | None) -> list[Any]:
    """`messages` behind `system_prompt`, unless they have a system message of their own."""
    if not system_prompt or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [{"role": "system", "content": system_prompt}, *messages]


def check_messages(messages: Any, where: str) -> list[dict[str, Any]]:
    """The messages without their empty fields, with roles and contents also from `from` and `value` (ShareGPT)."""
    roles = {"human": "user", "gpt": "assistant"}
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: expected a list of messages, found {str(messages)[:40]!r}.")
    checked = []
    for message in messages:
        fields = {k: v for k, v in message.items() if v is not None} if isinstance(message, dict) else {}
        if "from" in fields and "value" in fields:
            fields = {"role": roles.get(fields["from"], fields["from"]), "content": fields["value"]}
        if not isinstance(fields.get("role"), str) or not isinstance(fields.get("content"), str):
            raise UserError(f"{where}: expected messages with role and content, found {str(message)[:60]!r}.")
        checked.append(fields)
    return checked


def _load_tokenizer(name: str, revision: str | None, trust_remote_code: bool, option: str) -> PreTrainedTokenizerBase:
    folder = Path(name).expanduser()
    if folder.is_dir() and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(
            f"{option} {name}: the folder has no tokenizer; copy tokenizer.json and "
            "tokenizer_config.json of its base model there."
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
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{option} {name}: the tokenizer cannot be loaded: {reason}") from error


def _check_round_trip(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    decoded = tokenizer.decode(encode(tokenizer, SAMPLE), skip_special_tokens=True)
    assert isinstance(decoded, str)
    if "".join(decoded.split()).lower() != "".join(SAMPLE.split()).lower():
        raise UserError(
            f"{where}: the tokenizer makes {decoded!r} of {SAMPLE!r}, so texts would be lost: "
            "copy tokenizer.json and tokenizer_config.json of its base model there."
        )


def _require_token(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    if token not in tokenizer.get_vocab():
        raise UserError(f"eos_token is {token!r}: expected one token of the tokenizer's vocabulary.")


def _read_template(chat_template: str) -> str:
    if "{" in chat_template:
        return chat_template
    path = Path(chat_template).expanduser()
    if not path.is_file():
        raise UserError(f"chat_template is {chat_template!r}: expected a Jinja template, or a file that exists.")
    return path.read_text(encoding="utf-8")


def _chatml(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    end = "<|im_end|>" if "<|im_end|>" in tokenizer.get_vocab() else tokenizer.eos_token
    if end is None:
        raise UserError(f"{name} has neither a chat template nor an end token: give chat_template and eos_token.")
    if os.environ.get("RANK", "0") == "0":
        logger.warning("%s has no chat template: ChatML is used, with turns that end in %s.", name, end)
    return CHATML.format(end=end)


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token right after an assistant's words, if the chat template writes one there."""
    if tokenizer.chat_template is None:
        return None
    answer = "forty-two"
    text = render(tokenizer, [{"role": "user", "content": "6 * 7"}, {"role": "assistant", "content": answer}])
    tail = encode(tokenizer, text.rpartition(answer)[2].lstrip())
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}  # type: ignore[attr-defined]
    return tail[0] if tail and tail[0] in special else None
