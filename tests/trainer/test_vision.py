"""Prompts with images: bitwise GRPO with the gate shut, exact demonstrations, and no work on rows without signal."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText
from trl.data_utils import prepare_multimodal_messages

from tests.tiny import make_trainer, relative_error, rollouts_gate, trained_parameters
from tests.trainer.model_families import EXACT, LastGradient, loop_gradient
from tests.trainer.vision_models import FAMILIES, build_vision_model, picture_rows

ROWS = picture_rows()


QUICK = "qwen2_5_vl"
ALL = [family if family == QUICK else pytest.param(family, marks=pytest.mark.distributed) for family in FAMILIES]


@pytest.fixture(scope="module", params=ALL)
def vision(request, tmp_path_factory):
    """Folder and processor of a tiny model."""
    return build_vision_model(request.param, tmp_path_factory.mktemp("vision") / request.param)


def options(processor, **others):
    return {"rows": ROWS, "trainer": {"processing_class": processor}, **EXACT, **others}


def loop_of(folder, processor, model=None):
    """The gradient of a loop over the demonstrations of `ROWS`."""
    model = model or AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    sequences, images = [], []
    for row in ROWS:
        prompt = prepare_multimodal_messages(row["prompt"], images=[row["image"]])
        inputs = processor.apply_chat_template(
            [prompt], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        answer = processor.tokenizer(written_after(prompt, row["demonstration"], processor))["input_ids"]
        sequences.append((inputs.pop("input_ids")[0].tolist(), answer))
        inputs.pop("attention_mask")
        for name in {"token_type_ids", "mm_token_type_ids"} & inputs.keys():
            inputs[name] = torch.cat([inputs[name], inputs[name].new_zeros(1, len(answer))], dim=1)
        images.append(dict(inputs))
    columns = {name: [row[name] for row in images] for name in images[0]}
    return loop_gradient(model, sequences, **columns)


def written_after(prompt, answer, processor) -> str:
    """What the chat template writes after the prompt, up to the end of the turn."""
    opened = processor.apply_chat_template(prompt, add_generation_prompt=True)
    turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    closed = processor.apply_chat_template([*prompt, turn])
    assert closed.startswith(opened)
    end = processor.tokenizer.eos_token
    return closed[len(opened) :].split(end)[0] + end


def test_gate_shut_is_grpo(vision, tmp_path):
    folder, processor = vision
    grpo = trained_parameters(folder, tmp_path, hpt=False, **options(processor, max_steps=1))
    own = options(processor, max_steps=1, skip_zero_signal_rollouts=False)
    own["trainer"] |= {"gate": rollouts_gate}
    assert torch.equal(trained_parameters(folder, tmp_path, **own), grpo)


def gradient_of_step(folder, tmp_path, **own):
    """The gradient of one step, and the trainer after it."""
    trainer = make_trainer(folder, tmp_path, **({"max_steps": 1, "max_grad_norm": 0.0} | own))
    kept = LastGradient()
    trainer.add_callback(kept)
    trainer.train()
    return kept.gradient, trainer


def test_the_gradient_of_demonstrations_is_cross_entropy(vision, tmp_path):
    folder, processor = vision
    found, _ = gradient_of_step(folder, tmp_path, gate_threshold=1.0, **options(processor))
    assert relative_error(found, loop_of(folder, processor)) < 1e-5


def test_the_gradient_of_an_adapter_on_demonstrations_is_cross_entropy(vision, tmp_path):
    folder, processor = vision
    adapter = LoraConfig(r=2, target_modules="all-linear", exclude_modules=["lm_head"], init_lora_weights=False)
    own = options(processor, gate_threshold=1.0)
    own["trainer"] |= {"peft_config": adapter}
    torch.manual_seed(0)
    found, trainer = gradient_of_step(folder, tmp_path, learning_rate=0.0, **own)
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32), adapter)
    model.load_state_dict(trainer.model.state_dict())
    assert relative_error(found, loop_of(folder, processor, model)) < 1e-5


def test_messages_train_as_text_does(vision, tmp_path):
    folder, processor = vision
    messages = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in ROWS["demonstration"]]
    rows = ROWS.remove_columns("demonstration").add_column("demonstration", messages)
    own = options(processor, gate_threshold=1.0) | {"rows": rows}
    found, trainer = gradient_of_step(folder, tmp_path, **own)
    assert trainer.state.log_history[0]["demonstrations/refused"] == 0
    assert relative_error(found, gradient_of_step(folder, tmp_path, gate_threshold=1.0, **options(processor))[0]) == 0


def second_prompt_is_unsolved(completion_ids, **kwargs):
    """Verdicts of 4 prompts x 4 rollouts: some right, none, all, some."""
    solved = [1, 0, 0, 0] + [0] * 4 + [1] * 4 + [1, 1, 0, 0]
    return [float(verdict) for verdict in solved]


def test_silent_rows_are_dropped(vision, tmp_path):
    folder, processor = vision
    rows = []

    def step(skips):
        own = options(processor, skip_zero_signal_rollouts=skips, num_iterations=2, max_steps=2)
        trainer = make_trainer(folder, tmp_path, reward=second_prompt_is_unsolved, max_grad_norm=0.0, **own)
        kept = LastGradient()
        trainer.add_callback(kept)
        rows.clear()

        def note(module, args, inputs):
            if "fused_lm_head" in inputs and "demonstration" not in inputs:
                rows.append(len(inputs["input_ids"]))

        trainer.model.register_forward_pre_hook(note, with_kwargs=True)
        trainer.train()
        return kept.gradient, list(rows)

    kept, kept_rows = step(False)
    dropped, dropped_rows = step(True)
    # Old log-probabilities and two steps, of 16 rollouts or of the 8 of the first and the last prompt.
    assert sum(kept_rows) == 3 * 16
    assert sum(dropped_rows) == 3 * 8
    assert relative_error(dropped, kept) < 1e-5


def test_a_warm_up_trains_by_cross_entropy(vision, tmp_path):
    folder, processor = vision
    rows = 4 * len(ROWS)  # one demonstration per prompt
    own = options(processor, sft_warmup_steps=1, sft_warmup_holdout=0.0, num_generations=4)
    own |= {"gradient_accumulation_steps": 1, "per_device_train_batch_size": rows}
    found, trainer = gradient_of_step(folder, tmp_path, **own)
    assert "hpt/solve_rate" not in trainer.state.log_history[0]
    assert relative_error(found, loop_of(folder, processor)) < 1e-5


def test_an_algorithm_with_its_own_loss_on_rollouts_reads_images(vision, tmp_path):
    """The model rejects images that do not fit the places in the prompts."""
    folder, processor = vision
    trainer = make_trainer(folder, tmp_path, algorithm="srft", **options(processor, max_steps=1))
    reads_images = []

    def note(module, args, inputs):
        if "fused_lm_head" in inputs:
            reads_images.append("pixel_values" in inputs)

    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train()
    # One pass of rollouts in each of 4 micro-batches, and demonstrations.
    assert len(reads_images) > 4
    assert all(reads_images)
