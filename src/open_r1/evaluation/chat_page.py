"""The page of `open-r1 chat --web`."""

import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_r1.errors import UserError
from open_r1.evaluation.conversation import Answer, Conversation, Say, follow, save_row
from open_r1.report.page import render_page
from open_r1.report.serve import PageServer, serve

if TYPE_CHECKING:
    from open_r1.evaluation.chat import ChatOptions


def serve_chat(model: str, args: "ChatOptions", say: Say) -> None:
    """Serves the page until Ctrl-C. Raises UserError."""
    serve(chat_server(model, args, say), "Chat")


def chat_server(model: str, args: "ChatOptions", say: Say) -> PageServer:
    """The server, not yet running. The page holds the conversation; one answer is written at a time."""
    data = {
        "model": Path(model).name or model,
        "system": args.system_prompt,
        "temperature": args.temperature,
        "limit": args.max_new_tokens,
        "save": str(args.save),
    }
    html = render_page("chat.html", scripts=["chat.js"], styles=["chat.css"], data=data, live=True, title=data["model"])
    writing = threading.Lock()

    def answer_to(body: Any) -> Generator[dict[str, Any]]:
        answer = Answer()
        with writing:
            try:
                conversation = _conversation(body["system"], body["turns"])
                args.temperature = max(0.0, float(body["temperature"]))
                args.max_new_tokens = max(1, int(body["limit"])) if body["limit"] else None
                pieces = follow(say(conversation.messages(str(body["question"]))), answer)
                for kind, text in pieces:
                    yield {"kind": kind, "text": text}
            except (UserError, KeyError, TypeError, ValueError) as error:
                yield {"kind": "error", "text": str(error)}
        yield {"kind": "end", "text": answer.text()}

    def save(body: Any) -> Generator[dict[str, Any]]:
        try:
            save_row(args.save, _conversation(body["system"], body["turns"]).row())
            yield {"kind": "saved", "text": str(args.save)}
        except (UserError, KeyError, TypeError) as error:
            yield {"kind": "error", "text": str(error)}

    server = PageServer(html, _nothing, args.port)
    server.actions = {"say": answer_to, "save": save}
    return server


def _conversation(system: str | None, turns: list[dict[str, str]]) -> Conversation:
    """From the page's turns: `question`, `content` and `whole`, the answer with its reasoning."""
    pairs = [(t["question"], Answer(content=t["content"], whole=t["whole"])) for t in turns]
    return Conversation(system or None, pairs)


def _nothing(path: str, words: str) -> Any:
    raise LookupError(f"there is no {path}")
