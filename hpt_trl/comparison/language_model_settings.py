"""Options of the comparison on a real language model."""

from dataclasses import dataclass, field

from hpt_trl.comparison.methods import METHODS, Recipe
from hpt_trl.comparison.settings import check_rows


@dataclass
class LanguageModelArguments:
    """
    The comparison on a real language model. All methods get the same problems, demonstrations, prompts per step and
    learning rate search.

    Each run is evaluated at two budgets: `steps` optimizer steps, and `compute` token passes. A token counts 1 in a
    forward pass and 2 in a backward pass; generation is included.

    Args:
        output_dir (`str`): Folder of the practiced model, the runs, `results.json` and `README.md`. If the command is
            started again, finished runs are reused and the missing ones are run.
    """

    model_name_or_path: str = field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct", metadata={"help": "A chat model: a Hub id or a folder."}
    )
    output_dir: str = field(default="runs/smollm2_words", metadata={"help": "Folder of the runs and the report."})
    methods: list[str] = field(
        default_factory=lambda: ["base", "sft", "grpo", "sft_grpo", "hpt", "warmup_hpt", "flat_hpt"],
        metadata={"help": f"Methods, from {', '.join(METHODS)}."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [1, 2, 3, 4, 5], metadata={"help": "Seeds of data, order and rollouts."}
    )
    search_seeds: list[int] = field(
        default_factory=lambda: [101], metadata={"help": "Seeds of the learning rate search; they are not reported."}
    )
    learning_rates: list[float] = field(
        default_factory=lambda: [2e-6, 5e-6, 1e-5, 2e-5],
        metadata={"help": "Learning rates tried for every method; constant within a run."},
    )
    steps: int = field(default=16, metadata={"help": "Optimizer steps of the first budget."})
    compute: float = field(
        default=51000.0,
        metadata={"help": "Token passes of the second budget: a forward pass counts 1 per token, a backward pass 2."},
    )
    prompts_per_step: int = field(default=4, metadata={"help": "Prompts per optimizer step."})
    num_generations: int = field(default=4, metadata={"help": "Rollouts per prompt."})
    training_problems: int = field(default=256, metadata={"help": "Training prompts."})
    demonstrations: int = field(
        default=64, metadata={"help": "Training prompts that have a demonstration, drawn by the seed."}
    )
    longest_answer: int = field(
        default=16, metadata={"help": "Maximum tokens of an answer; the longest demonstration has 13."}
    )
    practice_steps: int = field(
        default=20, metadata={"help": "Steps of SFT on easy problems before any method; 0 to skip."}
    )
    practice_prompts: int = field(default=16, metadata={"help": "Problems per practice step."})
    practice_learning_rate: float = field(default=5e-5, metadata={"help": "Learning rate of the practice; constant."})
    test_problems: int = field(default=100, metadata={"help": "Held-out problems of the report."})
    search_problems: int = field(
        default=100, metadata={"help": "Other held-out problems, for the learning rate search."}
    )
    test_samples: int = field(default=2, metadata={"help": "Samples per held-out problem at temperature 1."})
    matmul_bf16: bool = field(default=True, metadata={"help": "Compute in bfloat16; weights stay in float32."})
    processes: int = field(default=1, metadata={"help": "Number of parallel runs, one thread and 3 GB of memory each."})

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"methods must be from {', '.join(METHODS)}, got {unknown or 'none'}.")
        after_sft = [name for name in self.methods if METHODS[name].begins_with_sft]
        if after_sft and "sft" not in self.methods:
            raise ValueError(
                f"{', '.join(after_sft)}: begins with SFT at SFT's learning rate. Add sft to methods, or remove it."
            )
        for name in ("seeds", "search_seeds", "learning_rates"):
            if not getattr(self, name):
                raise ValueError(f"{name} must contain at least one value.")
        if set(self.seeds) & set(self.search_seeds):
            raise ValueError(f"seeds must not contain any of search_seeds, got {self.seeds} and {self.search_seeds}.")
        for name in ("steps", "compute", "prompts_per_step", "practice_prompts", "test_problems", "search_problems",
                     "test_samples", "processes"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        check_rows(self)

    @property
    def recipe(self) -> Recipe:
        """Settings that all methods share."""
        return Recipe(self.prompts_per_step, self.num_generations, self.steps, self.longest_answer, self.matmul_bf16)
