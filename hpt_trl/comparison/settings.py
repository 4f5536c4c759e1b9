"""Options of `hpt-trl compare`: models, methods, seeds, budgets and evaluations."""

from dataclasses import dataclass, field
from typing import Any

from hpt_trl.comparison.methods import MAIN_METHODS, METHODS
from hpt_trl.comparison.regimes import REGIMES
from hpt_trl.miniature.bases import BASES, MAIN_BASES

_SMALL_METHODS = ("base", "sft", "grpo", "hpt")


@dataclass
class CompareArguments:
    """
    The comparison of methods on miniature models. All methods get the same problems, demonstrations, prompts per step
    and learning rate search.

    Each run is evaluated at two budgets: `steps` optimizer steps, and `compute` token passes. A token counts 1 in a
    forward pass and 2 in a backward pass; generation is included.

    Args:
        output_dir (`str`): Folder of the base models, the runs and the report. If the command is started again,
            finished runs are reused and the missing ones are run.
    """

    output_dir: str = field(default="runs/miniature", metadata={"help": "Folder of the models, runs and report."})
    models: list[str] = field(
        default_factory=lambda: list(MAIN_BASES), metadata={"help": f"Base models, from {', '.join(BASES)}."}
    )
    methods: list[str] = field(
        default_factory=lambda: list(MAIN_METHODS), metadata={"help": f"Methods, from {', '.join(METHODS)}."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [11, 12, 13, 14, 15], metadata={"help": "Seeds of the reported runs."}
    )
    search_seeds: list[int] = field(
        default_factory=lambda: [101], metadata={"help": "Seeds of the learning rate search; they are not reported."}
    )
    learning_rates: list[float] = field(
        default_factory=lambda: [3e-5, 1e-4, 3e-4, 1e-3], metadata={"help": "Learning rates tried for every method."}
    )
    steps: int = field(default=60, metadata={"help": "Optimizer steps of the first budget."})
    compute: float = field(
        default=1.2e6,
        metadata={"help": "Token passes of the second budget: a forward pass counts 1 per token, a backward pass 2."},
    )
    training_problems: int = field(default=256, metadata={"help": "Training prompts."})
    demonstrations: int | None = field(
        default=None, metadata={"help": "Training prompts that have a demonstration, drawn by the seed. Default: all."}
    )
    prompts_per_step: int = field(default=16, metadata={"help": "Prompts per optimizer step."})
    num_generations: int = field(default=8, metadata={"help": "Rollouts per prompt."})
    test_problems: int = field(default=80, metadata={"help": "Test problems per suite, for the tables."})
    test_samples: int = field(default=4, metadata={"help": "Samples per test problem."})
    pass_problems: int = field(
        default=12, metadata={"help": "Problems per suite for pass@k, first model only; 0 to skip pass@k."}
    )
    pass_samples: int = field(default=64, metadata={"help": "Samples per problem for pass@k."})
    curve_problems: int = field(
        default=24, metadata={"help": "Problems per suite for learning curves and the learning rate search."}
    )
    curve_points: int = field(default=6, metadata={"help": "Points of a learning curve within the first budget."})
    temperature: float = field(
        default=0.6, metadata={"help": "Sampling temperature of the evaluations, as in arXiv 2509.04419."}
    )
    ablations: bool = field(
        default=True, metadata={"help": "Also run HPT with other gates, losses on demonstrations and SFT weights."}
    )
    textbook: bool = field(
        default=True,
        metadata={"help": "Also train the first model on demonstrations that give only the answer of easy problems."},
    )
    regimes: list[str] = field(
        default_factory=list,
        metadata={"help": f"Also train the first model in these regimes of demonstrations, from {', '.join(REGIMES)}."},
    )
    small: bool = field(default=False, metadata={"help": "Run only the first model, two seeds, and SFT, GRPO and HPT."})
    processes: int = field(default=2, metadata={"help": "Number of parallel runs, one thread each."})

    def __post_init__(self) -> None:
        self.models, self.methods, self.regimes = list(self.models), list(self.methods), list(self.regimes)
        if self.small:
            self.models, self.seeds = self.models[:1], self.seeds[:2]
            self.ablations = self.textbook = False
            self.regimes = self.regimes[:1]
            self.methods = [name for name in _SMALL_METHODS if name in self.methods]
        _check_names(self)
        for name in ("steps", "compute", "training_problems", "prompts_per_step", "test_problems", "test_samples",
                     "pass_samples", "curve_problems", "curve_points", "processes"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        check_rows(self)
        if self.test_samples > 9:
            raise ValueError(f"test_samples must be at most 9, got {self.test_samples}: counts are stored as digits.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}: evaluation samples.")

    @property
    def curve_every(self) -> int:
        """Optimizer steps between two points of a learning curve."""
        return max(1, self.steps // self.curve_points)


def check_rows(args: Any) -> None:
    """Check how many prompts, rollouts and demonstrations a comparison has.

    Raises:
        ValueError: if they do not fill a step or a group, or if more demonstrations are asked for than prompts.
    """
    if args.num_generations < 2:
        raise ValueError(
            f"num_generations must be at least 2, got {args.num_generations}: advantages compare rollouts."
        )
    if args.training_problems < args.prompts_per_step:
        raise ValueError(
            f"training_problems ({args.training_problems}) must fill a step of {args.prompts_per_step} prompts."
        )
    if args.demonstrations is not None and not 1 <= args.demonstrations <= args.training_problems:
        raise ValueError(
            f"demonstrations must be from 1 to training_problems ({args.training_problems}), got {args.demonstrations}."
        )


def _check_names(args: CompareArguments) -> None:
    for name, known in (("models", BASES), ("methods", METHODS)):
        unknown = [value for value in getattr(args, name) if value not in known]
        if unknown or not getattr(args, name):
            raise ValueError(f"{name} must be from {', '.join(known)}, got {unknown or 'none'}.")
    unknown = [name for name in args.regimes if name not in REGIMES]
    if unknown:
        raise ValueError(f"regimes must be from {', '.join(REGIMES)}, got {unknown}.")
    too_large = [name for name in args.regimes if (REGIMES[name].demonstrations or 1) > args.training_problems]
    if too_large:
        raise ValueError(
            f"{', '.join(too_large)}: has more demonstrations than training_problems ({args.training_problems})."
        )
    after_sft = [name for name in args.methods if METHODS[name].begins_with_sft]
    if after_sft and "sft" not in args.methods:
        raise ValueError(
            f"{', '.join(after_sft)}: begins with SFT at SFT's learning rate. Add sft to methods, or remove it."
        )
    if not args.seeds or not args.search_seeds or not args.learning_rates:
        raise ValueError("seeds, search_seeds and learning_rates must each contain at least one value.")
    shared = set(args.seeds) & set(args.search_seeds)
    if shared or len(set(args.seeds)) < len(args.seeds):
        raise ValueError(
            f"seeds must be unique and must not contain any of search_seeds, got {args.seeds} and {args.search_seeds}."
        )
