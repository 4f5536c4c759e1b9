"""The house stays in order: imports run one way, private names stay in two files, every config loads."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from trl import ModelConfig

from hpt_trl.comparison.language_model import LanguageModelArguments
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.config import HPTConfig
from hpt_trl.console import parse
from hpt_trl.train import HPTScriptArguments

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hpt_trl"
# Of `hpt-trl compare`, and of the comparison on a real language model.
MINIATURE = ROOT / "configs" / "miniature.yaml"
WORDS = ROOT / "configs" / "smollm2_words.yaml"
CONFIGS = [
    *sorted(
        path
        for path in (ROOT / "configs").rglob("*.yaml")
        if path.parent.name != "accelerate" and path not in (MINIATURE, WORDS)
    ),
    PACKAGE / "miniature" / "quickstart.yaml",
]

# Each module may import only what stands above it.
ORDER = [
    "masking", "versions", "miniature", "miniature.tasks", "miniature.build", "miniature.families", "miniature.bases",
    "gate", "estimator", "batching", "grader", "answers", "answers.spelling", "answers.units", "answers.structure",
    "answers.terms", "answers.equality", "grader_worker", "rewards", "demonstrations", "trl_hooks", "spread", "faults",
    "hub", "history", "samples", "recording", "terminal", "progress", "checkpoints", "scores", "journal", "data_report",
    "prompts", "columns", "reading", "decontamination", "data", "writing", "gguf_model", "config", "checks",
    "method", "run_facts", "model_card", "trainer", "console", "sources", "engines", "suites", "benchmark_problems",
    "scoreboard", "evaluate_arguments", "sampling", "runs", "diagnosis", "gate_maps", "panels", "pictures", "page",
    "report", "evaluate", "prepare", "train", "push", "quickstart", "workload", "ratios", "benchmark",
    "comparison", "comparison.statistics", "comparison.sampler", "comparison.exam", "comparison.methods",
    "comparison.progress", "comparison.settings", "comparison.runs", "comparison.pool", "comparison.plan",
    "comparison.summary", "comparison.tables", "comparison.figures", "comparison.report", "comparison.word_problems",
    "comparison.language_model_table", "comparison.language_model", "compare", "cli",
]  # fmt: skip
LEAVES = {
    "gate", "estimator", "batching", "grader", "answers.spelling", "answers.units", "demonstrations", "trl_hooks",
    "scores", "data_report", "reading", "decontamination", "writing", "faults", "gate_maps", "terminal",
}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"}


def imports_of(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "").removeprefix("hpt_trl.") for node in nodes if (node.module or "").startswith("hpt_trl")}


def test_every_module_has_its_place():
    assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name):
    assert imports_of(MODULES[name]) <= set(ORDER[: ORDER.index(name)])
    assert name not in LEAVES or not imports_of(MODULES[name])


def test_private_names_of_trl_stay_in_two_files():
    own = re.compile(r"\b(?:self|super\(\)|trainer)\._(?!_)\w+")
    for name, path in MODULES.items():
        if name in ("trainer", "trl_hooks"):
            continue
        text = path.read_text()
        defined = set(re.findall(r"(?:def |self\.)(_\w+)", text))
        strangers = [use for use in own.findall(text) if use.split("._")[1] not in {d[1:] for d in defined}]
        assert not strangers, (name, strangers)


def test_import_is_light():
    code = "import sys, hpt_trl, hpt_trl.cli; print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_functions_stay_small():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.body[0].lineno + 1
                assert lines <= 40, f"{name}.{node.name} has {lines} lines"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: "/".join(path.with_suffix("").parts[-2:]))
def test_every_config_loads_and_opens_with_its_launch_command(path):
    # vLLM and a GPU's bf16 are not here: everything else is parsed as it stands.
    flags = ["--config", str(path), "--use_cpu", "true"]
    _, args, model = parse((HPTScriptArguments, HPTConfig, ModelConfig), flags, "test")
    assert model.model_name_or_path
    assert args.generation_batch_size % args.num_generations == 0
    comments = path.read_text().split("\n\n")[0]
    assert re.search(r"hpt-trl train|accelerate launch", comments)


def test_the_comparisons_config_loads_whole_and_small():
    (whole,) = parse((CompareArguments,), ["--config", str(MINIATURE)], "test")
    (small,) = parse((CompareArguments,), ["--config", str(MINIATURE), "--small"], "test")
    assert (len(whole.models), len(whole.methods), len(whole.seeds)) == (4, 8, 5)
    assert (len(small.models), small.methods, len(small.seeds)) == (1, ["base", "sft", "grpo", "hpt"], 2)
    assert "hpt-trl compare --config configs/miniature.yaml --small" in MINIATURE.read_text()


def test_the_language_models_config_loads():
    (args,) = parse((LanguageModelArguments,), ["--config", str(WORDS)], "test")
    assert {"sft", "grpo", "sft_grpo", "hpt"} < set(args.methods)
    assert "python -m hpt_trl.comparison.language_model --config configs/smollm2_words.yaml" in WORDS.read_text()


def test_nothing_names_this_machine():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (
            name.endswith((".py", ".md", ".yaml", ".toml", ".txt", ".ipynb", "Makefile"))
            and name != "tests/test_house.py"
        ):
            assert not re.search(r"/(?:work|root|tmp/w)/", (ROOT / name).read_text()), name
