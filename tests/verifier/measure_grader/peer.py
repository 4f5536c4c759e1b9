"""Compares our verdicts with lighteval's on the same completions: where do they differ, and which one is correct?

lighteval 0.13 pins latex2sympy2_extended 1.0.6, which is incompatible with math-verify 0.9, so it needs a separate
environment, given as --peer_python.

    python -m tests.verifier.measure_grader.peer ../shared/data --peer_python PEER/bin/python \
        --output notebooks/results/grader/peer.json

Some completions are synthetic: for 300 problems of GSM8K and the 500 of MATH-500, the gold answer in another form and
a plausible wrong answer, so that the correct verdict is known. The others are the 400 real completions of the SmolLM2
run on GSM8K.
"""

import argparse
import json
import random
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from hpt_trl.data.columns import from_gsm8k
from hpt_trl.verifier.verdicts import judge

REAL = Path(__file__).parents[3] / "notebooks" / "results" / "smollm2_135m_gsm8k"

# Runs in the peer's environment, reads cases from stdin and prints verdicts. The metrics are those of lighteval's tasks
# `gsm8k` and `math_500`.
PEER = r"""
import json, logging, sys
logging.disable(logging.CRITICAL)
from lighteval.metrics.dynamic_metrics import ExprExtractionConfig, LatexExtractionConfig
from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
from lighteval.metrics.metrics import Metrics
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc
from lighteval.utils.language import Language

both = [ExprExtractionConfig(), LatexExtractionConfig()]
metric = {
    "gsm8k": Metrics.expr_gold_metric.value.sample_level_fn,
    "math500": MultilingualExtractiveMatchMetric(
        language=Language.ENGLISH, gold_extraction_target=both, pred_extraction_target=both, precision=6
    ),
}
verdicts = []
for case in json.load(sys.stdin):
    gold = " " + case["answer"] if case["suite"] == "gsm8k" else "ANSWER: $\\boxed{%s}$" % case["answer"]
    doc = Doc(query="", choices=[gold], gold_index=0)
    response = ModelResponse(text=[case["completion"]])
    verdicts.append(metric[case["suite"]].compute(doc=doc, model_response=response) == 1)
print("VERDICTS" + json.dumps(verdicts))
"""


def respelled(answer: str, generator: random.Random) -> str:
    """The same answer in another form."""
    if re.fullmatch(r"-?\d+", answer):
        number = int(answer)
        forms = [answer, f"{number:,}", f"{answer}.00", rf"\${answer}", rf"{answer} \text{{ units}}", rf"x = {answer}"]
        return generator.choice([*forms, rf"\frac{{{2 * number}}}{{2}}", rf"\text{{{answer}}}"])
    fraction = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", answer)
    if fraction:
        sign, numerator, denominator = fraction.groups()
        return generator.choice(
            [
                f"{sign}{numerator}/{denominator}",
                rf"{sign}\dfrac{{{numerator}}}{{{denominator}}}",
                rf"{sign}\frac{{{3 * int(numerator)}}}{{{3 * int(denominator)}}}",
            ]
        )
    if answer.startswith(r"\text{"):
        return generator.choice([answer, answer[6:-1]])
    forms = [answer, answer.replace(r"\frac", r"\dfrac"), answer.replace(" ", ""), rf"\displaystyle {answer}"]
    return generator.choice([*forms, rf"x = {answer}"] if "=" not in answer and r"\in" not in answer else forms)


def corrupted(answer: str, generator: random.Random) -> str:
    """A plausible wrong answer."""
    digits = list(re.finditer(r"\d", answer))
    if not digits:
        return generator.choice([r"\text{odd}", "3", "-x"])
    digit = generator.choice(digits)
    new_digit = str((int(digit.group()) + generator.randrange(1, 9)) % 10)
    changed = answer[: digit.start()] + new_digit + answer[digit.end() :]
    return generator.choice(
        [changed, changed, f"{answer}+1", "-" + answer if answer[0].isdigit() and answer != "0" else changed]
    )


def cases(data: Path, generator: random.Random) -> list[dict[str, Any]]:
    """Suite, gold answer, completion, and for synthetic completions whether they are correct."""
    collected = []
    gsm8k = [json.loads(line) for line in (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    golds = [("gsm8k", from_gsm8k(row).solution) for row in gsm8k[:300]]
    math500 = (data / "benchmarks" / "math500.jsonl").read_text(encoding="utf-8").splitlines()
    golds += [("math500", json.loads(line)["answer"]) for line in math500]
    for suite, answer in golds:
        plain = re.sub(r"\\!\s*", "", answer)
        for make_answer, is_right in ((respelled, True), (corrupted, False)):
            text = rf"We calculate step by step. The final answer is $\boxed{{{make_answer(plain, generator)}}}$."
            collected.append({"suite": suite, "answer": answer, "completion": text, "expected": is_right})
    for name in ("before", "after"):
        texts = json.loads((REAL / f"{name}.json").read_text())["completions"]
        for row, (text,) in zip(gsm8k, texts):
            collected.append(
                {"suite": "gsm8k", "answer": from_gsm8k(row).solution, "completion": text, "expected": None}
            )
    return collected


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer_python", required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    all_cases = cases(args.data, random.Random(0))
    ours = [
        verdict == "right"
        for verdict in judge([case["completion"] for case in all_cases], [case["answer"] for case in all_cases])
    ]
    done = subprocess.run(
        [args.peer_python, "-c", PEER], input=json.dumps(all_cases), stdout=subprocess.PIPE, text=True, check=True
    )
    theirs = json.loads(done.stdout.rpartition("VERDICTS")[2])
    counts: dict[str, Counter[str]] = {}
    differences = []
    for case, our, their in zip(all_cases, ours, theirs):
        kind = f"{case['suite']}, {'real' if case['expected'] is None else 'made'}"
        count = counts.setdefault(kind, Counter())
        count.update({"completions": 1, "agree": our == their, "ours_right": our, "theirs_right": their})
        if case["expected"] is not None:
            count.update({"ours_mistaken": our != case["expected"], "theirs_mistaken": their != case["expected"]})
        if our != their or case["expected"] not in (None, our):
            differences.append(case | {"ours": our, "theirs": their})
    print(json.dumps(counts, indent=1))
    args.output.write_text(json.dumps({"counts": counts, "differences": differences}, indent=1) + "\n")


if __name__ == "__main__":
    main()
