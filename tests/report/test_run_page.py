"""The page of a run: what it reads, what it shows, and who may ask its server."""

import json
import re
import shlex
import socket
import struct
import threading
import urllib.request
from urllib.error import HTTPError
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served import served

from open_r1.errors import UserError
from open_r1.evaluation.answers_page import main as report
from open_r1.report.page import to_json
from open_r1.report.recorder import RunRecorder
from open_r1.report.run_data import RunPages
from open_r1.report.run_page import live_page, spread, write_run_page
from open_r1.report.serve import PageServer

NASTY = "</script><img src=x onerror=\"document.title='broken'\">\x00 \u202eabc <think>zebra</think>4"
LOGS = {
    **{"loss": 0.1, "reward_std": 0.4, "frac_reward_zero_std": 0.5, "completions/clipped_ratio": 0.0},
    **{"entropy": 0.5, "time/training": 2.0, "epoch": 0.5},
}


def rows(step):
    texts = ["<think>one</think>1", NASTY, "2", "half \ud800"]
    return [
        {
            "prompt": f"What is {p}+1?",
            "gold": "4",
            "completion": texts[i],
            "n_tokens": 5 + i,
            "finish_reason": "stop" if i else "length",
            "reward": float(i == step % 4),
            "advantage": i - 1.5,
            "reward/accuracy": float(i == 1),
        }
        for p in (3, 7)
        for i in range(4)
    ]


@pytest.fixture
def recorder(tmp_path):
    recorder = RunRecorder(tmp_path / "mine", {"num_generations": 4, "max_steps": 10}, is_main=True)
    recorder.start(0)
    for step in range(1, 6):
        recorder.log_rollouts(step, rows(step))
        recorder.log_metrics(step, {**LOGS, "reward": step / 10})
    return recorder


@pytest.fixture
def folder(recorder, tmp_path):
    return tmp_path / "mine"


def test_figures_come_as_they_are_appended_and_anew_after_a_restart(folder, recorder):
    pages = RunPages([folder])
    first = pages.get("figures/0/0/0")
    assert [line["reward"] for line in first["lines"]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert first["steps"] == [1, 2, 3, 4, 5] and first["config"]["max_steps"] == 10
    recorder.log_metrics(6, {**LOGS, "reward": 0.6})
    with (folder / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "rew')
    news = pages.get(f"figures/0/{first['generation']}/5")
    assert (news["from"], [line["step"] for line in news["lines"]]) == (5, [6])
    again = RunRecorder(folder, recorder.config, is_main=True)
    again.start(3)
    news = pages.get(f"figures/0/{news['generation']}/6")
    assert (news["from"], [line["step"] for line in news["lines"]]) == (0, [1, 2, 3])
    assert news["steps"] == [1, 2, 3]


def test_rollouts_come_by_group_and_texts_only_for_the_rows_asked_for(folder):
    pages = RunPages([folder])
    step = pages.get("rollouts/0/2")
    assert [(g["prompt"], g["start"], g["end"]) for g in step["groups"]] == [
        ("What is 3+1?", 0, 4),
        ("What is 7+1?", 4, 8),
    ]
    assert step["reward"] == [0, 0, 1, 0] * 2 and step["rewards"] == {"accuracy": [0, 1, 0, 0] * 2}
    assert "zebra" not in json.dumps(step)
    assert pages.get("texts/0/2/5/7") == [NASTY, "2"]
    assert pages.get("search/0/2", "ZEBRA") == [1, 5]
    problem = pages.get("problems/0")[0]
    assert [(visit["step"], visit["reward"]) for visit in problem["visits"]] == [(step, 0.25) for step in range(1, 6)]


@pytest.mark.parametrize("path", ["rollouts/0/9", "rollouts/1/1", "texts/0/../1", "nothing/0", "rollouts/-1/1", "x"])
def test_paths_that_there_are_none_of(folder, path):
    with pytest.raises((LookupError, ValueError)):
        RunPages([folder]).get(path)


def test_a_folder_without_a_run_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for other in ("empty", "missing", "mine/run/config.yaml"):
        with pytest.raises(UserError, match="give the output_dir of a training run"):
            RunPages([tmp_path / other])
    with pytest.raises(UserError, match=r"give one of those in it \(.*/mine\)"):
        RunPages([tmp_path])
    (tmp_path / "odd/run/config.yaml").mkdir(parents=True)
    with pytest.raises(UserError, match=r"odd/run/config\.yaml cannot be read \(Is a directory\)"):
        RunPages([tmp_path / "odd"])


def test_the_saved_page_loads_nothing_and_what_a_model_wrote_stays_text(folder, tmp_path):
    saved = write_run_page(folder, tmp_path / "page.html", 200)
    html = saved.path.read_text()
    assert (saved.carried, saved.steps) == (5, 5)
    assert "zebra" not in html and "default-src 'none'" in html and "connect-src" not in html
    assert not re.search(r"(src|href)\s*=\s*[\"']|@import|url\(", html)
    small = write_run_page(folder, tmp_path / "small.html", 0.002)
    assert 0 < small.carried < 5


def test_a_page_of_a_run_that_cannot_be_written_is_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match=r"page\.html cannot be written"):
        report([str(folder), "--output", str(tmp_path / "none" / "page.html")])


def test_the_commands_that_are_shown_can_be_pasted(folder, capsys):
    folder = folder.rename(folder.with_name("my run"))
    results = folder / "evaluation" / "sums" / "results.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"task": "sums", "pass@1": 0.5}))
    (found,) = RunPages([folder]).get("figures/0/0/0")["benchmarks"]
    assert shlex.split(found["command"]) == ["open-r1", "report", str(results.parent)]
    report([str(folder)])
    assert shlex.split(capsys.readouterr().out.split("benchmarks: ")[1]) == [
        "open-r1",
        "report",
        f"{folder}/evaluation",
    ]


def test_the_first_steps_of_a_small_page_are_spread_over_the_run():
    assert list(spread([])) == [] and list(spread([4])) == [4]
    assert list(spread(range(9)))[:5] == [8, 0, 4, 2, 6]
    assert sorted(spread(range(37))) == list(range(37))


@pytest.fixture
def server(folder):
    pages = RunPages([folder])
    with served() as start:
        yield start(PageServer(live_page(pages), pages.get, 0))


def fetched(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
        return reply.read().decode()


def test_the_server_answers_only_who_knows_its_word_and_only_under_loopback_names(server):
    assert "connect-src 'self'" in fetched(server.url)
    assert json.loads(fetched(server.url + "texts/0/2/1/2")) == [NASTY]
    assert "Open R1" in fetched(server.url, Host="localhost:9999")
    root = f"http://127.0.0.1:{server.server_port}/"
    for url, host in ((root, "localhost"), (root + "guess/", "localhost"), (server.url, "evil.example")):
        with pytest.raises(HTTPError, match="403"):
            fetched(url, Host=host)
    with pytest.raises(HTTPError, match="404"):
        fetched(server.url + "rollouts/0/77")
    with pytest.raises(UserError, match="cannot be used"):
        PageServer("", lambda path, words: None, server.server_port)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:9000", "[::1]:9000"])
def test_a_forwarded_port_is_answered(server, host):
    assert "Open R1" in fetched(server.url, Host=host)
    assert "Open R1" in fetched(server.url.rstrip("/"), Host=host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example:80", "localhost.", "[::1", "0.0.0.0", ":1"]
)
def test_other_hosts_are_not(server, host):
    with pytest.raises(HTTPError, match="403"):
        fetched(server.url, Host=host)


PATHS = ["../run/config.yaml", "..%2f..%2fetc%2fpasswd", "rollouts/0/../../x", "texts/0/1/0/" + "9" * 30, "figures/0"]
PATHS += ["rollouts/0/" + "9" * 5000, "rollouts/²/1", "search/0", "//", "%00", "figures/0/0/0/0", "http://[/"]


@pytest.mark.parametrize("path", PATHS)
def test_odd_paths_end_in_a_sentence(server, path, capfd):
    with pytest.raises(HTTPError) as refused:
        fetched(server.url + quote(path, safe="/.:[%"))
    assert refused.value.code in (403, 404) and json.loads(refused.value.read())["error"]
    assert capfd.readouterr().err == ""


RAW = [
    b"",
    b"GET",
    b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"A" * 70_000,
]
RAW += [b"POST /{word}/say HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: x\r\n\r\n"]
RAW += [
    b"POST /{word}/say HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{]"
]
RAW += [b"GET /{word}/texts/0/2/0/8 HTTP/1.1\r\nHost: localhost\r\n\r\n"]


@pytest.mark.parametrize("raw", RAW)
def test_readers_who_leave_and_requests_that_are_none_leave_no_trace(server, raw, capfd):
    with socket.create_connection(server.server_address) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
        reader.sendall(raw.replace(b"{word}", server.word.encode()))
    assert "Open R1" in fetched(server.url)
    assert capfd.readouterr().err == ""


def test_several_watchers_see_each_line_once(folder, recorder):
    pages = RunPages([folder])
    seen, steps = [], 60

    def watch():
        lines, generation = [], 0
        while len(lines) < steps:
            news = pages.get(f"figures/0/{generation}/{len(lines)}")
            lines, generation = [*lines[: news["from"]], *news["lines"]], news["generation"]
            pages.get("problems/0")
        seen.append([line["step"] for line in lines])

    watchers = [threading.Thread(target=watch, daemon=True) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    for step in range(6, steps + 1):
        recorder.log_metrics(step, LOGS)
    for watcher in watchers:
        watcher.join(60)
    assert seen == [list(range(1, steps + 1))] * 4


def test_what_is_no_number_leaves_a_gap(folder):
    with (folder / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "reward": NaN, "odd": [Infinity]}\n{"step": true}\n{"step": "7"}\n[1]\n\xff\n')
    figures = RunPages([folder]).get("figures/0/0/0")
    assert json.loads(to_json(figures), parse_constant=pytest.fail)["lines"][5] == {
        "step": 6,
        "reward": None,
        "odd": [None],
    }


def test_damaged_files_are_named_and_the_others_are_read(folder):
    half = folder / "run/rollouts/step-000003.parquet"
    half.write_bytes(half.read_bytes()[:300])
    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"]}), folder / "run/rollouts/step-000004.parquet")
    (folder / "run/config.yaml").write_text("a: [")
    (folder / "run/environment.json").write_text("[1")
    pages = RunPages([folder])
    with pytest.raises(ValueError, match=r"step-000003\.parquet cannot be read"):
        pages.get("rollouts/0/3")
    with pytest.raises(LookupError, match=r"step-000004\.parquet has no column"):
        pages.get("rollouts/0/4")
    assert [visit["step"] for visit in pages.get("problems/0")[0]["visits"]] == [1, 2, 5]
    assert (pages.get("figures/0/0/0")["config"], pages.get("figures/0/0/0")["environment"]) == ({}, {})
    saved = write_run_page(folder, folder / "report.html", 10)
    assert (saved.carried, saved.damaged) == (3, [3, 4])
