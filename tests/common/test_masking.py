"""Secrets are masked by shape and by value, wherever a text is saved or shown."""

from dataclasses import dataclass, field

import pytest
import yaml

from hpt_trl import HPTConfig
from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.masking import mask_tokens, masked, safe_command

HUB = "hf_" + "a" * 30
ORGANIZATION = "api_org_" + "b" * 30


@dataclass
class Options:
    hub_token: str = field(default="")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {HUB}.", "token hf_***."),
        (f"token {ORGANIZATION}.", "token api_org_***."),
        ("http://user:pass-word@proxy.org:80/x", "http://***@proxy.org:80/x"),
        ("https://:secret@host and socks5://u:p%40@h", "https://***@host and socks5://***@h"),
        ("http://localhost:8080/a@b and a:b@c", "http://localhost:8080/a@b and a:b@c"),
        ("hf_short", "hf_short"),
    ],
)
def test_secrets_are_masked_by_shape(text, expected):
    assert mask_tokens(text) == expected


def test_secrets_are_masked_by_value(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("my_password", "correct horse")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false and more")
    text = "key 0123456789abcdef, correct horse, true, false and more"
    assert mask_tokens(text) == "key ***, ***, true, false and more"
    assert masked({"a": [text, ("correct horse", 1)], "b": None}) == {"a": [mask_tokens(text), ("***", 1)], "b": None}
    assert "horse" not in safe_command("hpt-trl train", ["--run_name", "correct horse"])


def test_options_cannot_be_abbreviated_and_the_message_shows_no_token(capsys):
    with pytest.raises(SystemExit, match="2"), user_errors("train"):
        parse((Options,), ["--hub_tok", ORGANIZATION], "train")
    message = capsys.readouterr().err
    assert "--hub_tok" in message
    assert "bbb" not in message
    assert parse((Options,), ["--hub_token", HUB], "train")[0].hub_token == HUB


def test_a_password_in_the_models_options_is_refused_without_being_shown(tmp_path):
    proxies = {"https": "http://user:pass-word@proxy.org"}
    with pytest.raises(ValueError, match=r"model_init_kwargs holds \['proxies'\].*HTTPS_PROXY") as caught:
        HPTConfig(str(tmp_path), use_cpu=True, bf16=False, model_init_kwargs={"proxies": proxies})
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: &x\n  b: *x\n", "a: " + "[" * 5000])
def test_yaml_without_an_end_is_an_error_in_one_paragraph(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match="is not readable as YAML"):
        parse((Options,), ["--config", str(tmp_path / "run.yaml")], "train")
    assert yaml.safe_load("a: [[1]]") == {"a": [[1]]}
