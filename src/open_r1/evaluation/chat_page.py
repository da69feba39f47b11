"""The page of `open-r1 chat --web`."""

import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_r1.engine.protocol import check_sampling
from open_r1.errors import UserError
from open_r1.evaluation.conversation import Answer, Conversation, Say, follow, save_row
from open_r1.report.page import render_page
from open_r1.report.serve import PageServer, serve

if TYPE_CHECKING:
    from open_r1.evaluation.chat import ChatOptions


def serve_chat(model: str, args: "ChatOptions", say: Say) -> None:
    """Serves the page until Ctrl-C. Raises UserError."""
    writing = threading.Lock()
    serve(chat_server(model, args, say, writing), "Chat")
    writing.acquire(timeout=10)  # an interpreter that exits while torch is working aborts


def chat_server(model: str, args: "ChatOptions", say: Say, writing: threading.Lock) -> PageServer:
    """The server, not yet running. The page stores the conversation. One answer is generated at a time, by the thread
    that holds `writing`."""
    data = {
        "model": Path(model).name or model,
        "system": args.system_prompt,
        "temperature": args.temperature,
        "limit": args.max_new_tokens,
        "save": str(args.save),
    }
    html = render_page("chat.html", scripts=["chat.js"], styles=["chat.css"], data=data, live=True, title=data["model"])

    def answer_to(body: Any) -> Generator[dict[str, Any]]:
        answer = Answer()
        with writing:
            try:
                conversation = _conversation(body["system"], body["turns"])
                temperature, limit = float(body["temperature"]), body["limit"]
                check_sampling(temperature, args.top_p)
                args.temperature, args.max_new_tokens = temperature, max(1, int(limit)) if limit else None
                with closing(follow(say(conversation.messages(str(body["question"]))), answer)) as pieces:
                    for kind, text in pieces:
                        yield {"kind": kind, "text": text}
            except (UserError, KeyError, TypeError, ArithmeticError, ValueError, RuntimeError) as error:
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
    pairs = [(str(t["question"]), Answer(content=str(t["content"]), whole=str(t["whole"]))) for t in turns]
    return Conversation(str(system or "") or None, pairs)


def _nothing(path: str, words: str) -> Any:
    raise LookupError(f"there is no {path}")
