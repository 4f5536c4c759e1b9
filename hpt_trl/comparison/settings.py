"""What `hpt-trl compare` is told: models, methods, seeds, budgets, exams."""

from dataclasses import dataclass, field

from hpt_trl.comparison.methods import METHODS
from hpt_trl.miniature.bases import BASES

_SMALL_METHODS = ("base", "sft", "grpo", "hpt")


@dataclass
class CompareArguments:
    """
    The comparison of methods on miniature models. Every method gets the same problems, demonstrations, prompts a step
    and search for its learning rate.

    Two budgets are reported, of one run each: `steps` optimizer steps, and `compute` token passes, where a token that
    is forwarded counts 1 and its way back 2, generation included.

    Args:
        output_dir (`str`): folder of the base models, of every run and of the report. Started again, what is there is
            taken and the rest is done.
    """

    output_dir: str = field(default="runs/miniature", metadata={"help": "Folder for models, runs and the report."})
    models: list[str] = field(
        default_factory=lambda: list(BASES), metadata={"help": f"Base models, of {', '.join(BASES)}."}
    )
    methods: list[str] = field(
        default_factory=lambda: list(METHODS), metadata={"help": f"Methods, of {', '.join(METHODS)}."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [11, 12, 13, 14, 15], metadata={"help": "Seeds that are reported."}
    )
    search_seeds: list[int] = field(
        default_factory=lambda: [101], metadata={"help": "Seeds of the search for learning rates, which are not."}
    )
    learning_rates: list[float] = field(
        default_factory=lambda: [3e-5, 1e-4, 3e-4, 1e-3], metadata={"help": "Tried for every method."}
    )
    steps: int = field(default=60, metadata={"help": "Optimizer steps of the first budget."})
    compute: float = field(
        default=1.2e6, metadata={"help": "Token passes of the second budget: forwarded 1, backpropagated 2 more."}
    )
    training_problems: int = field(default=256, metadata={"help": "Training prompts, each with a demonstration."})
    prompts_per_step: int = field(default=16, metadata={"help": "Prompts of an optimizer step."})
    num_generations: int = field(default=8, metadata={"help": "Rollouts of a prompt."})
    test_problems: int = field(default=80, metadata={"help": "Problems of each suite in the table."})
    test_samples: int = field(default=4, metadata={"help": "Completions of each of them."})
    pass_problems: int = field(
        default=12, metadata={"help": "Problems of each suite for pass@k, of the first model; 0: none."}
    )
    pass_samples: int = field(default=64, metadata={"help": "Completions of each of those."})
    curve_problems: int = field(
        default=24, metadata={"help": "Problems of each suite for the search and for accuracy over steps."}
    )
    curve_points: int = field(default=6, metadata={"help": "Measurements within the first budget."})
    temperature: float = field(default=0.6, metadata={"help": "Of the exams, as in arXiv 2509.04419."})
    ablations: bool = field(default=True, metadata={"help": "Also vary HPT's gate, arm and SFT weight."})
    textbook: bool = field(
        default=True,
        metadata={"help": "Also train on demonstrations that give of easy problems the bare answer, first model only."},
    )
    small: bool = field(default=False, metadata={"help": "The first model, two seeds, and SFT, GRPO and HPT only."})
    processes: int = field(default=2, metadata={"help": "Runs at a time, of one thread each."})

    def __post_init__(self) -> None:
        self.models, self.methods = list(self.models), list(self.methods)
        if self.small:
            self.models, self.seeds = self.models[:1], self.seeds[:2]
            self.ablations = self.textbook = False
            self.methods = [name for name in _SMALL_METHODS if name in self.methods]
        _check_names(self)
        for name in ("steps", "compute", "training_problems", "prompts_per_step", "test_problems", "test_samples",
                     "pass_samples", "curve_problems", "curve_points", "processes"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_generations < 2:
            raise ValueError(f"num_generations must be at least 2, got {self.num_generations}: a group needs peers.")
        if self.training_problems < self.prompts_per_step:
            raise ValueError(
                f"training_problems ({self.training_problems}) must fill a step of {self.prompts_per_step} prompts."
            )
        if self.test_samples > 9:
            raise ValueError(f"test_samples must be at most 9, got {self.test_samples}: counts are kept as digits.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}: exams are sampled.")

    @property
    def curve_every(self) -> int:
        """Optimizer steps between two measurements."""
        return max(1, self.steps // self.curve_points)


def _check_names(args: CompareArguments) -> None:
    for name, known in (("models", BASES), ("methods", METHODS)):
        unknown = [each for each in getattr(args, name) if each not in known]
        if unknown or not getattr(args, name):
            raise ValueError(f"{name} must be of {', '.join(known)}, got {unknown or 'none'}.")
    if "sft_grpo" in args.methods and "sft" not in args.methods:
        raise ValueError("sft_grpo begins with SFT at SFT's learning rate: add sft to methods, or leave sft_grpo out.")
    if not args.seeds or not args.search_seeds or not args.learning_rates:
        raise ValueError("seeds, search_seeds and learning_rates must each hold at least one value.")
    shared = set(args.seeds) & set(args.search_seeds)
    if shared or len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f"seeds must be unique and none of search_seeds, got {args.seeds} and {args.search_seeds}.")
