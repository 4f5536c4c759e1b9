"""Private names of upstream are checked with one message; unknown losses are refused, not guessed."""

import ast
from pathlib import Path

import pytest
import torch
from trl import GRPOTrainer

from hpt_trl import HPTTrainer
from hpt_trl.trainer import trl_hooks
from hpt_trl.trainer.durable import DurableGRPOTrainer
from hpt_trl.trainer.trl_hooks import check_attributes, check_signatures, loss_scale_of_subset
from tests.tiny import make_trainer

FOLDER = Path(trl_hooks.__file__).parent


def test_a_moved_method_is_named(monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda self, batch: None)
    with pytest.raises(ImportError, match=r"GRPOTrainer\._calculate_rewards.*pip install 'trl==1\.16\.0'"):
        check_signatures()


@pytest.mark.parametrize(("attribute", "is_training"), [("_buffered_inputs", False), ("_tr_loss", True)])
def test_a_missing_attribute_is_named_with_the_same_message(tiny_model, tmp_path, attribute, is_training):
    trainer = make_trainer(tiny_model, tmp_path, max_steps=1)
    trainer.train()
    check_attributes(trainer, is_training)
    delattr(trainer, attribute)
    with pytest.raises(ImportError, match=rf"no attributes \['{attribute}'\].*pip install 'trl=="):
        check_attributes(trainer, is_training)


CHECKED = {*trl_hooks._ATTRIBUTES, *trl_hooks._TRAINING_ATTRIBUTES, *(name for _, name in trl_hooks._SIGNATURES)}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_every_private_name_of_upstream_is_checked(path):
    """A private name that none of our classes defines is upstream's."""
    nodes = [node for file in FOLDER.glob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assigned = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    # A class attribute with its default.
    bodies = [node.body for node in nodes if isinstance(node, ast.ClassDef)]
    assigned |= {part.target.id for body in bodies for part in body if isinstance(part, ast.AnnAssign) and part.value}
    used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    assert private - defined - assigned - CHECKED == set()


def test_every_override_of_a_private_method_is_checked():
    overridden = {
        name
        for kind in (DurableGRPOTrainer, HPTTrainer)
        for name, value in vars(kind).items()
        if callable(value) and name.startswith("_") and not name.startswith("__") and hasattr(GRPOTrainer, name)
    }
    assert overridden
    assert overridden <= CHECKED


def test_an_unknown_loss_type_is_refused(tiny_model, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"how TRL normalizes loss_type='tomorrow'.*gate='off'"):
        loss_scale_of_subset("tomorrow", {}, {})
    # As if a later TRL had a loss that is not in our table.
    monkeypatch.delitem(trl_hooks._DENOMINATORS, "grpo")
    with pytest.raises(ValueError, match="how TRL normalizes loss_type='grpo'"):
        make_trainer(tiny_model, tmp_path, loss_type="grpo")
    make_trainer(tiny_model, tmp_path, loss_type="grpo", gate="off", max_steps=1).train()


def test_scales_by_hand():
    generated = {"completion_ids": torch.zeros(4, 2), "completion_mask": torch.ones(4, 2)}
    subset = {"completion_ids": torch.zeros(1, 2), "completion_mask": torch.tensor([[1.0, 0.0]])}
    assert loss_scale_of_subset("grpo", generated, subset) == 1 / 4
    assert loss_scale_of_subset("dapo", generated, subset) == 1.0
    assert loss_scale_of_subset("bnpo", generated, subset) == 1 / 8  # tokens
