"""The text of completions and prompts, which are message lists (chat) or plain strings."""

from typing import Any

from open_r1.errors import UserError

THINK_OPEN = "<think>"


class RowError(UserError):
    """One row of a batch is invalid; `row` counts from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(f"row {row}: {message}")
        self.row = row


def text_of(completion: Any) -> str:
    """Text of a completion: a string, or a list of messages whose contents are joined by newlines."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message.get("content") or "") for message in completion)


def texts_of(completions: list) -> list[str]:
    """`text_of` for each completion. Raises `RowError` for one that is neither text nor messages."""
    for row, completion in enumerate(completions):
        check_completion(row, completion)
    return [text_of(completion) for completion in completions]


def check_completion(row: int, completion: Any) -> None:
    """Raises `RowError` unless `completion` is text or a list of messages."""
    messages = isinstance(completion, (list, tuple)) and all(isinstance(message, dict) for message in completion)
    if not isinstance(completion, str) and not messages:
        raise RowError(row, f"the completion is {completion!r:.80}: it must be text or a list of messages.")


def prefill_of(prompt: Any) -> str:
    """The beginning of the completion that the prompt already contains: `<think>` and the white space after it, or "".

    `prompt` is rendered text, or a list of messages that ends with the assistant's.
    """
    if not isinstance(prompt, str):
        last = prompt[-1] if prompt else None
        if not isinstance(last, dict) or last.get("role") != "assistant":
            return ""
        prompt = str(last.get("content") or "")
    head = prompt.rstrip()
    return prompt[len(head) - len(THINK_OPEN) :] if head.endswith(THINK_OPEN) else ""


def judged_texts(completions: list, prompts: list | None = None, prefills: list[str] | None = None) -> list[str]:
    """Prefill plus completion of each row: the model's whole turn."""
    if prefills is None:
        prefills = [prefill_of(prompt) for prompt in prompts] if prompts is not None else [""] * len(completions)
    return [prefill + text for prefill, text in zip(prefills, texts_of(completions), strict=True)]
