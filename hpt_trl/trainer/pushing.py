"""PushingGRPOTrainer: GRPOTrainer whose pushes may fail, and which pushes only checkpoints that are complete."""

from functools import partial
from pathlib import Path
from typing import Any

from trl import GRPOTrainer

from hpt_trl.common.logs import get_logger
from hpt_trl.durability.hub import PUSH_ERRORS, creating, pushing, warn_if_failed, warn_of_failed_push

logger = get_logger(__name__)


class PushingGRPOTrainer(GRPOTrainer):
    """[`~trl.GRPOTrainer`] that survives a push that fails. A subclass calls `_push_saved` after a checkpoint."""

    _to_push: str | None = None

    def _write_card(self, name: str, dataset_name: str, tags: set[str]) -> None:
        """Write the model card, on the main process."""
        super().create_model_card(name, dataset_name or None, sorted(tags))

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Create the repository or find it, as [`~transformers.Trainer`] does. Raises HubError where that fails."""
        with creating(self._repository):
            super().init_hf_repo(*args, **kwargs)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Save the model and upload it with its card, as [`~transformers.Trainer`] does.

        Raises:
            HubError: if the upload fails; the model is in `output_dir` then, and the message says how to push it later.
        """
        # A folder that is being uploaded must not change, and the card is about to be written.
        self._finish_current_push()
        with pushing(str(self.args.output_dir), self._repository):
            return super().push_to_hub(*args, **kwargs)

    def create_model_card(  # type: ignore[override]  # TRL's signature, which is not transformers'
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """
        Write `README.md` to `output_dir`, unless the folder is being uploaded: the next checkpoint updates it then.

        Args:
            model_name (`str`, *optional*):
                Name of the model. `None`: the name of its repository or folder.
            dataset_name (`str`, *optional*):
                Id of the data on the Hub. `None`: what the command line knew.
            tags (`str` or `list[str]`, *optional*):
                Further tags for the metadata.
        """
        if self.is_world_process_zero() and not self._is_pushing():
            further = [tags] if isinstance(tags, str) else tags or []
            name = model_name or self._repository.split("/")[-1]
            self._write_card(name, dataset_name or "", {*self._tag_names, *further})

    @property
    def _repository(self) -> str:
        return self.hub_model_id or self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name

    def _is_pushing(self) -> bool:
        push = getattr(self, "push_in_progress", None)
        return push is not None and not push.is_done()

    def _push_from_checkpoint(self, checkpoint_folder):
        # transformers calls this before the checkpoint is marked complete: `_save_checkpoint` pushes it then.
        self._to_push = checkpoint_folder

    def _push_saved(self, diverged: str | None) -> None:
        """Push the checkpoint just saved in the background, where `hub_strategy` says so; warn if it fails.

        Args:
            diverged: how it is known that the policy has diverged: then nothing is pushed.
        """
        folder, self._to_push = self._to_push, None
        if folder is not None and diverged is not None:
            logger.warning(f"{folder} is not pushed, because the policy has diverged: {diverged}.")
        if folder is None or diverged is not None:
            return
        step = self.state.global_step
        jobs_before = list(getattr(getattr(self, "push_in_progress", None), "jobs", []))
        try:
            super()._push_from_checkpoint(folder)
        except PUSH_ERRORS as error:  # of a tracker, which uploads its own files first
            warn_of_failed_push(error, self._repository, step)
        for job in getattr(getattr(self, "push_in_progress", None), "jobs", []):
            if job not in jobs_before:
                job.add_done_callback(partial(warn_if_failed, repo=self._repository, step=step))
