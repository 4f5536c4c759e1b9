"""What policies do to be judged right without having one answer."""

import random
from collections.abc import Iterator

from tests.verifier.generators import boxed, numbers, structures
from tests.verifier.generators.drawn import Case


def _candidates(draw: random.Random, gold: str, other: str) -> str:
    first, second = draw.sample([gold, other], 2)
    return draw.choice([
        f"{first} or {second}", rf"{first} \text{{ or }} {second}", f"{first}, {second}",
        rf"{first} \text{{ maybe }} {second}",
        f"{first} = {second}", f"{first}; {second}", rf"{first} \text{{, but possibly }} {second}",
        f"{first} / {second}",
        rf"\{{{first}, {second}\}}", rf"{first} \text{{ for all I know, or }} {second}", rf"{first} \quad {second}",
        rf"{first} \approx {second}", rf"{first} \text{{ alternatively }} {second}", rf"\text{{{first} or {second}}}",
        rf"{first} \Rightarrow {second}", rf"{first} \text{{ where }} {first} = {second}", rf"{first} \to {second}",
        rf"{first} \equiv {second}", f"{first} & {second}", rf"{first} \\ {second}",
        rf"{first} \text{{ if lucky, else }} {second}",
        f"[{first}, {second}]", rf"x = {first} = {second}", rf"\text{{not }} {gold}", rf"{gold} \text{{ is wrong}}",
        rf"\neq {gold}",
        rf"{gold} \pm {other}", rf"\min({first}, {second}) \text{{ or }} \max({first}, {second})", f"{first}|{second}",
    ])  # fmt: skip


def _empty(draw: random.Random) -> str:
    return draw.choice([
        r"\boxed{}", r"\boxed{ }", r"\boxed{\text{answer}}", r"\boxed{?}", r"\boxed{x}", r"\boxed{\ldots}",
        r"\boxed{...}", "",
        r"\boxed{\text{the answer}}", r"\boxed{\text{See above.}}", r"\boxed{\boxed{}}", r"\boxed", r"\boxed{\text{}}",
        r"\boxed{[answer]}", r"\boxed{n}", r"\boxed{\_}", r"\boxed{=}", r"\boxed{\infty}", r"\boxed{\text{any number}}",
        r"\boxed{\mathbb{R}}", r"\boxed{\text{all real numbers}}", r"\boxed{nan}", r"\boxed{None}",
        r"\boxed{\emptyset}",
    ])  # fmt: skip


def _letters(draw: random.Random) -> tuple[str, str]:
    gold, other = draw.sample("ABCDE", 2)
    text = draw.choice([
        r"\boxed{%s) or %s)}", r"\boxed{%s, %s}", "The answer is %s, or %s.", "The answer is (%s) or (%s).",
        r"\boxed{%s. is wrong, so %s}",
        r"\boxed{%s: no, %s}", "The answer is %s: %s is also right, both are.", r"\boxed{\text{%s or %s}}",
        r"\boxed{%s and %s}",
        r"\boxed{%s%s}", "Answer: %s or %s", r"The answer is (%s). No, (%s).", r"\boxed{(%s) or (%s)}",
        r"\boxed{%s/%s}", r"\boxed{%s\ %s}",
        "(%s) (%s)", "The answer is %s. Actually, it is %s.", r"\boxed{%s) B) C) D) %s)}",
        r"\boxed{\text{either %s or %s}}",
    ])  # fmt: skip
    pair = draw.sample([gold, other], 2)
    if "wrong" in text or "no, " in text or "No, " in text or "Actually" in text:
        pair = [gold, other]
    unclosed = rf"Then it must be \boxed{{{gold}"
    return gold, draw.choice([text % tuple(pair)] * 5 + [unclosed])


def hostile(total: int, seed: int = 0) -> Iterator[Case]:
    """Completions of a policy that tries to be judged right without one answer; all are wrong."""
    draw = random.Random(seed)
    for index in range(total):
        n = draw.randrange(2, 500)
        other = n + draw.randrange(1, 60)
        kind = ("candidates", "restatement", "empty", "limit", "letters")[index % 5]
        if kind == "candidates":
            form = draw.choice(["%d", r"\frac{%d}{541}", r"\sqrt{%d}", "%d.5", "-%d", r"%d\pi", "%dx", r"%d\text{ cm}"])
            yield Case(kind, form % n, boxed(draw, _candidates(draw, form % n, form % other)), False)
        elif kind == "restatement":
            drawn = draw.choice([structures.assignment, structures.solved_for])(draw)
            yield Case(kind, drawn.gold, boxed(draw, drawn.neighbours[0]), False)
        elif kind == "empty":
            gold = draw.choice(
                [str(n), rf"\frac{{1}}{{{n}}}", f"({n}, {other})", r"\text{Monday}", f"{n}x", f"x = {n}"]
            )
            yield Case(kind, gold, _empty(draw), False)
        elif kind == "limit":
            drawn = numbers.near_a_limit(draw)
            yield Case(kind, drawn.gold, boxed(draw, draw.choice(drawn.neighbours)), False)
        else:
            gold, text = _letters(draw)
            yield Case(kind, gold, text, False)
