"""`hpt-trl demonstrate`: with the bundled model in this process, and on a local server with OpenAI's protocol."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from hpt_trl.commands.demonstrate import DemonstrateArguments, demonstrate, main
from hpt_trl.common.errors import RunError
from hpt_trl.data.sources import resolve_rows
from hpt_trl.evaluation.demonstrations import CHOICES
from hpt_trl.evaluation.engines import TransformersEngine, load_tokenizer, resolve_checkpoint
from hpt_trl.evaluation.scores import Answer
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.miniature.tasks import problems
from hpt_trl.verifier.verdicts import judge
from tests.openai_server import Server

KEY = "sk-0123456789abcdef"
COUNT = 24
SMALL = {"limit": COUNT, "samples": 6, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 48, "batch_size": 8}


@pytest.fixture
def source(tmp_path):
    """Rows of the bundled task; only the first has a demonstration."""
    rows = problems(COUNT, 0, "train")
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(
            json.dumps(row | {"demonstration": row["demonstration"] * (n == 0)}) + "\n" for n, row in enumerate(rows)
        )
    )
    return str(path)


def arguments(source, folder, **changes):
    options = {"source": source, "output": str(folder / "out" / "train.jsonl"), "model": "miniature"} | SMALL
    return DemonstrateArguments(**(options | changes))


def rows_of(args):
    return [json.loads(line) for line in Path(args.output).read_text().splitlines()]


def saved(args):
    """All completions on disk, in order."""
    files = sorted(Path(f"{args.output}.samples").glob("*.jsonl"))
    return [Answer(**json.loads(line)) for file in files for line in file.read_text().splitlines()]


def check(args, summary):
    """What was written is right, counted, and taken by the trainer."""
    rows = rows_of(args)
    report = json.loads(Path(f"{args.output}.report.json").read_text())["demonstrations"]
    found = [row for row in rows[1:] if row["demonstration"]]
    assert len(rows) == COUNT
    assert rows[0]["demonstration"] == problems(1, 0, "train")[0]["demonstration"]
    assert 0 < len(found) == report["found"] < report["missing"] == COUNT - 1
    assert set(judge([row["demonstration"] for row in found], [row["solution"] for row in found])) == {"right"}
    assert report["completions"] == len(saved(args))
    assert f"{len(found)} of {COUNT - 1} prompts without a demonstration got one" in summary
    assert {"prompt", "demonstration", "solution"} <= set(
        resolve_rows(str(Path(args.output).parent), "train").column_names
    )


def test_first_stops_sampling_a_prompt_once_a_completion_is_accepted(source, tmp_path):
    args = arguments(source, tmp_path)
    check(args, demonstrate(args))
    answers = saved(args)
    rows = rows_of(args)
    for index in range(1, COUNT):
        own = [answer for answer in answers if answer.problem == index]
        right = [answer.verdict == "right" and not answer.cut for answer in own]
        assert not any(right[:-1])
        assert rows[index]["demonstration"] == (own[-1].text if right[-1] else "")
        assert right[-1] or len(own) == args.samples


def test_most_likely_keeps_the_completion_with_the_highest_log_probability(source, tmp_path):
    args = arguments(source, tmp_path, choose="most_likely", samples=4)
    check(args, demonstrate(args))
    answers, rows = saved(args), rows_of(args)
    assert len(answers) == (COUNT - 1) * 4
    for index in range(1, COUNT):
        right = [a for a in answers if a.problem == index and a.verdict == "right" and not a.cut]
        if right:
            assert rows[index]["demonstration"] == max(right, key=lambda answer: answer.logp).text


def test_the_choice_is_by_order_of_sampling_length_and_likelihood():
    # (sample, tokens, log-probability)
    made = [(0, 9, -3.0), (1, 4, -5.0), (2, 7, -1.0)]
    answers = [Answer(0, sample, "", tokens, False, "right", logp) for sample, tokens, logp in made]
    assert {name: min(answers, key=key).sample for name, key in CHOICES.items()} == {
        "first": 0, "shortest": 1, "most_likely": 2,
    }  # fmt: skip


def test_the_log_probability_is_that_of_the_tokens():
    checkpoint = resolve_checkpoint("miniature")
    engine = TransformersEngine(checkpoint, load_tokenizer(checkpoint), "float32", with_logps=True)
    prompt, ids = engine.tokenizer("1+1=?\n")["input_ids"], engine.tokenizer("\\boxed{2}")["input_ids"]
    expected = 0.0
    for position, token in enumerate(ids):  # one token after another, without a shared forward pass
        logits = engine.model(torch.tensor([[*prompt, *ids[:position]]])).logits[0, -1]
        expected += logits.log_softmax(-1)[token].item()
    assert engine._logp(prompt, ids) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("choose", ["first", "most_likely"])
def test_a_server_completes_and_its_key_reaches_no_file(source, tmp_path, monkeypatch, choose):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password from-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Server(KEY, fail=3) as server:
        args = arguments(source, tmp_path, model="small", endpoint=server.address, choose=choose, samples=3)
        check(args, demonstrate(args))
        assert len(server.asked) == len(saved(args))
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.fixture
def chats(tmp_path):
    """Conversations without demonstrations."""
    rows = [
        {**row, "prompt": [{"role": "user", "content": row["prompt"]}], "demonstration": ""}
        for row in problems(COUNT, 0, "train")
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_conversations_are_sent_as_messages(chats, tmp_path):
    with Server() as server:
        args = arguments(chats, tmp_path, model="small", endpoint=server.address)
        demonstrate(args)
    assert any(row["demonstration"] for row in rows_of(args))
    assert all(row["prompt"][0]["role"] == "user" for row in rows_of(args))


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"model": "large"}, KEY, "status 404: .*no model large"),
        ({}, "sk-wrong-key-0000", r"status 401: .*not this key: Bearer \*\*\*.*OPENAI_API_KEY is set"),
        ({"endpoint": "http://127.0.0.1:9/v1"}, KEY, "cannot be reached"),
    ],
)
def test_what_a_server_refuses_is_one_paragraph_without_the_key(
    source, tmp_path, monkeypatch, capsys, changes, key, message
):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setattr("hpt_trl.evaluation.endpoint._RETRY.backoff_factor", 0)
    with Server(KEY) as server:
        options = {"model": "small", "endpoint": server.address} | changes
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        with pytest.raises(SystemExit) as stop:
            main([source, "--output", str(tmp_path / "o.jsonl"), *flags])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1
    assert key not in error
    assert error.startswith("hpt-trl demonstrate: error: The server at http://127.0.0.1:")
    assert re.search(message, error), error
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    "answer", [b"<html>hello</html>", {}, {"choices": []}, {"choices": [{"message": None}], "usage": None}]
)
def test_another_protocol_is_named(chats, tmp_path, monkeypatch, answer):
    monkeypatch.setattr("tests.openai_server.Handler.completion", lambda self, body: answer)
    with Server() as server:
        args = arguments(chats, tmp_path, model="small", endpoint=server.address)
        with pytest.raises(RunError, match=f"{server.address} answered in another form than OpenAI's: "):
            demonstrate(args)


def error_of(capsys, *argv):
    """Exit code of the command, and the last line that it writes to stderr."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return stop.value.code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("template", "code", "message"),
    [(None, 1, "has no chat template"), ("{{ raise_exception('no users') }}", 2, "rejects this prompt: no users")],
)
def test_a_model_that_cannot_read_conversations_ends_in_one_paragraph(chats, tmp_path, capsys, template, code, message):
    model = shutil.copytree(MODEL_PATH, tmp_path / "model")
    if template:
        (model / "chat_template.jinja").write_text(template)
    ended, error = error_of(capsys, chats, "--output", str(tmp_path / "o.jsonl"), "--model", str(model))
    assert ended == code
    assert error.startswith("hpt-trl demonstrate: error: ")
    assert message in error


def test_ctrl_c_names_how_to_continue(source, tmp_path, monkeypatch, capsys):
    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("hpt_trl.evaluation.engines.TransformersEngine.complete", press)
    output = str(tmp_path / "o.jsonl")
    assert error_of(capsys, source, "--output", output, "--model", "miniature") == (
        130,
        "hpt-trl demonstrate: interrupted. The same command continues with the completions that are saved.",
    )


def test_the_summary_shows_no_secret(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_API_KEY", "battery-staple")
    flags = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    main([source, "--output", str(tmp_path / "battery-staple.jsonl"), "--model", "miniature", *flags])
    printed = capsys.readouterr().out
    assert "***.jsonl" in printed
    assert "battery" not in printed


def test_a_server_without_log_probabilities_cannot_tell_the_most_likely(source, tmp_path):
    with Server() as server:
        server.with_logps = False
        args = arguments(source, tmp_path, model="small", endpoint=server.address, choose="most_likely")
        with pytest.raises(RunError, match="log-probabilities"):
            demonstrate(args)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples must be at least 1"),
        ({"temperature": 0.0}, "set samples to 1"),
        ({"choose": "longest"}, "choose must be one of first, shortest, most_likely"),
        ({"endpoint": "127.0.0.1:8000"}, "endpoint must be an address"),
        ({"endpoint": "https://me:secret@host/v1"}, "must not contain a password"),
        ({"engine": "vllm", "choose": "most_likely"}, "Start `vllm serve`"),
        ({"engine": "onnx"}, "engine must be"),
        ({"verifier": "nobody"}, "verifier must be"),
        ({"missing_demonstration": "drop"}, "missing_demonstration must be"),
    ],
)
def test_invalid_options_are_refused_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        DemonstrateArguments(**({"source": "nowhere", "output": "x.jsonl", "model": "miniature"} | changes))


def test_other_settings_do_not_mix_with_saved_completions(source, tmp_path):
    demonstrate(arguments(source, tmp_path, samples=1, limit=8))
    with pytest.raises(ValueError, match=r"temperature was 1.0 and is 0.5"):
        demonstrate(arguments(source, tmp_path, samples=1, limit=8, temperature=0.5))


def test_a_killed_command_continues_and_gives_the_same_file(source, tmp_path):
    whole = arguments(source, tmp_path / "whole", model="small")
    with Server() as server:
        demonstrate(arguments(source, tmp_path / "whole", model="small", endpoint=server.address))
        asked, server.asked, server.slow = server.asked, [], 0.2
        args = arguments(source, tmp_path / "killed", model="small", endpoint=server.address)
        flags = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "hpt_trl.commands.cli", "demonstrate", source, "--output", args.output]
        process = subprocess.Popen([*command, "--model", "small", "--endpoint", server.address, *flags])
        first = Path(f"{args.output}.samples") / "round1.jsonl"
        while not (first.exists() and first.stat().st_size) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not Path(args.output).exists()
        kept = len(saved(args))
        assert 8 <= kept < len(asked)
        # A set: requests of the killed command may still be answered, and the restarted one makes them again.
        server.slow, server.asked = 0, []
        demonstrate(args)
        assert set(server.asked) == set(asked[kept:])
    assert rows_of(args) == rows_of(whole)


def test_transformers_serve_completes(source, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", MODEL_PATH, *options]
    process = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        args = arguments(source, tmp_path, model=MODEL_PATH, endpoint=f"{address}/v1", samples=3)
        check(args, demonstrate(args))
    finally:
        process.terminate()
        process.wait()
