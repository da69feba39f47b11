"""How completions and prompts reach a reward: as message lists (chat) or plain strings."""

from typing import Any

THINK_OPEN = "<think>"


def text_of(completion: Any) -> str:
    """Text of a completion: a string, or a list of messages whose contents are joined by newlines."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message.get("content") or "") for message in completion)


def prefill_of(prompt: Any) -> str:
    """The part of a completion that its prompt has already written: `<think>` and the white space after it,
    when the prompt (rendered text, or a list of messages that ends with the assistant's) ends there, else ""."""
    if not isinstance(prompt, str):
        last = prompt[-1] if prompt else None
        if not isinstance(last, dict) or last.get("role") != "assistant":
            return ""
        prompt = str(last.get("content") or "")
    head = prompt.rstrip()
    return prompt[len(head) - len(THINK_OPEN) :] if head.endswith(THINK_OPEN) else ""


def judged_texts(completions: list, prompts: list | None = None, prefills: list[str] | None = None) -> list[str]:
    """Prefill plus completion, a string a row: what the model's turn looks like as a whole."""
    if prefills is None:
        prefills = [prefill_of(prompt) for prompt in prompts] if prompts is not None else [""] * len(completions)
    return [prefill + text_of(completion) for prefill, completion in zip(prefills, completions, strict=True)]
