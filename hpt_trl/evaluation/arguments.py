"""What `hpt-trl evaluate` can be asked for."""

from dataclasses import dataclass, field
from pathlib import Path

from hpt_trl.data.benchmarks import SUITES
from hpt_trl.evaluation.engines import DTYPES

LONGEST_COMPLETION = 8192
"""Tokens, as in the paper (arXiv 2509.04419, section 4.1)."""

BATCH_SIZES = {"transformers": 32, "vllm": 1024}
"""Completions made together, and kept on disk together; vLLM makes its own batches of them."""


@dataclass
class EvaluateArguments:
    """
    What to evaluate and how.

    Args:
        model (`str`): Folder, Hub id or "miniature"; of a model or of a LoRA adapter.
        data (`str`, *optional*): File, folder, Hub id or "miniature".
    """

    model: str = field(metadata={"help": "Model or LoRA adapter: a folder, a Hub id, or 'miniature'."})
    data: str | None = field(
        default=None,
        metadata={"help": "Problems of your own: a file with 'problem' and 'answer', a folder, a Hub id, 'miniature'."},
    )
    suites: list[str] | None = field(default=None, metadata={"help": f"Of {', '.join(SUITES)}; or 'all'."})
    benchmarks: str | None = field(
        default=None, metadata={"help": "Folder with files named for the suites (aime24.jsonl); else from the Hub."}
    )
    split: str = field(default="test", metadata={"help": "Split of --data."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of --data on the Hub."})
    limit: int | None = field(default=None, metadata={"help": "Take the first so many problems of each suite."})
    samples: int | None = field(
        default=None, metadata={"help": "Completions a problem, the k of avg@k. Default: the paper's, 1 for --data."}
    )
    pass_at: list[int] | None = field(
        default=None, metadata={"help": "The k of pass@k. Default: powers of two up to the samples."}
    )
    # Source of the sampling defaults: arXiv 2509.04419, section 4.1.
    temperature: float = field(default=0.6, metadata={"help": "Sampling temperature; 0 decodes greedily."})
    top_p: float = field(default=0.95, metadata={"help": "Nucleus of the sampling distribution, in (0, 1]."})
    max_new_tokens: int | None = field(
        default=None, metadata={"help": f"Longest completion. Default: {LONGEST_COMPLETION}, or what the model takes."}
    )
    instruction: str | None = field(
        default=None, metadata={"help": "Follows every problem. Default: reason step by step, answer in a box."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "Precedes every problem."})
    engine: str = field(default="transformers", metadata={"help": "'transformers' or 'vllm'."})
    base_model: str | None = field(default=None, metadata={"help": "Base of the adapter, if not where it says."})
    dtype: str = field(default="auto", metadata={"help": f"Of {', '.join(DTYPES)}; auto: float32 on a CPU."})
    batch_size: int | None = field(
        default=None, metadata={"help": f"Completions made and kept together. Default: {BATCH_SIZES}."}
    )
    tensor_parallel_size: int = field(default=1, metadata={"help": "vLLM: GPUs that share the model."})
    gpu_memory_utilization: float = field(default=0.9, metadata={"help": "vLLM: share of a GPU's memory to take."})
    max_model_len: int | None = field(default=None, metadata={"help": "vLLM: longest prompt and completion, tokens."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampling."})
    output: str | None = field(
        default=None, metadata={"help": "Folder for results, picture and what a resume needs; or one .json file."}
    )

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not self.data and not self.suites:
            raise ValueError("Nothing to evaluate on: name suites (--suites aime24 math500, or all), or --data.")
        if self.benchmarks and not self.suites:
            raise ValueError("benchmarks is the folder of suites, but no suites were named: add --suites all.")
        if self.output and Path(self.output).suffix == ".json" and not Path(self.output).absolute().parent.is_dir():
            raise ValueError(f"output is in a folder that does not exist: {self.output!r}. Make it first.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be of {', '.join(DTYPES)}, got {self.dtype!r}.")
        if self.engine not in BATCH_SIZES:
            raise ValueError(f"engine must be 'transformers' or 'vllm', got {self.engine!r}.")
        if self.engine != "vllm" and (self.tensor_parallel_size, self.max_model_len) != (1, None):
            raise ValueError("tensor_parallel_size and max_model_len are vLLM's: add --engine vllm, or leave them out.")

    @property
    def output_folder(self) -> Path | None:
        """The folder of results; None if they go into one file, or nowhere."""
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
