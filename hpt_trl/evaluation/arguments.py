"""Arguments of `hpt-trl evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path

from hpt_trl.data.benchmarks import SUITES
from hpt_trl.evaluation.engines import DTYPES
from hpt_trl.verifier.custom import DEFAULT_VERIFIER, named_verifier, verifier_help

MAX_COMPLETION_LENGTH = 8192
"""In tokens, as in the paper (arXiv 2509.04419, section 4.1)."""

BATCH_SIZES = {"transformers": 32, "vllm": 1024}
"""Number of completions generated and saved together; vLLM divides them into batches of its own."""


@dataclass
class EvaluateArguments:
    """
    Arguments of `hpt-trl evaluate`.

    Args:
        model (`str`): A model or LoRA adapter: a folder, a Hub id, or "miniature".
        data (`str`, *optional*): File, folder, Hub id or "miniature".
    """

    model: str = field(metadata={"help": "Model or LoRA adapter: a folder, a Hub id, or 'miniature'."})
    data: str | None = field(
        default=None,
        metadata={"help": "Your own problems: a file with 'problem' and 'answer', a folder, a Hub id, or 'miniature'."},
    )
    suites: list[str] | None = field(
        default=None, metadata={"help": f"Benchmark suites: 'all', or one or more of {', '.join(SUITES)}."}
    )
    benchmarks: str | None = field(
        default=None,
        metadata={
            "help": "Folder with one file per suite, named after it (such as aime24.jsonl). Default: load from the Hub."
        },
    )
    split: str = field(default="test", metadata={"help": "Split of --data."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration name of --data on the Hub."})
    limit: int | None = field(default=None, metadata={"help": "Use only the first LIMIT problems of each suite."})
    samples: int | None = field(
        default=None,
        metadata={
            "help": "Completions per problem, the k of avg@k. Default: the paper's value for suites, 1 for --data."
        },
    )
    pass_at: list[int] | None = field(
        default=None, metadata={"help": "Values of k for pass@k. Default: powers of two up to the number of samples."}
    )
    # Source of the sampling defaults: arXiv 2509.04419, section 4.1.
    temperature: float = field(default=0.6, metadata={"help": "Sampling temperature; 0 means greedy decoding."})
    top_p: float = field(default=0.95, metadata={"help": "Probability mass for nucleus sampling, in (0, 1]."})
    max_new_tokens: int | None = field(
        default=None,
        metadata={
            "help": f"Maximum completion length in tokens. Default: {MAX_COMPLETION_LENGTH}, or less if the model's "
            "context is shorter."
        },
    )
    instruction: str | None = field(
        default=None,
        metadata={"help": "Text appended to every problem. Default: reason step by step and box the answer."},
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message of every prompt."})
    engine: str = field(default="transformers", metadata={"help": "Generation engine: 'transformers' or 'vllm'."})
    base_model: str | None = field(
        default=None, metadata={"help": "Base model of the adapter, if it is not where the adapter says."}
    )
    dtype: str = field(
        default="auto",
        metadata={
            "help": f"Data type: one of {', '.join(DTYPES)}; auto is float32 on a CPU and bfloat16 on an accelerator."
        },
    )
    batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Number of completions generated and saved together. Default: "
            f"{BATCH_SIZES['transformers']} with transformers, {BATCH_SIZES['vllm']} with vLLM."
        },
    )
    tensor_parallel_size: int = field(
        default=1, metadata={"help": "vLLM only: number of GPUs to split the model over."}
    )
    gpu_memory_utilization: float = field(
        default=0.9, metadata={"help": "vLLM only: fraction of the GPU memory to use, in (0, 1]."}
    )
    max_model_len: int | None = field(
        default=None, metadata={"help": "vLLM only: maximum length of prompt and completion together, in tokens."}
    )
    verifier: str = field(default=DEFAULT_VERIFIER, metadata={"help": verifier_help("completions")})
    seed: int = field(default=0, metadata={"help": "Random seed for sampling."})
    output: str | None = field(
        default=None,
        metadata={"help": "Folder for the results, a figure and the data needed to resume; or a single .json file."},
    )

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not self.data and not self.suites:
            raise ValueError("Nothing to evaluate on: pass --suites (such as aime24 math500, or all) or --data.")
        if self.benchmarks and not self.suites:
            raise ValueError("benchmarks is the folder of the suites, but no suites were given: add --suites all.")
        if self.output and Path(self.output).suffix == ".json" and not Path(self.output).absolute().parent.is_dir():
            raise ValueError(f"output is in a folder that does not exist: {self.output!r}. Create the folder first.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        if self.engine not in BATCH_SIZES:
            raise ValueError(f"engine must be 'transformers' or 'vllm', got {self.engine!r}.")
        named_verifier(self.verifier)
        if self.engine != "vllm" and (self.tensor_parallel_size, self.max_model_len) != (1, None):
            raise ValueError("tensor_parallel_size and max_model_len need --engine vllm: add it, or leave them out.")

    @property
    def output_folder(self) -> Path | None:
        """The output folder; None if the results are written to a single file or not at all."""
        return Path(self.output) if self.output and Path(self.output).suffix != ".json" else None


def _check_numbers(args: EvaluateArguments) -> None:
    for name in ("limit", "samples", "max_new_tokens", "batch_size", "tensor_parallel_size", "max_model_len"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if any(k < 1 for k in args.pass_at or []):
        raise ValueError(f"pass_at must be at least 1, got {args.pass_at}.")
    if args.temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {args.temperature}.")
    for name in ("top_p", "gpu_memory_utilization"):
        if not 0 < getattr(args, name) <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {getattr(args, name)}.")
