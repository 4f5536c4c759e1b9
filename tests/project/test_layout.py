"""The package's layout: imports run one way between folders, private names stay in one, and every config loads."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from trl import ModelConfig

from hpt_trl.commands.demonstrate import DemonstrateArguments
from hpt_trl.commands.train import HPTScriptArguments
from hpt_trl.common.command_line import parse
from hpt_trl.comparison.language_model_settings import LanguageModelArguments
from hpt_trl.comparison.runs import Run, run_settings
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.config import HPTConfig

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hpt_trl"
# Of `hpt-trl compare`, and of the comparison on a real language model.
MINIATURE = ROOT / "configs" / "miniature.yaml"
FEW = ROOT / "configs" / "few_demonstrations.yaml"
MAP = ROOT / "configs" / "map.yaml"
WORDS = ROOT / "configs" / "smollm2_words.yaml"
DEMONSTRATE = ROOT / "configs" / "demonstrations" / "sample_by_7b.yaml"
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if path.parent.name != "accelerate" and path not in (MINIATURE, FEW, MAP, WORDS, DEMONSTRATE)
)

# Each folder may import those before it.
ORDER = [
    "common", "algorithm", "miniature", "verifier", "durability", "config", "data", "evaluation", "monitoring",
    "model_card", "report", "trainer", "profiling", "comparison", "commands",
]  # fmt: skip
# Modules that only re-export what users import; the package itself never imports them.
PUBLIC = {"diagnosis", "estimator", "evaluate", "faults", "gate", "history", "rewards", "runs", "train"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"}


def imports_of(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {
        (node.module or "").removeprefix("hpt_trl.") for node in nodes if (node.module or "").startswith("hpt_trl.")
    }


def test_the_package_holds_its_folders_and_public_modules_only():
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith(("_", "."))}
    assert names == {*ORDER, *PUBLIC, "py.typed"}


@pytest.mark.parametrize("folder", ORDER)
def test_imports_run_one_way_between_folders(folder):
    allowed = {*ORDER[: ORDER.index(folder) + 1]}
    for name, path in MODULES.items():
        if name.split(".")[0] == folder:
            assert {module.split(".")[0] for module in imports_of(path)} <= allowed, name


def test_imports_have_no_cycles_within_a_folder():
    graph = {name: imports_of(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    while leaves := [name for name, needed in graph.items() if not needed & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}


def test_tests_mirror_the_folders():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert {folder for folder in ORDER if (PACKAGE / folder).is_dir()} <= folders


def names_defined_in(tree: ast.AST) -> set[str]:
    """Functions, classes, and names and attributes that are assigned."""
    nodes = list(ast.walk(tree))
    stored = [node for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)]
    return {
        *(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)),
        *(node.attr for node in stored if isinstance(node, ast.Attribute)),
        *(node.id for node in stored if isinstance(node, ast.Name)),
    }


def test_private_names_of_upstream_stay_in_the_trainers_folder():
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    ours = set().union(*map(names_defined_in, trees.values())) | {"_exit"}  # of os, documented
    for name, tree in trees.items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {node.arg or "" for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        private = {word for word in used if word.startswith("_") and not word.startswith("__")}
        assert name.startswith("trainer.") or private <= ours, (name, private - ours)


def test_import_is_light():
    heavy = ("torch", "trl", "transformers")
    code = f"import sys, hpt_trl, hpt_trl.commands.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Ruff's C901 bounds functions. Of files and classes: what may be longer, and why.
LONG_FILES: dict[str, str] = {}
LONG_CLASSES: dict[str, str] = {}


def test_files_and_classes_stay_small():
    long_files, long_classes = set(), set()
    for path in [PACKAGE / "__init__.py", *MODULES.values()]:
        text = path.read_text()
        if len(text.splitlines()) > 400:
            long_files.add(path.relative_to(PACKAGE).as_posix())
        classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        long_classes |= {node.name for node in classes if node.end_lineno - node.lineno + 1 > 350}
    assert (long_files, long_classes) == (set(LONG_FILES), set(LONG_CLASSES))


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
    (few,) = parse((CompareArguments,), ["--config", str(FEW)], "test")
    (regimes,) = parse((CompareArguments,), ["--config", str(MAP)], "test")
    assert (few.training_problems, few.demonstrations) == (1024, 128)
    run = Run("main", "qwen2-small", "hpt", 11, 1e-4)
    assert run_settings(run, few) == run_settings(run, regimes)  # the map continues the main table's runs
    assert (len(whole.models), len(whole.methods), len(whole.seeds)) == (4, 8, 5)
    assert (len(small.models), small.methods, len(small.seeds)) == (1, ["base", "sft", "grpo", "hpt"], 2)
    assert "hpt-trl compare --config hpt_trl:miniature --small" in MINIATURE.read_text()


def test_the_language_models_config_loads():
    (args,) = parse((LanguageModelArguments,), ["--config", str(WORDS)], "test")
    assert {"sft", "grpo", "sft_grpo", "hpt"} < set(args.methods)
    assert "python -m hpt_trl.comparison.language_model --config hpt_trl:smollm2_words" in WORDS.read_text()


def test_the_config_that_samples_demonstrations_writes_what_the_other_trains_on():
    (sample,) = parse((DemonstrateArguments,), ["--config", str(DEMONSTRATE)], "test")
    train = str(DEMONSTRATE.with_name("train_1.5b.yaml"))
    script, _, model = parse(
        (HPTScriptArguments, HPTConfig, ModelConfig), ["--config", train, "--use_cpu", "true"], "test"
    )
    assert Path(sample.output) == Path(script.dataset_name) / "train.jsonl"
    assert sample.model != model.model_name_or_path
    assert "hpt-trl demonstrate --config hpt_trl:demonstrations/sample_by_7b" in DEMONSTRATE.read_text()


def test_nothing_names_this_machine():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if name.endswith((".py", ".md", ".yaml", ".toml", ".txt", ".ipynb", "Makefile")) and not name.endswith(
            "test_layout.py"
        ):
            assert not re.search(r"/(?:work|root|tmp/w)/", (ROOT / name).read_text()), name
