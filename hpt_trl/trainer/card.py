"""How a run of HPTTrainer is described: the facts in `run.json`, and its model card."""

import textwrap
from dataclasses import asdict
from typing import Any

from trl import GRPOTrainer
from trl.trainer.utils import get_config_model_id

from hpt_trl.common.imports import is_dotted_path
from hpt_trl.common.logs import get_logger
from hpt_trl.model_card.method import describe_method
from hpt_trl.model_card.model_card import write_card
from hpt_trl.model_card.run_facts import collect

logger = get_logger(__name__)

PAPER = {
    "title": "Towards a Unified View of Large Language Model Post-Training",
    "id": "2509.04419",
    # docstyle-ignore
    "citation": textwrap.dedent("""\
        @article{lv2025unified,
            title        = {{Towards a Unified View of Large Language Model Post-Training}},
            author       = {Xingtai Lv and Yuxin Zuo and Youbang Sun and Hongyi Liu and Yuntian Wei and Zhekai Chen and Xuekai Zhu and Kaiyan Zhang and Bingning Wang and Ning Ding and Bowen Zhou},
            year         = 2025,
            eprint       = {arXiv:2509.04419},
        }"""),  # noqa: E501
}


def gate_name(trainer: Any) -> str:
    """The option `gate`, which may be a dotted path, or the name of the callable that was passed instead."""
    gate = trainer.own_gate
    if gate is None or is_dotted_path(trainer.args.gate):
        return trainer.args.gate
    return getattr(gate, "__name__", type(gate).__name__)


def method_facts(trainer: Any) -> dict[str, str]:
    """Names of gate and algorithm."""
    algorithm = "a composition of the user's" if trainer.has_own_algorithm else trainer.args.algorithm
    return {"gate": gate_name(trainer), "algorithm": algorithm}


def recorded_facts(trainer: Any) -> dict[str, Any]:
    """What `run.json` holds of a trainer besides configuration and versions."""
    return {
        "trainer": type(trainer).__name__,
        "model": get_config_model_id(trainer.model.config),
        # As the config names them, where there is one; the trainer knows only their `__name__`.
        "reward_functions": list(trainer.origin.reward_functions) or trainer.reward_func_names,
        **method_facts(trainer),
        **({} if trainer.identity is None else {"identity": asdict(trainer.identity)}),
    }


def write_run_card(trainer: Any, name: str, dataset_name: str, tags: set[str]) -> None:
    """Write `README.md` and the facts it is made from to the output folder: base model, data, gate, use, versions.

    TRL's card is not written first: its metadata are not valid, and for a local base model it says "None". A full disk
    is a warning.

    Args:
        trainer: an HPTTrainer.
        name: of the model.
        dataset_name: id of the data on the Hub; "" leaves it to the trainer's origin.
        tags: for the metadata.
    """
    gate = gate_name(trainer) if trainer.own_gate else ""
    algorithm = "" if trainer.has_own_algorithm else trainer.args.algorithm
    # With rollouts only it is TRL's GRPO, with GRPO's paper.
    paper = trainer._paper if trainer.uses_demonstrations or algorithm != "hpt" else GRPOTrainer._paper
    method = describe_method(trainer.args, gate if trainer.uses_demonstrations else "off", algorithm)
    facts = collect(trainer, name, dataset_name, tags, method, paper)
    try:
        facts.write(str(trainer.args.output_dir))
        write_card(facts, str(trainer.args.output_dir))
    except OSError as error:
        # While saving, this process is on its way to a collective: raising would leave the others in it.
        logger.warning(f"The model card could not be written: {error}.")
