"""A run that reports to every tracker and is pushed; prints what the trackers stored.

`python -m tests.monitoring.tracker_worker MODEL FOLDER`

It is a separate process because trackers read their environment at import, and TRL imports every installed tracker.
"""

import json
import sys
from pathlib import Path

import trackio
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import ROWS, make_trainer


def main(model: str, folder: str) -> None:
    trainer = make_trainer(
        model,
        Path(folder),
        max_steps=2,
        report_to=["trackio", "tensorboard", "wandb"],
        project="tried",
        run_name="one",
        gate="linear",
        sft_weight=0.3,
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=4,
        trainer={"eval_dataset": ROWS.select(range(4))},
        push_to_hub=True,
        hub_model_id="me/tracked",
        save_strategy="steps",
        save_steps=1,
    )
    trainer.train()
    events = EventAccumulator(str(next((Path(folder) / "runs").iterdir())))
    events.Reload()
    scalars = {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    text = events.Tensors("args/text_summary")[0].tensor_proto.string_val[0].decode()
    stored = {
        "log": trainer.state.log_history,
        "tensorboard": {"scalars": scalars, "config": text},
        "wandb": {"config": dict(wandb.run.config), "metrics": sorted(wandb.run.summary.keys())},
    }
    wandb.finish()
    trainer.push_to_hub()
    (run,) = trackio.Api().runs("tried")
    stored["trackio"] = {"config": run.config, "name": run.name}
    print(json.dumps(stored, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
