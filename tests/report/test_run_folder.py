"""What a run records and what is read from it: a finished, resumed or killed run, and a run of another trainer."""

import json
import shutil

import pandas as pd
import pytest
import torch
from transformers import TrainerCallback

from hpt_trl.algorithm.gate import GateWeights
from hpt_trl.common.errors import LocalRunError
from hpt_trl.monitoring.run_log import LOG_NAME, RUN_NAME
from hpt_trl.monitoring.samples import FILE_NAME, Sample, SampleLog, best_and_worst, read_samples, shortened, text_of
from hpt_trl.report.gate_maps import gate_share, prompt_map, step_map
from hpt_trl.report.run_folder import read_run
from tests.tiny import make_trainer, parity_reward, rollouts_gate


class Stop(TrainerCallback):
    """Ends a run in the middle of a step, as a signal would."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def killed(tiny_model, tmp_path_factory):
    """A run of 6 steps with a checkpoint at step 2, killed in its 4th."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    trainer = make_trainer(
        tiny_model, folder, max_steps=6, save_strategy="steps", save_steps=2, hub_token="hf_secret", num_generations=4
    )
    trainer.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return folder


def test_a_killed_run_is_read_up_to_its_last_log_entry(killed):
    run = read_run(killed)
    assert list(run.log.index) == [1, 2, 3]
    assert not run.is_finished
    assert (run.steps, run.max_steps) == (3, 6)
    assert run.source == killed / "_record" / "log.jsonl"
    assert set(run.gate["step"]) == {0, 1, 2}
    assert run.notes == []
    assert run.config["num_generations"] == 4


def test_no_token_is_recorded(killed):
    assert "hf_secret" not in (killed / RUN_NAME).read_text()


def test_an_incomplete_line_is_ignored(killed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "run")
    for name in (LOG_NAME, FILE_NAME):
        path = folder / name
        path.write_text(path.read_text().rstrip("\n")[:-5])
    run = read_run(folder)
    assert list(run.log.index) == [1, 2]
    assert run.samples[-1].step == 2 or len(run.samples) < len(read_run(killed).samples)


def test_without_live_files_the_latest_readable_checkpoint_is_read(killed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "run")
    shutil.rmtree(folder / "_record")
    (folder / "gate.parquet").unlink()
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "trainer_state.json").write_text('{"log_history": [')
    run = read_run(folder)
    assert list(run.log.index) == [1, 2]
    assert run.source == folder / "checkpoint-2" / "trainer_state.json"
    assert not run.is_finished
    assert run.gate is None
    assert run.samples == []
    notes = " ".join(run.notes)
    assert "checkpoint-10/trainer_state.json is incomplete" in notes
    assert "no gate.parquet" in notes
    assert "no _record/run.json" in notes


def test_a_resumed_run_has_each_step_once(killed, tiny_model, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "run")
    trainer = make_trainer(tiny_model, folder, max_steps=6, save_strategy="steps", save_steps=2)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    run = read_run(folder)
    assert list(run.log.index) == [1, 2, 3, 4, 5, 6]
    assert run.is_finished
    steps = [sample.step for sample in run.samples]
    assert steps == sorted(steps)
    assert set(steps) == {0, 1, 2, 3, 4, 5}
    # The best and the worst rollout of each step, also for steps that were trained twice, and one of a prompt that was
    # trained on its demonstration where neither is.
    assert {steps.count(step) for step in steps} <= {1, 2, 3}
    for step in set(steps):
        sources = [sample.learned_from for sample in run.samples if sample.step == step]
        assert len(sources) < 3 or sources.count("a demonstration") == 1


def test_the_steps_after_the_last_log_line_are_in_the_report(tiny_model, tmp_path):
    make_trainer(tiny_model, tmp_path, max_steps=3, logging_steps=2).train()
    run = read_run(tmp_path)
    assert list(run.log.index) == [2, 3]
    assert run.steps == run.max_steps == 3
    assert run.series("reward").notna().all()
    assert list(run.series("loss").index) == [2]


def test_the_parts_of_a_step_are_timed(killed):
    log = read_run(killed).log
    assert (log["time/generation"] > 0).all()
    assert (log["time/verdicts"] > 0).all()
    assert (log["time/generation"] + log["time/verdicts"] < log["step_time"]).all()


def test_reused_rollouts_take_no_generation_time(tiny_model, tmp_path):
    make_trainer(tiny_model, tmp_path, max_steps=2, steps_per_generation=8).train()
    generation = read_run(tmp_path).series("time/generation")
    assert generation[1] > 0
    assert generation[2] == 0


def test_samples_record_what_their_prompt_was_trained_on(killed):
    run = read_run(killed)
    gate = run.gate.groupby("step")
    for sample in run.samples:
        rates = gate.get_group(sample.step)
        (row,) = rates[rates["solve_rate"] == sample.solve_rate].head(1).itertuples()
        assert sample.learned_from == ("a demonstration" if row.demonstration else "its rollouts")
        assert set(sample.rewards) == {"parity_reward"}


def other_reward(completions, **kwargs):
    return [float(len(text)) for text in completions]


def test_a_run_without_verdicts_has_samples_too(tiny_model, tmp_path):
    rewards = [parity_reward, other_reward]  # with the gate off, gate_reward need not be set
    make_trainer(tiny_model, tmp_path, max_steps=1, gate="off", reward=rewards).train()
    run = read_run(tmp_path)
    assert not run.has_gate
    assert run.samples
    assert {sample.learned_from for sample in run.samples} == {None}
    assert set(run.samples[0].rewards) == {"parity_reward", "other_reward"}


def test_a_custom_gate_is_recorded(tiny_model, tmp_path):
    make_trainer(tiny_model, tmp_path, max_steps=1, trainer={"gate": rollouts_gate}).train()
    assert read_run(tmp_path).facts["gate"] == "rollouts_gate"


@pytest.fixture(scope="module")
def grpo(tiny_model, tmp_path_factory):
    """A run of TRL's trainer, with its completion tables."""
    folder = tmp_path_factory.mktemp("grpo") / "run"
    make_trainer(
        tiny_model, folder, hpt=False, max_steps=6, save_strategy="steps", save_steps=6, log_completions=True
    ).train()
    return folder


def test_a_run_of_trl_is_read_from_its_checkpoint_and_tables(grpo):
    run = read_run(grpo)
    assert list(run.log.index) == [1, 2, 3, 4, 5, 6]
    assert run.series("reward").notna().all()
    assert not run.has_gate
    table = pd.read_parquet(grpo / "completions" / "completions_00001.parquet")
    first = [sample for sample in run.samples if sample.step == 0]
    assert [sample.rewards["parity_reward"] for sample in first] in ([0.0, 1.0], [1.0, 0.0])
    assert {sample.completion for sample in first} <= set(table["completion"])


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .* does not exist"):
        read_run(tmp_path / "missing")


@pytest.mark.parametrize("name", [LOG_NAME, FILE_NAME])
@pytest.mark.parametrize("text", ["hello\n", "[1]\n", "7\n", '{"other": 1}\n'])
def test_files_that_a_run_did_not_write_are_refused(killed, tmp_path, name, text):
    folder = shutil.copytree(killed, tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}' was not written by a run: .* Restore or delete it"):
        read_run(folder)


def test_a_log_that_cannot_be_written_ends_the_run_with_advice(tiny_model, tmp_path):
    (tmp_path / "_record").write_text("in the way")
    with pytest.raises(
        LocalRunError, match=r"The log of the run could not be written: .* Make sure that the disk has free space"
    ):
        make_trainer(tiny_model, tmp_path).train()


ROLLOUTS = {
    "prompt": ["p", "p", [{"role": "user", "content": "q"}], "r"],
    "completion": ["a", "b", [{"role": "assistant", "content": "c"}], "d"],
    "rewards": {"one": [1.0, 0.0, 1.0, float("nan")], "two": [0.0, 0.5, 1.0, float("nan")]},
    "extra": {"answer": ["1", "2", "3", "4"], "old": ["x"]},
}


def test_the_best_and_the_worst_rollout_are_the_samples():
    # Totals 1, 0.5, 2; the last rollout could not be scored.
    assert best_and_worst(ROLLOUTS, 7) == {
        1: Sample(7, "p", "b", {"one": 0.0, "two": 0.5}, {"answer": "2"}),
        2: Sample(7, "user: q", "c", {"one": 1.0, "two": 1.0}, {"answer": "3"}),
    }
    unscored = ROLLOUTS | {"rewards": {"one": [float("nan")] * 4}}
    assert best_and_worst(unscored, 7) == {}


def test_a_prompt_on_its_demonstration_is_among_the_samples():
    rollouts = {"prompt": list("aabbcc"), "completion": list("uvwxyz"), "rewards": {"r": [1, 0, 0.5, 0.5, 0.5, 0.5]}}
    one_P, zero_P = torch.ones(3), torch.zeros(3)
    weights = GateWeights(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]), zero_P)
    log = SampleLog()
    log.note(rollouts | {"extra": {}}, 0, 2, one_P, weights, {2: "shown"}.get)
    assert [(each.completion, each.learned_from, each.demonstration) for each in log.latest] == [
        ("u", "its rollouts", None),
        ("v", "its rollouts", None),
        ("y", "a demonstration", "shown"),
    ]
    log.note(rollouts | {"extra": {}}, 0, 2, one_P, GateWeights(one_P, zero_P, zero_P))
    assert len(log.latest) == 2


def test_long_texts_keep_their_ends():
    assert shortened("abcdefgh", 4) == "ab\n[... 4 characters ...]\ngh"
    assert shortened("abcd", 4) == "abcd"


def test_non_text_parts_of_messages_are_left_out():
    parts = [{"type": "image", "image": object()}, {"type": "text", "text": "what is it?"}]
    assert text_of([{"role": "user", "content": parts}, {"role": "assistant", "content": None}]) == (
        "user: what is it?\n"
    )


def test_samples_are_written_and_read_back(tmp_path):
    log = SampleLog()
    log.begin(tmp_path, 0)
    log.note(ROLLOUTS, 0, 4)
    log.write(tmp_path)
    assert read_samples(tmp_path / FILE_NAME) == log.latest
    assert json.loads((tmp_path / FILE_NAME).read_text().splitlines()[0])["completion"] == "b"


GATE = pd.DataFrame(
    {
        "step": [0, 0, 1, 1, 2],
        "prompt_id": ["a", "b", "b", "c", "a"],
        "solve_rate": [0.0, 0.5, 1.0, 0.25, 0.75],
        "rollouts": [0.0, 1.0, 1.0, 0.5, 0.0],
        "demonstration": [1.0, 0.0, 0.0, 0.5, 0.0],
        "off_policy": [0.0] * 5,
    }
)


def test_the_gate_is_drawn_prompt_by_prompt():
    nan = float("nan")
    share = gate_share(GATE)
    pd.testing.assert_series_equal(share, pd.Series([1.0, 0.0, 0.0, 0.5, nan]))
    # One column per step, the hardest prompt first; the third step has a single prompt.
    matrix, steps = step_map(GATE, GATE["solve_rate"])
    assert steps == [0, 1, 2]
    pd.testing.assert_frame_equal(pd.DataFrame(matrix), pd.DataFrame([[0.0, 0.25, 0.75], [0.5, 1.0, nan]]))
    # Means 0.375 (a), 0.75 (b), 0.25 (c): rows c, a, b; each value is held until the prompt is sampled again.
    matrix, steps = prompt_map(GATE, GATE["solve_rate"])
    expected = [[nan, 0.25, 0.25], [0.0, 0.0, 0.75], [0.5, 1.0, 1.0]]
    pd.testing.assert_frame_equal(pd.DataFrame(matrix), pd.DataFrame(expected))
