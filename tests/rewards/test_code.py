import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from open_r1.errors import UserError
from open_r1.rewards import get_reward_funcs, score
from open_r1.rewards.code.choose import best_isolation
from open_r1.rewards.code.isolation import Isolation, interpreter
from open_r1.rewards.code.programs import extract_code, with_includes
from open_r1.rewards.code.rewards import (
    binary_code_reward,
    cf_code_reward,
    code_reward,
    get_code_format_reward,
    ioi_code_reward,
)
from open_r1.rewards.code.sandbox import Limits, run
from open_r1.rewards.code.seccomp import filter_program

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
CASES = [{"input": f"{k} {k + 1}\n", "output": f"{2 * k + 1}\n"} for k in range(4)]
INFO = {"language": "python", "test_cases": CASES}


def answer(source, language="python"):
    text = f"<think>\nhm\n</think>\n<answer>\n```{language}\n{source}\n```\n</answer>"
    return [{"role": "assistant", "content": text}]


@pytest.fixture(params=["bubblewrap", "limits"])
def isolation(request):
    if request.param == "bubblewrap":
        if shutil.which("bwrap") is None:
            pytest.skip("bubblewrap is not installed")
        return best_isolation()
    return Isolation("limits", best_isolation().user, shared_count=True)


def execute(source, folder, isolation, seconds=0.3, wall=10.0):
    (folder / "main.py").write_text(source)
    command = [interpreter(), "{code}/main.py"]
    return run(command, folder, stdin="hi\n", limits=Limits(seconds, wall_seconds=wall), isolation=isolation)


def test_a_program_reads_stdin_and_writes_scratch_files(folder, isolation):
    outcome = execute("open('f', 'w').write(input())\nprint(open('f').read())", folder, isolation)
    assert (outcome.status, outcome.stdout) == ("ok", "hi\n")


@pytest.mark.parametrize(
    ("source", "statuses"),
    [
        ("while True: pass", {"time"}),
        ("import time\ntime.sleep(60)", {"time"}),
        ("import os, time\nos.close(1)\ntime.sleep(60)", {"time"}),
        ("while True: print('x' * 1000)", {"output"}),
        ("x = bytearray(10**10)", {"error", "memory"}),
        ("f = open('f', 'wb')\nwhile True: f.write(b'0' * 10**6)", {"error", "time"}),
        ("import os\nwhile True: os.fork()", {"error", "processes", "time"}),
        ("import sys\nsys.exit(3)", {"error"}),
        ("open('/usr/bin/x', 'w')", {"error"}),
        ("open(__file__, 'w')", {"error"}),
    ],
)
def test_limits_hold(source, statuses, folder, isolation):
    wall = 1.0 if "sleep" in source else 10.0
    assert execute(source, folder, isolation, wall=wall).status in statuses
    assert execute("print(1)", folder, isolation).stdout == "1\n"


@pytest.mark.parametrize(
    "source",
    [
        "print(open('/etc/passwd').read())",
        "print(open('/proc/1/environ').read())",
        "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
        "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)\nprint('connected')",
        "import os\nprint([f for d, _, fs in os.walk('/home') for f in fs] or 1 / 0)",
        "import os\nprint([f for d, _, fs in os.walk('/root') for f in fs] or 1 / 0)",
    ],
)
@needs_bubblewrap
def test_the_machine_cannot_be_seen(source, folder):
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    outcome = execute(source.replace("PORT", str(server.server_port)), folder, best_isolation())
    server.server_close()
    assert (outcome.status, outcome.stdout) == ("error", "")


@needs_bubblewrap
def test_the_environment_and_other_processes_cannot_be_seen_or_killed(folder, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    outcome = execute("import os\nprint(dict(os.environ), os.getppid())", folder, best_isolation())
    assert "hunter2" not in outcome.stdout and outcome.stdout.endswith(" 2\n")
    execute("import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)", folder, best_isolation())


@needs_bubblewrap
def test_memory_that_no_limit_counts_cannot_be_taken(folder):
    source = (
        "import os\n"
        "for place in ('/', '/dev/', '/code/', '/usr/'):\n"
        "    try:\n        open(place + 'x', 'w')\n        print('wrote', place)\n    except OSError: pass\n"
        "for place in ('/dev/shm', '/tmp'):\n"
        "    written = 0\n"
        "    try:\n"
        "        for k in range(4):\n"
        "            with open(f'{place}/{k}', 'wb') as f: written += f.write(b'x' * (30 << 20))\n"
        "    except OSError: print(place, written >> 20)\n"
    )
    outcome = execute(source, folder, best_isolation())
    assert (outcome.status, outcome.stdout) == ("ok", "/dev/shm 60\n/tmp 60\n")


@needs_bubblewrap
@pytest.mark.skipif(filter_program() is None, reason="no table of system calls for this processor")
def test_system_calls_that_programs_do_not_need_fail(folder):
    source = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def refused(result): return result == -1 and ctypes.get_errno() == 1\n"
        "try: os.memfd_create('x')\nexcept PermissionError: print('memfd')\n"
        "print(refused(libc.ptrace(16, os.getppid(), 0, 0)), refused(libc.unshare(0x10000000)))\n"
        "print(refused(libc.syscall(425, 4, ctypes.create_string_buffer(120))))\n"
        "import subprocess, threading, multiprocessing\n"
        "print(subprocess.run(['echo', 'still'], capture_output=True, text=True).stdout.strip())\n"
        "threading.Thread(target=print, args=('works',)).start()\n"
    )
    outcome = execute(source, folder, best_isolation())
    assert (outcome.status, outcome.stdout) == ("ok", "memfd\nTrue True\nTrue\nstill\nworks\n")


def test_the_filter_is_for_known_processors_only():
    assert len(filter_program("x86_64")) % 8 == len(filter_program("aarch64")) % 8 == 0
    assert filter_program("riscv64") is None


@needs_bubblewrap
def test_what_a_program_starts_ends_with_it(folder):
    mark = folder.name
    (folder / "main.py").write_text("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n")
    outcome = run([interpreter(), "{code}/main.py", mark], folder, isolation=best_isolation())
    assert outcome.status == "ok"
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path)]


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def test_code_reward_is_the_share_of_passed_cases():
    programs = [ADD, "print(1)", "", "raise SystemExit(0)"]
    completions = [answer(source) for source in programs]
    assert code_reward(completions, verification_info=[INFO] * 4) == [1.0, 0.25, 0.0, 0.0]
    assert binary_code_reward(completions, [json.dumps(INFO)] * 4) == [1.0, 0.0, 0.0, 0.0]


def test_code_reward_details():
    columns = {"test_cases": {"input": ["1 2"], "output": ["3"]}}
    assert code_reward([answer(ADD)], verification_info=[columns]) == [1.0]
    assert code_reward([answer(ADD)], verification_info=[{"test_cases": []}]) == [None]
    assert code_reward([answer("print('3\\n4')")], verification_info=[columns]) == [0.0]
    assert code_reward([answer("print('3  \\n')")], verification_info=[columns]) == [1.0]
    with pytest.raises(UserError, match="verification_info"):
        code_reward([answer(ADD)])


@pytest.mark.parametrize("info", ["", "  ", None, {}, "{}", {"language": "python", "test_cases": []}])
def test_a_row_without_tests_gets_no_reward(info):
    assert code_reward([answer(ADD)], verification_info=[info]) == [None]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("{'language': 'python'}", "row 1: verification_info is .*not JSON.*it must be"),
        ("[1, 2]", "row 1: verification_info is .*it must be"),
        ({"test_cases": "1 2"}, "row 1: test_cases are '1 2'"),
        ({"test_cases": ["1 2"]}, "row 1: a test case is '1 2': it must have 'input' and 'output'"),
        ({"test_cases": [{"input": "1"}]}, "row 1: a test case is"),
        ({"test_cases": {"input": ["1", "2"], "output": ["3"]}}, "row 1: test_cases have 2 inputs for 1 outputs"),
    ],
)
def test_a_malformed_row_is_named(info, message):
    with pytest.raises(UserError, match=message):
        code_reward([answer(ADD)] * 2, verification_info=[INFO, info])


def test_an_input_of_none_is_empty():
    cases = [{"input": None, "output": "0"}]
    program = "import sys\nprint(len(sys.stdin.read()))"
    assert code_reward([answer(program)], verification_info=[{"test_cases": cases}]) == [1.0]


def test_a_language_that_the_provider_does_not_run_gets_no_reward_and_a_reason(caplog):
    columns = [{"language": "rust", "test_cases": CASES}, {"language": "Python3", "test_cases": CASES}]
    assert code_reward([answer("x", "rust"), answer(ADD)], verification_info=columns) == [None, 1.0]
    assert code_reward([answer("x", "text")], verification_info=columns[:1]) == [None]
    assert "row 0 needs language 'rust'" in caplog.text
    assert cf_code_reward([answer("x", "rust")], official_tests=[CASES], language=["rust"]) == [None]


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.exit(0)",
        "import builtins\nstr.__eq__ = lambda a, b: True\nprint('anything')",
        "import builtins\nbuiltins.print = lambda *a: None",
        "import gc\nprint([o for o in gc.get_objects() if 'output' in str(o)[:100]][:1])",
        "import glob\nprint([open(f).read() for f in glob.glob('/code/*') + glob.glob('/tmp/*')])",
        "import verification_info\nprint(verification_info)",
        "print('3\\n5\\n7\\n9')",
    ],
)
def test_cheats_do_not_pass(source):
    assert code_reward([answer(source)], verification_info=[INFO]) in ([0.0], [0.25])


def test_a_program_that_times_out_thrice_is_not_run_further():
    cases = [{"input": "", "output": "1"}] * 50
    row = code_reward([answer("while True: pass")], [{"test_cases": cases}], time_limit=0.1)
    assert row == [0.0]


def test_registered_code_rewards_run_in_a_batch():
    args = SimpleNamespace(reward_funcs=["code", "binary_code", "code_format"], parallel_code_exec_per_proc=2)
    rows = score(
        get_reward_funcs(args), prompts=["p"], completions=[answer(ADD)], columns={"verification_info": [INFO]}
    )
    assert rows == [{"code_reward": 1.0, "binary_code_reward": 1.0, "code_format_reward": 1.0}]


@needs_compiler
def test_cpp_and_codeforces_scoring():
    good = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b; }"
    half = "#include <iostream>\nint main() { std::cout << 1; }"
    completions = [answer(good, "cpp"), answer(half, "cpp"), answer("int main() {", "cpp"), answer("x", "java")]
    columns = {"official_tests": [CASES] * 4, "language": ["cpp"] * 4, "time_limit": [2.0] * 4}
    assert cf_code_reward(completions, **columns) == [pytest.approx(1.1), pytest.approx(0.025), -0.1, -1.0]
    assert cf_code_reward(completions, scoring_mode="partial", **columns) == [1.0, 0.25, -0.1, -1.0]
    assert cf_code_reward(completions, scoring_mode="pass_fail", **columns) == [1.0, 0.0, -0.1, -1.0]
    assert cf_code_reward(completions[:1], official_tests=[[]]) == [None]


def test_codeforces_checker_of_the_dataset_decides():
    checker = (
        "import sys\n"
        "given, expected, output = (open(p).read() for p in sys.argv[1:])\n"
        "print(1 if sorted(output.split()) == sorted(expected.split()) else 0)\n"
    )
    columns = {
        "official_tests": [[{"input": "", "output": "1 2 3"}]] * 2,
        "language": ["python"] * 2,
        "generated_checker": [checker] * 2,
    }
    assert cf_code_reward([answer("print('3 1 2')"), answer("print('3 1 1')")], **columns) == [1.1, 0.0]


@needs_compiler
def test_ioi_function_is_linked_with_its_grader():
    grader = (
        '#include "sum.h"\n#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << add(a, b); }'
    )
    columns = {
        "id": ["sum"] * 2,
        "grader_files": [[["graders/grader.cpp", grader], ["graders/sum.h", "int add(int a, int b);"]]] * 2,
        "test_names": [["a", "b"]] * 2,
        "test_cases": [{"a": ["1 2", "3"], "b": ["2 2", "4"]}] * 2,
    }
    completions = [answer("int add(int a, int b) { return a + b; }", "cpp")]
    completions += [answer("int add(int a, int b) { return 3; }", "cpp")]
    assert ioi_code_reward(completions, **columns) == [1.0, 0.0]


def test_code_is_taken_from_the_answer():
    text = "```python\nold\n```\n</think>\n```py\nnew\n```"
    assert extract_code(text) == "new\n"
    assert extract_code("```cpp\nint x;\n```", "python") == ""
    assert with_includes("int f();", "sum").startswith('#include <bits/stdc++.h>\n#include "sum.h"\n')


def test_code_format():
    reward = get_code_format_reward("python")
    text = answer(ADD)[0]["content"]
    assert reward([text, text + "\nbye", text.replace("```python", "```cpp")]) == [1.0, 0.0, 0.0]
    assert reward([text], language=["cpp"]) == [0.0]
    assert reward([text.removeprefix("<think>\n")], prompts=["q<think>\n"]) == [1.0]


class FakeServer(BaseHTTPRequestHandler):
    """Answers like Piston and like an E2B router, by running Python programs here."""

    failures = 0
    seen: list = []  # noqa: RUF012

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        FakeServer.seen.append((self.path, body))
        if FakeServer.failures:
            FakeServer.failures -= 1
            if FakeServer.failures % 2:
                self.send_error(503)
            return  # or hangs up
        if self.path.endswith("/execute_batch"):
            output = self.python(body["scripts"][0], "")
            reply = [{"execution": {"logs": {"stdout": [output]}}, "exception_str": None}]
        elif body["language"] == "cms_ioi":
            reply = {"compile": {"code": 0}, "run": {"stdout": "0.5\n", "stderr": "partly right", "code": 0}}
        else:
            reply = {"run": {"stdout": self.python(body["files"][0]["content"], body["stdin"]), "code": 0}}
        payload = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def python(self, source, stdin):
        import subprocess

        return subprocess.run([sys.executable, "-c", source], input=stdin, text=True, capture_output=True).stdout

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), FakeServer)
    FakeServer.failures, FakeServer.seen = 0, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_piston_gives_the_same_rewards_and_failures_are_retried(server, monkeypatch):
    monkeypatch.setenv("PISTON_ENDPOINTS", f"http://{server}/api/v2")
    FakeServer.failures = 2
    completions = [answer(ADD), answer("print(1)")]
    assert code_reward(completions, [INFO] * 2, provider_type="piston") == [1.0, 0.25]
    assert FakeServer.seen[0][0] == "/api/v2/execute"
    assert "3\n" not in json.dumps(FakeServer.seen[0][1])  # expected outputs stay here
    columns = {"id": ["p"], "grader_files": [[]], "test_names": [["a"]], "test_cases": [{"a": ["1", "2"]}]}
    assert ioi_code_reward([answer("int x;", "cpp")], provider_type="piston", **columns) == [0.5]
    FakeServer.failures = 10
    with pytest.raises(UserError, match="no answer from Piston"):
        code_reward(completions[:1], [INFO], provider_type="piston")


def test_e2b_router_gives_the_same_rewards(server):
    completions = [answer(ADD), answer("print(1)")]
    assert code_reward(completions, [INFO] * 2, provider_type="e2b", e2b_router_url=server) == [1.0, 0.25]


def test_providers_that_are_not_set_up_say_so(monkeypatch):
    monkeypatch.delenv("PISTON_ENDPOINTS", raising=False)
    with pytest.raises(UserError, match="PISTON_ENDPOINTS is not set"):
        code_reward([answer(ADD)], [INFO], provider_type="piston")
    with pytest.raises(UserError, match="code_provider is 'morph'"):
        code_reward([answer(ADD)], [INFO], provider_type="morph")
