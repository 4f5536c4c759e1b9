"""Help of the commands: options by subject, short and complete."""

import pytest
from transformers import TrainingArguments
from trl import GRPOConfig, ModelConfig

from hpt_trl.commands.demonstrate import DemonstrateArguments
from hpt_trl.commands.train import HPTScriptArguments
from hpt_trl.common.command_line import Parser
from hpt_trl.common.help_text import _COMMON
from hpt_trl.config import HPTConfig

TRAIN = (HPTScriptArguments, HPTConfig, ModelConfig)


@pytest.fixture(scope="module")
def parser():
    return Parser(TRAIN, "hpt-trl train")


def options_of(text):
    """Options by the heading above them."""
    found, heading = {}, ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            heading = line
        elif line.startswith("  --"):
            found.setdefault(heading, []).append(line.split()[0].removeprefix("--"))
    return found


def test_the_short_help_fits_some_screens_and_begins_with_config(parser):
    text = parser.format_help()
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  --")][:2] == ["--config", "--help-all"]
    assert len(text.splitlines()) < 250
    assert text.rstrip().splitlines()[-1].endswith("hpt-trl train --help-all")


def test_options_are_listed_by_subject(parser):
    found = options_of(parser.format_help())
    headings = ["HPT:", "Faults:", "Data and rewards:", "Model and LoRA:", "Generation and vLLM:", "TRL's GRPO:"]
    assert list(found)[1:] == [*headings, "transformers' training:"]
    assert {"gate", "gate_threshold", "sft_weight"} <= set(found["HPT:"])
    assert {"dataset_name", "reward_funcs"} <= set(found["Data and rewards:"])
    assert "vllm_mode" in found["Generation and vLLM:"]
    assert "lora_r" in found["Model and LoRA:"]
    assert "learning_rate" in found["transformers' training:"]
    assert "reward_timeout" in found["Faults:"]


def test_the_complete_help_has_every_option_once(parser):
    found = options_of(parser.format_help(is_complete=True))
    listed = [name for heading, names in found.items() if heading in list(found)[1:] for name in names]
    fields = {name for each in TRAIN for name, field in each.__dataclass_fields__.items() if field.init}
    assert len(listed) == len(set(listed))
    assert set(listed) == fields
    assert {"beta", "delta"} <= set(found["TRL's GRPO:"])
    assert set(found["transformers' training:"]) <= set(TrainingArguments.__dataclass_fields__)


def test_common_options_exist():
    known = {*GRPOConfig.__dataclass_fields__, *ModelConfig.__dataclass_fields__}
    assert {name for names in _COMMON.values() for name in names.split()} <= known


def test_choices_and_defaults_are_complete(parser):
    text = " ".join(parser.format_help().split())
    assert "One of linear, cosine, cosine_with_restarts," in text
    assert "one of chord, chord_mu, chord_phi, cispo, dr_grpo, grpo, gspo, hpt, luffy, ppo, reinforce," in text
    # Only the usage abbreviates.
    assert "..., " not in text
    assert ", ." not in text
    assert "(default: 5e-06)" in text
    assert "(default: false)" in text
    assert "SchedulerType" not in text


def test_a_command_of_few_options_lists_all_of_them():
    text = Parser((DemonstrateArguments,), "hpt-trl demonstrate").format_help()
    assert set(DemonstrateArguments.__dataclass_fields__) == set(options_of(text)["options:"])
    assert "(required)" in text


def test_help_all_prints_and_exits(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--help-all"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 500
