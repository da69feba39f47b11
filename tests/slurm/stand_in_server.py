"""`python stand_in_server.py PORT MODEL [lifetime in requests]`: answers like vLLM, and can die."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_openai import FakeServer

port, model = int(sys.argv[1]), sys.argv[2]
left = [int(sys.argv[3])] if len(sys.argv) > 3 else [10**9]


def answer(question):
    left[0] -= 1
    if left[0] < 0:
        print("the stand-in server has had enough", flush=True)
        os._exit(3)
    return f"<think>\n{question}\n</think>\n<answer>\n4\n</answer>"


FakeServer(port=port, model=model, slow=0.05, answer=answer).serve_forever()
