"""Families of answers that are tuples, sets, intervals, expressions, equations, words and symbols."""

import random

from tests.verifier.generators.drawn import Drawn


def pair(draw: random.Random) -> Drawn:
    a, b = draw.sample(range(-9, 20), 2)
    return Drawn(
        f"({a}, {b})",
        [f"({a},{b})", rf"\left({a}, {b}\right)", f"(x, y) = ({a}, {b})", f"x = {a}, y = {b}", f"y = {b}, x = {a}",
         rf"x = {a} \text{{ and }} y = {b}", rf"\langle {a}, {b} \rangle", rf"\begin{{pmatrix}}{a}\\{b}\end{{pmatrix}}",
         rf"(\frac{{{2 * a}}}{{2}}, {b})", rf"\begin{{cases}} x={a} \\ y={b} \end{{cases}}"],
        [f"({b}, {a})", f"(y, x) = ({a}, {b})", f"x = {b}, y = {a}", f"({a}, {b + 1})", f"({a}, {b}, 0)", f"[{a}, {b}]",
         rf"\{{{a}, {b}\}}", f"[{a}, {b})", f"({-a}, {-b})", f"{a}.{abs(b)}", str(a), f"x = {a}"],
    )  # fmt: skip


def set_of_values(draw: random.Random) -> Drawn:
    a, b, c = draw.sample(range(-12, 30), 3)
    return Drawn(
        rf"\{{{a}, {b}, {c}\}}",
        [rf"\{{{c}, {a}, {b}\}}", f"{b}, {a}, {c}", rf"\{{{a}, {b}, {b}, {c}\}}", f"{a}, {b} and {c}",
         f"x = {a}, {b}, {c}",
         rf"x \in \{{{a}, {b}, {c}\}}", rf"{a} \text{{ or }} {b} \text{{ or }} {c}", f"{a}; {b}; {c}",
         rf"x={a}\text{{ or }}x={b}\text{{ or }}x={c}"],
        [rf"\{{{a}, {b}\}}", f"{a}, {b}", rf"\{{{a}, {b}, {c + 77}\}}", f"({a}, {b}, {c})", f"[{a}, {b}, {c}]", str(a),
         rf"\{{{-a}, {-b}, {-c - 77}\}}", f"{a}, {b}, {c}, {c + 77}", f"{a} = {b} = {c}", f"{a} {b} {c}",
         f"{a}:{b}:{c}"],
    )  # fmt: skip


def interval(draw: random.Random) -> Drawn:
    a, width = draw.randrange(-20, 20), draw.randrange(1, 20)
    b = a + width
    (left, less_a), (right, less_b) = draw.choice([("(", "<"), ("[", r"\le")]), draw.choice([(")", "<"), ("]", r"\le")])
    other_left, other_right = "([".replace(left, ""), ")]".replace(right, "")
    greater = {"<": ">", r"\le": r"\ge"}
    return Drawn(
        f"{left}{a}, {b}{right}",
        [f"{a} {less_a} x {less_b} {b}", rf"x \in {left}{a},{b}{right}", rf"\left{left}{a},{b}\right{right}",
         f"{b} {greater[less_b]} x {greater[less_a]} {a}", rf"\{{x \mid {a} {less_a} x {less_b} {b}\}}",
         rf"\{{x \in \mathbb{{R}} : {a} {less_a} x {less_b} {b}\}}", f"{left}{a}.0, {b}{right}"],
        [f"{other_left}{a}, {b}{right}", f"{left}{a}, {b}{other_right}", f"{left}{a - 1}, {b}{right}",
         f"{left}{b}, {a}{right}", rf"\{{{a}, {b}\}}", f"x {less_b} {b}", rf"(-\infty, {b}{right}", f"{a}",
         rf"\{{x \in \mathbb{{Z}} : {a} {less_a} x {less_b} {b}\}}", f"{b} {less_a} x {less_b} {a}",
         rf"{left}{a}, {b}{right} \cup \{{{b + 1}\}}"],
    )  # fmt: skip


def ray(draw: random.Random) -> Drawn:
    a = draw.randrange(-30, 30)
    return Drawn(
        f"x > {a}",
        [f"{a} < x", rf"({a}, \infty)", rf"x \in ({a}, +\infty)", f"x > {a}.0", rf"\{{x : x > {a}\}}"],
        [f"x < {a}", rf"x \ge {a}", f"x > {a + 1}", f"x = {a}", rf"x \ne {a}", rf"[{a}, \infty)",
         rf"(-\infty, {a})", str(a),
         f"y > {a}", rf"\{{x \in \mathbb{{N}} : x > {a}\}}"],
    )  # fmt: skip


def union(draw: random.Random) -> Drawn:
    a, width = draw.randrange(-20, 20), draw.randrange(1, 20)
    b = a + width
    return Drawn(
        rf"(-\infty, {a}) \cup ({b}, \infty)",
        [rf"({b}, \infty) \cup (-\infty, {a})", rf"x < {a} \text{{ or }} x > {b}", f"x > {b} or x < {a}",
         rf"\mathbb{{R}} \setminus [{a}, {b}]"],
        [rf"(-\infty, {a}] \cup ({b}, \infty)", f"({a}, {b})", rf"(-\infty, {b}) \cup ({a}, \infty)", f"x < {a}",
         rf"(-\infty, {a}) \cap ({b}, \infty)", rf"x < {a} \text{{ and }} x > {b}",
         rf"\mathbb{{R}} \setminus ({a}, {b})"],
    )  # fmt: skip


def polynomial(draw: random.Random) -> Drawn:
    a, b = draw.randrange(1, 12), draw.randrange(1, 12)
    return Drawn(
        f"x^2+{a + b}x+{a * b}",
        [f"(x+{a})(x+{b})", f"{a * b}+{a + b}x+x^2", f"x**2 + {a + b}*x + {a * b}", f"x(x+{a + b})+{a * b}",
         f"x^{{2}} + {a + b} x + {a * b}", f"y = x^2+{a + b}x+{a * b}", f"f(x) = (x+{b})(x+{a})"],
        [f"x^2+{a + b}x-{a * b}", f"x^3+{a + b}x+{a * b}", f"x^2+{a + b + 1}x+{a * b}", f"x^2+{a + b}x+{a * b}=0",
         f"y^2+{a + b}y+{a * b}", f"(x-{a})(x-{b})", f"x2+{a + b}x+{a * b}",
         f"x^2+{a + b}+{a * b}x" if a + b != a * b else "x",
         rf"x^2+{a + b}x+{a * b} + 10^{{-80}}", f"(x+{a}), (x+{b})", f"x = (x+{a})(x+{b})"],
    )  # fmt: skip


def assignment(draw: random.Random) -> Drawn:
    n, a, b = draw.randrange(-40, 40), draw.randrange(2, 9), draw.randrange(1, 30)
    return Drawn(
        f"x = {n}",
        [str(n), f"x={n}.0", f"{n} = x", rf"x = \frac{{{3 * n}}}{{3}}", rf"x={n}\text{{ is the only solution}}"],
        [f"{a}x+{b}={a * n + b}", f"x-{n}=0".replace("--", "+"), f"{a}(x-{b})={a * (n - b)}", f"x = {n} + 0x",
         f"y = {n}",
         f"x = {-n if n else 1}", f"x = {n + 1} = {n}", f"x = {n}, {n + 1}", f"x > {n}", rf"x \approx {n}.4", "x",
         f"x={n + 1}", f"f(x) = {n}", rf"x \equiv {n}", rf"x \ne {n}"],
    )  # fmt: skip


def equation(draw: random.Random) -> Drawn:
    a, b = draw.sample([2, 3, 5, 7, 11], 2)
    c = draw.randrange(1, 40)
    return Drawn(
        f"{a}x + {b}y = {c}",
        [f"{b}y+{a}x={c}", f"{2 * a}x+{2 * b}y={2 * c}", f"{a}x+{b}y-{c}=0", f"-{a}x-{b}y=-{c}",
         rf"y = \frac{{{c}-{a}x}}{{{b}}}", f"{c} = {a}x+{b}y"],
        [f"{b}x+{a}y={c}", f"{a}x-{b}y={c}", f"{a}x+{b}y={c + 1}", f"{a}x+{b}y", str(c), f"{a}x^2+{b}y={c}",
         f"{a}x+{b}y>{c}", f"{a}x+{b}z={c}"],
    )  # fmt: skip


def solved_for(draw: random.Random) -> Drawn:
    a, b, c = draw.randrange(2, 9), draw.randrange(2, 9), draw.randrange(1, 40)
    return Drawn(
        rf"y = \frac{{{c}-{a}x}}{{{b}}}",
        [rf"y = \frac{{{c}}}{{{b}}} - \frac{{{a}}}{{{b}}}x", rf"\frac{{{c}-{a}x}}{{{b}}}", f"y = ({c}-{a}x)/{b}",
         rf"y=-\frac{{{a}x-{c}}}{{{b}}}"],
        [f"{a}x+{b}y={c}", rf"y = \frac{{{c}+{a}x}}{{{b}}}", rf"x = \frac{{{c}-{a}y}}{{{b}}}",
         rf"y = {c}-\frac{{{a}x}}{{{b}}}",
         f"{b}y = {c}-{a}x", rf"\frac{{y-{c}/{b}}}{{x}}=-\frac{{{a}}}{{{b}}}"],
    )  # fmt: skip


def value_of_function(draw: random.Random) -> Drawn:
    k, n = draw.randrange(1, 9), draw.randrange(2, 60)
    name = draw.choice("fgPS")
    return Drawn(
        f"{name}({k}) = {n}",
        [str(n), f"{name}({k})={n}.0", rf"{name}\left({k}\right) = {n}"],
        [f"{name}({k + 1}) = {n}", f"{name}'({k}) = {n}", f"{name}({n}) = {k}" if n != k else "0", str(n + 1),
         f"h({k}) = {n}", f"{name}({k})", f"{name}({k}) = {n} = {n + 1}"],
    )  # fmt: skip


def matrix(draw: random.Random) -> Drawn:
    a, b, c, d = draw.sample(range(-9, 20), 4)
    begin, end = r"\begin{pmatrix}", r"\end{pmatrix}"
    return Drawn(
        rf"{begin}{a}&{b}\\{c}&{d}{end}",
        [rf"\begin{{bmatrix}} {a} & {b} \\ {c} & {d} \end{{bmatrix}}",
         rf"{begin}{a}&{b}\\{c}&\frac{{{2 * d}}}{{2}}{end}",
         rf"A = {begin}{a}&{b}\\{c}&{d}{end}", rf"{begin}{a}&{c}\\{b}&{d}{end}^T"],
        [rf"{begin}{a}&{c}\\{b}&{d}{end}", rf"{begin}{a}&{b}\\{c}&{d + 1}{end}", rf"{begin}{a}&{b}&{c}&{d}{end}",
         f"({a}, {b}, {c}, {d})", str(a * d - b * c), rf"2{begin}{a}&{b}\\{c}&{d}{end}",
         rf"{begin}{c}&{d}\\{a}&{b}{end}"],
    )  # fmt: skip


def general_solution(draw: random.Random) -> Drawn:
    d, k = draw.choice([3, 4, 6]), draw.randrange(2, 5)
    return Drawn(
        rf"\frac{{\pi}}{{{d}}} + {k}n\pi",
        [rf"\frac{{\pi}}{{{d}}} + {k}k\pi", rf"{k}\pi n + \frac{{\pi}}{{{d}}}",
         rf"\frac{{\pi}}{{{d}}} + {k}n\pi, n \in \mathbb{{Z}}",
         rf"\frac{{\pi}}{{{d}}} + {k}n\pi \text{{ for any integer }} n"],
        [rf"\frac{{\pi}}{{{d}}} + {k + 1}n\pi", rf"-\frac{{\pi}}{{{d}}} + {k}n\pi", rf"\frac{{\pi}}{{{d}}}",
         rf"\frac{{\pi}}{{{d}}} + {k}n\pi \text{{ where }} n \text{{ is even}}",
         rf"\frac{{\pi}}{{{d}}} + {k}n\pi, n \in \mathbb{{N}}",
         rf"\frac{{\pi}}{{{d}}} + {k}x\pi"],
    )  # fmt: skip


def word(draw: random.Random) -> Drawn:
    a, b = draw.sample(
        ["Monday", "isosceles", "east", "Evelyn", "even", "hyperbola", "undefined", "blue", "parallel"], 2
    )
    return Drawn(
        rf"\text{{{a}}}",
        [a, a.lower(), rf"\textbf{{{a}}}", rf"\mathrm{{{a}}}", rf"\text{{{a}.}}", rf'"{a}"'],
        [b, f"not {a}", f"{a} or {b}", f"{a}, {b}", a[::-1], a[:-1], rf"\text{{{a} maybe {b}}}", "1", f"{a} and {b}"],
    )  # fmt: skip


def symbol(draw: random.Random) -> Drawn:
    a, n = draw.choice("SAFPC"), draw.randrange(1, 9)
    return Drawn(
        f"{a}_{n}",
        [f"{a}_{{{n}}}", f"${a}_{n}$", f"{a} _ {{{n}}}"],
        [f"{a}_{n + 1}", f"{a}^{n}", f"{a}{n}", f"{a}_{n}'", a, str(n), f"B_{n}", f"{a}_{{{n}{n}}}", rf"\angle {a}"],
    )  # fmt: skip


def notation(draw: random.Random) -> Drawn:
    a, b, c = draw.sample("ABCDEFGH", 3)
    return Drawn(
        rf"\angle {a}{b}{c}",
        [rf"\angle{{{a}{b}{c}}}".replace("{", "{ ").replace("{ ", " ").replace("}", ""), rf"$\angle {a}{b}{c}$"],
        [rf"\angle {b}{a}{c}", rf"\angle {a}{c}{b}", f"{a}{b}{c}", rf"\triangle {a}{b}{c}", "0", rf"\angle {a}",
         rf"2\angle {a}{b}{c}"],
    )  # fmt: skip


def derivative(draw: random.Random) -> Drawn:
    y, x = draw.sample("yxtzu", 2)
    return Drawn(
        rf"\frac{{d{y}}}{{d{x}}}",
        [rf"\dfrac{{d{y}}}{{d{x}}}", rf"\frac{{ d{y} }}{{ d{x} }}"],
        ["0", "1", rf"\frac{{d{x}}}{{d{y}}}", rf"\frac{{{y}}}{{{x}}}", f"{y}'",
         f"{y}''", y, rf"\frac{{\partial {y}}}{{\partial {x}}}"],
    )  # fmt: skip
