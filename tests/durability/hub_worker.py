"""What a user does with the Hub of tests/hub_server.py: `-m tests.durability.hub_worker FOLDER CONFIG`.

The endpoint is read when `huggingface_hub` is imported, and importing everything once is quicker. Prints one line of
JSON: the outcome of each push by repository, and exit code and stderr of each command.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from hpt_trl.commands import cli
from hpt_trl.durability.hub import HubError
from tests.tiny import make_trainer

OTHER_TOKEN = "hf_" + "x" * 34


def outcome(trainer: Any, repo: str, **options: Any) -> str:
    """What a push ends with: "pushed", or the error's text."""
    trainer.args.hub_model_id, trainer.hub_model_id = repo, None
    try:
        trainer.push_to_hub(**options)
    except HubError as error:
        return str(error)
    return "pushed"


def pushes(model: str, folder: Path) -> dict[str, str]:
    """A run that is pushed while it trains, then to one repository after the other."""
    options = {"push_to_hub": True, "hub_model_id": "me/whole", "hub_strategy": "checkpoint"}
    trainer = make_trainer(model, folder, max_steps=2, save_strategy="steps", save_steps=1, **options)
    trainer.train()
    told = {"me/unknown": outcome(trainer, "me/unknown", token=OTHER_TOKEN)}
    repos = ("commit-403", "commit-409", "commit-500", "commit-drop", "lfs-403", "lfs-drop-once", "whole")
    return told | {f"me/{name}": outcome(trainer, f"me/{name}") for name in repos}


def command(*argv: str) -> dict[str, Any]:
    """Exit code and stderr of `hpt-trl ...`."""
    sys.argv = ["hpt-trl", *argv]
    code: Any = 0
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    return {"code": code, "stderr": told.getvalue()}


def main(folder: str, config: str) -> None:
    options = json.loads(Path(config).read_text())
    told: dict[str, Any] = {"train": command("train", "--config", config)}
    told["push"] = command("push", options["output_dir"], "--repo_id", "me/later")
    told["pushes"] = pushes(options["model_name_or_path"], Path(folder))
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
