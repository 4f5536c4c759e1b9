r"""Seeded generators of answers: respellings of a gold answer, its neighbours, and what policies do to be judged right.

Each family draws a gold answer with respellings, which a mathematician accepts, and neighbours (another digit, sign,
exponent, order, unit or relation), which a mathematician refuses.
"""

import random
from collections.abc import Callable, Iterator
from math import gcd
from typing import NamedTuple


class Drawn(NamedTuple):
    """A gold answer with the contents of right and of wrong boxes."""

    gold: str
    respellings: list[str]
    neighbours: list[str]


class Case(NamedTuple):
    """One completion to judge."""

    kind: str
    gold: str
    completion: str
    expected: bool


def integer(draw: random.Random) -> Drawn:
    n = draw.randrange(13, 9999)
    return Drawn(
        str(n),
        [f"{n:,}", f"{n}.0", rf"{n}\,", f"+{n}", rf"\text{{{n}}}", f"x = {n}", f"{n}.", rf"\frac{{{2 * n}}}{{2}}",
         f"{n - 1}+1", f"{n} apples", rf"\mathbf{{{n}}}", f"{{{n}}}", rf"({n})", rf"\bf {n}", f"$ {n} $",
         rf"{n}\text{{ is the only solution}}", f"{n} = x", rf"{n * 10} \times 10^{{-1}}"],
        [str(n + 1), f"-{n}", f"{n}0", f"{n}.5", str(n)[::-1] + "1", f"{str(n)[:-1]} {str(n)[-1]}", f"{n}x",
         f"{n}^2", f"{n}_{{{draw.randrange(5, 8)}}}", rf"\frac{{1}}{{{n}}}", rf"{n}!", f"{n} million", rf"{n}\pi",
         f"{str(n)[:-1]}**{str(n)[-1]}", rf"\sqrt{{{n}}}", f"x > {n}", f"{n}:00", f"({n}, {n + 1})"],
    )  # fmt: skip


def fraction(draw: random.Random) -> Drawn:
    b = draw.randrange(3, 60)
    a = draw.choice([n for n in range(2, 90) if gcd(n, b) == 1])
    sign = draw.choice(["", "-"])
    k = draw.randrange(2, 9)
    return Drawn(
        rf"{sign}\frac{{{a}}}{{{b}}}",
        [f"{sign}{a}/{b}", rf"{sign}\dfrac{{{a}}}{{{b}}}", rf"\frac{{{sign}{k * a}}}{{{k * b}}}", f"{sign}{a} / {b}",
         rf"{sign}{a} \cdot {b}^{{-1}}", rf"x = {sign}\tfrac{{{a}}}{{{b}}}", rf"{sign}\left(\frac{{{a}}}{{{b}}}\right)",
         f"{sign}{a} ÷ {b}", rf"{sign}\frac{{{a}}}{{{b}}} \text{{ cups}}", rf"{sign}{{{a} \over {b}}}"],
        [rf"{sign}\frac{{{a + b}}}{{{b}}}", rf"{sign}\frac{{{a}}}{{{b + 1}}}", rf"{sign}\frac{{{b}}}{{{a}}}",
         f"{'' if sign else '-'}{a}/{b}", f"{sign}{a}{b}", f"{sign}{a}.{b}", f"{sign}{round(a / b, 3) + 0.001:.3f}",
         rf"{sign}1\frac{{{a}}}{{{b}}}", rf"{sign}\frac{{{a}}}{{{b}}}x",
         rf"{sign}\frac{{{a}}}{{{b}}} + 10^{{-60}}", rf"\sqrt{{\frac{{{a}}}{{{b}}}}}"],
    )  # fmt: skip


def mixed_number(draw: random.Random) -> Drawn:
    w, b = draw.randrange(1, 40), draw.randrange(3, 20)
    a = draw.choice([n for n in range(1, b) if gcd(n, b) == 1])
    sign = draw.choice(["", "-"])
    return Drawn(
        rf"{sign}{w}\frac{{{a}}}{{{b}}}",
        [f"{sign}{w} {a}/{b}", rf"{sign}\frac{{{w * b + a}}}{{{b}}}", f"{sign}{w * b + a}/{b}",
         rf"{sign}{w}\tfrac{{{a}}}{{{b}}}", rf"{sign}({w} + \frac{{{a}}}{{{b}}})"],
        [f"{sign}{w}{a}/{b}", f"{sign}{w} {a + b}/{b}", f"{sign}{w + 1} {a}/{b}", f"{'' if sign else '-'}{w} {a}/{b}",
         f"{w}-{a}/{b}", f"-{w}+{a}/{b}", rf"{sign}{w} \cdot \frac{{{a}}}{{{b}}}"],
    )  # fmt: skip


def decimal(draw: random.Random) -> Drawn:
    n = draw.randrange(1001, 99999) | 1
    x = f"{n / 100:.2f}"
    return Drawn(
        x,
        [rf"\frac{{{n}}}{{100}}", f"{x}0", f"{n}/100", rf"{n} \times 10^{{-2}}", f"{n}e-2", rf"{x} \text{{ m}}"],
        [f"{(n + 1) / 100:.2f}", f"-{x}", f"{n / 1000:.3f}", f"{n / 10:.1f}", str(n), str(n // 100), f"{x}1",
         x.replace(".", " "), x.replace(".", ":")],
    )  # fmt: skip


def scientific(draw: random.Random) -> Drawn:
    n, e = draw.randrange(11, 99), draw.choice([*range(-30, -3), *range(5, 30)])
    m = f"{n / 10:.1f}"
    if m.endswith("0"):
        m, n = f"{(n + 1) / 10:.1f}", n + 1
    return Drawn(
        rf"{m} \times 10^{{{e}}}",
        [f"{m}e{e}", rf"{m} \cdot 10^{{{e}}}", rf"{n} \times 10^{{{e - 1}}}", f"{m}E{e}", rf"{m}0\times10^{{{e}}}"],
        [rf"{m} \times 10^{{{e + 1}}}", rf"{m} \times 10^{{{-e}}}", rf"{n} \times 10^{{{e}}}", m, rf"{m}\times10",
         rf"{(n + 1) / 10:.1f} \times 10^{{{e}}}", f"-{m}e{e}", rf"{m}^{{{abs(e)}}}"],
    )  # fmt: skip


def surd(draw: random.Random) -> Drawn:
    a, b = draw.randrange(2, 20), draw.choice([2, 3, 5, 6, 7, 10, 11, 13])
    return Drawn(
        rf"{a}\sqrt{{{b}}}",
        [rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt {b}" if b < 10 else rf"{a} \sqrt{{{b}}}", f"{a}√{b}",
         rf"{a} \cdot {b}^{{1/2}}", rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}", f"{a}*sqrt({b})", rf"x = {a}\sqrt{{{b}}}",
         rf"{a}\sqrt{{{b}}} \approx {a * b**0.5:.2f}", f"{a}*{b}**(1/2)"],
        [rf"{a}\sqrt{{{b + 1}}}", rf"{a + 1}\sqrt{{{b}}}", rf"-{a}\sqrt{{{b}}}", rf"{b}\sqrt{{{a}}}" if a != b else "0",
         rf"\sqrt{{{a * b}}}" if a > 1 else "0", f"{a * b**0.5:.4f}", rf"{a}\sqrt[3]{{{b}}}", str(a * b),
         rf"{a}\sqrt{{{b}}} \approx {a * b**0.5 + 0.5:.2f}", rf"{a}\sqrt{{{b}}} + 10^{{-40}}", rf"{a} + \sqrt{{{b}}}",
         rf"\pm {a}\sqrt{{{b}}}"],
    )  # fmt: skip


def multiple_of_pi(draw: random.Random) -> Drawn:
    b = draw.randrange(2, 13)
    a = draw.choice([n for n in range(1, 20) if gcd(n, b) == 1])
    return Drawn(
        rf"\frac{{{a}\pi}}{{{b}}}",
        [rf"\frac{{{a}}}{{{b}}}\pi", rf"{a}\pi/{b}", f"{a}π/{b}", f"{a}*pi/{b}", rf"\frac{{{2 * a}\pi}}{{{2 * b}}}",
         rf"\dfrac{{{a} \cdot \pi}}{{{b}}}", rf"\frac{{{180 * a}}}{{{b}}}^\circ"],
        [rf"\frac{{{a + b}\pi}}{{{b}}}", rf"-\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}\pi}}", rf"\frac{{{a}}}{{{b}}}",
         rf"\frac{{{a}\pi^2}}{{{b}}}", f"{a * 3.14159265 / b:.5f}", rf"\frac{{{180 * a}}}{{{b}}}",
         rf"\frac{{{a}\pi}}{{{b}}}^\circ"],
    )  # fmt: skip


def power(draw: random.Random) -> Drawn:
    b, e = draw.choice([2, 3, 5, 7]), draw.randrange(60, 2500)
    return Drawn(
        f"{b}^{{{e}}}",
        [f"{b}**{e}", rf"{b} \cdot {b}^{{{e - 1}}}", rf"({b}^{{{e}}})", f"{b}^{{{e - 3}+3}}", rf"\frac{{{b}^{{{e + 1}}}}}{{{b}}}"],
        [f"{b}^{{{e + 1}}}", f"{b}^{{-{e}}}", f"{e}^{{{b}}}", f"{b}^{{{e}}} + 1", f"-{b}^{{{e}}}", f"{b}{e}", str(b * e),
         f"{b + 1}^{{{e}}}", r"\infty"],
    )  # fmt: skip


def near_a_limit(draw: random.Random) -> Drawn:
    b, e = draw.choice([2, 3, 10]), draw.randrange(90, 1500)
    a = draw.randrange(1, 9)
    tiny = draw.choice([rf"\frac{{1}}{{{b}^{{{e}}}}}", rf"\frac{{1}}{{{e}!}}", f"{b}^{{-{e}}}"])
    other = tiny.replace(str(e), str(e + 1))
    sign = draw.choice("+-")
    return Drawn(
        f"{a}{sign}{tiny}",
        [f"{sign.replace('+', '')}{tiny}+{a}", f"x = {a} {sign} {tiny}", rf"\left({a}{sign}{tiny}\right)"],
        [str(a), f"{a}.0", f"{a}{sign}{other}", f"{a}{'-' if sign == '+' else '+'}{tiny}", f"{a}.0000000000", f"{a - 1}.9999999999", f"{a}.0000000001",
         f"{a + 1}{sign}{tiny}", tiny, "0"],
    )  # fmt: skip


def quantity(draw: random.Random) -> Drawn:
    n = draw.randrange(2, 500)
    unit, other, power_of, thousandth = draw.choice(
        [("m", "s", "m^2", "mm"), ("g", "kg", "g/s", "mg"), ("W", "mW", "W s", "mW"), ("Pa", "MPa", "Pa s", "mPa"),
         ("s", "h", "s^2", "ms"), ("N", "J", "N m", "mN")]
    )  # fmt: skip
    return Drawn(
        rf"{n} \text{{ {unit}}}",
        [str(n), rf"{n}\,\mathrm{{{unit}}}", rf"{n}000 \text{{ {thousandth}}}", rf"x = {n} \text{{ {unit}}}",
         rf"{n}.0\ \text{{{unit}}}"],
        [rf"{n} \text{{ {other}}}", rf"{n} \text{{ {power_of}}}", rf"{n} \text{{ {thousandth}}}", rf"{n + 1} \text{{ {unit}}}",
         rf"-{n} \text{{ {unit}}}", rf"{n}\%", rf"{n}^\circ", rf"\${n}", rf"{n} \text{{ hundred}}", f"{n}0",
         rf"{n} \text{{ M{unit}}}"],
    )  # fmt: skip


def money(draw: random.Random) -> Drawn:
    n = draw.randrange(11, 99999)
    return Drawn(
        rf"\${n}",
        [str(n), f"{n} dollars", rf"\${n}.00", rf"\${n:,}", rf"{n}00\text{{ cents}}", f"{n} USD"],
        [rf"\${n + 1}", rf"-\${n}", f"{n} cents", f"€{n}", rf"\${n}\text{{ per hour}}", rf"\${n}\text{{ million}}",
         rf"\${n}\text{{ loss}}", rf"{n}\%", f"{n} euros"],
    )  # fmt: skip


def percent(draw: random.Random) -> Drawn:
    n = draw.choice([n for n in range(2, 99)])
    return Drawn(
        rf"{n}\%",
        [f"{n}%", f"{n} percent", rf"\frac{{{n}}}{{100}}", f"{n / 100:.2f}", str(n), rf"{n}.0\%"],
        [rf"{n + 1}\%", rf"{n}0\%", rf"{n / 10}\%", f"-{n}%", f"{n}00", f"{n / 1000:.3f}", f"1/{n}", rf"{n}^\circ"],
    )  # fmt: skip


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
        [rf"\{{{c}, {a}, {b}\}}", f"{b}, {a}, {c}", rf"\{{{a}, {b}, {b}, {c}\}}", f"{a}, {b} and {c}", f"x = {a}, {b}, {c}",
         rf"x \in \{{{a}, {b}, {c}\}}", rf"{a} \text{{ or }} {b} \text{{ or }} {c}", f"{a}; {b}; {c}",
         rf"x={a}\text{{ or }}x={b}\text{{ or }}x={c}"],
        [rf"\{{{a}, {b}\}}", f"{a}, {b}", rf"\{{{a}, {b}, {c + 31}\}}", f"({a}, {b}, {c})", f"[{a}, {b}, {c}]", str(a),
         rf"\{{{-a}, {-b}, {-c - 31}\}}", f"{a}, {b}, {c}, {c + 31}", f"{a} = {b} = {c}", f"{a} {b} {c}",
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
        [f"x < {a}", rf"x \ge {a}", f"x > {a + 1}", f"x = {a}", rf"x \ne {a}", rf"[{a}, \infty)", rf"(-\infty, {a})", str(a),
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
         rf"(-\infty, {a}) \cap ({b}, \infty)", rf"x < {a} \text{{ and }} x > {b}", rf"\mathbb{{R}} \setminus ({a}, {b})"],
    )  # fmt: skip


def polynomial(draw: random.Random) -> Drawn:
    a, b = draw.randrange(1, 12), draw.randrange(1, 12)
    return Drawn(
        f"x^2+{a + b}x+{a * b}",
        [f"(x+{a})(x+{b})", f"{a * b}+{a + b}x+x^2", f"x**2 + {a + b}*x + {a * b}", f"x(x+{a + b})+{a * b}",
         f"x^{{2}} + {a + b} x + {a * b}", f"y = x^2+{a + b}x+{a * b}", f"f(x) = (x+{b})(x+{a})"],
        [f"x^2+{a + b}x-{a * b}", f"x^3+{a + b}x+{a * b}", f"x^2+{a + b + 1}x+{a * b}", f"x^2+{a + b}x+{a * b}=0",
         f"y^2+{a + b}y+{a * b}", f"(x-{a})(x-{b})", f"x2+{a + b}x+{a * b}", f"x^2+{a + b}+{a * b}x" if a + b != a * b else "x",
         rf"x^2+{a + b}x+{a * b} + 10^{{-80}}", f"(x+{a}), (x+{b})", f"x = (x+{a})(x+{b})"],
    )  # fmt: skip


def assignment(draw: random.Random) -> Drawn:
    n, a, b = draw.randrange(-40, 40), draw.randrange(2, 9), draw.randrange(1, 30)
    return Drawn(
        f"x = {n}",
        [str(n), f"x={n}.0", f"{n} = x", rf"x = \frac{{{3 * n}}}{{3}}", rf"x={n}\text{{ is the only solution}}"],
        [f"{a}x+{b}={a * n + b}", f"x-{n}=0".replace("--", "+"), f"{a}(x-{b})={a * (n - b)}", f"x = {n} + 0x", f"y = {n}",
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
        [f"{a}x+{b}y={c}", rf"y = \frac{{{c}+{a}x}}{{{b}}}", rf"x = \frac{{{c}-{a}y}}{{{b}}}", rf"y = {c}-\frac{{{a}x}}{{{b}}}",
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


def ratio(draw: random.Random) -> Drawn:
    a, b = draw.sample([2, 3, 5, 7], 2)
    k = draw.randrange(2, 9)
    return Drawn(
        f"{a}:{b}",
        [f"{a} : {b}", f"{k * a}:{k * b}", rf"\frac{{{a}}}{{{b}}}", rf"{a}{{:}}{b}", f"AB:CD = {a}:{b}"],
        [f"{b}:{a}", f"{a}:{b + 1}", f"{a}{b}", f"{a}:{b}:1", f"{a}:0", f"-{a}:{b}", f"{a}.{b}", "0:0"],
    )  # fmt: skip


def time_of_day(draw: random.Random) -> Drawn:
    h, m = draw.randrange(1, 12), draw.randrange(0, 60)
    return Drawn(
        f"{h}:{m:02}",
        [rf"{h}\!:\!{m:02}", rf"\text{{{h}:{m:02}}}", rf"{h}{{:}}{m:02}"],
        [f"{h + 1}:{m:02}", f"{h}:{(m + 1) % 60:02}", f"{h}{m:02}", f"{m:02}:{h:02}" if m != h else "0", f"{h}.{m:02}",
         f"{2 * h}:{2 * m:02}", rf"\frac{{{h}}}{{{m + 1}}}", str(h)],
    )  # fmt: skip


def based(draw: random.Random) -> Drawn:
    n, base = draw.randrange(40, 900), draw.choice([2, 3, 5, 7, 8])
    digits, rest = "", n
    while rest:
        digits, rest = str(rest % base) + digits, rest // base
    return Drawn(
        f"{digits}_{base}",
        [f"{digits}_{{{base}}}", f"({digits})_{base}", f"{digits}₍".removesuffix("₍") + "₀₁₂₃₄₅₆₇₈₉"[base], digits,
         rf"{digits}_{{({base})}}", f"{n}_{{10}}"],
        [f"{digits}_{{{base + 1}}}", str(n), f"{digits}0_{base}", f"{digits[::-1]}1_{base}", f"{digits}.{base}", f"-{digits}_{base}"],
    )  # fmt: skip


def matrix(draw: random.Random) -> Drawn:
    a, b, c, d = draw.sample(range(-9, 20), 4)
    begin, end = r"\begin{pmatrix}", r"\end{pmatrix}"
    return Drawn(
        rf"{begin}{a}&{b}\\{c}&{d}{end}",
        [rf"\begin{{bmatrix}} {a} & {b} \\ {c} & {d} \end{{bmatrix}}", rf"{begin}{a}&{b}\\{c}&\frac{{{2 * d}}}{{2}}{end}",
         rf"A = {begin}{a}&{b}\\{c}&{d}{end}", rf"{begin}{a}&{c}\\{b}&{d}{end}^T"],
        [rf"{begin}{a}&{c}\\{b}&{d}{end}", rf"{begin}{a}&{b}\\{c}&{d + 1}{end}", rf"{begin}{a}&{b}&{c}&{d}{end}",
         f"({a}, {b}, {c}, {d})", str(a * d - b * c), rf"2{begin}{a}&{b}\\{c}&{d}{end}", rf"{begin}{c}&{d}\\{a}&{b}{end}"],
    )  # fmt: skip


def complex_number(draw: random.Random) -> Drawn:
    a, b = draw.sample(range(2, 30), 2)
    return Drawn(
        f"{a}+{b}i",
        [f"{b}i+{a}", f"{a} + {b} i", rf"{a}+{b}\mathrm{{i}}", f"z = {a}+{b}i", rf"{a}-\frac{{{b}}}{{i}}"],
        [f"{a}-{b}i", f"{b}+{a}i", f"{a}+{b}", f"-{a}+{b}i", f"{a}+{b}x", f"({a}, {b})", f"{a + 1}+{b}i"],
    )  # fmt: skip


def general_solution(draw: random.Random) -> Drawn:
    d, k = draw.choice([3, 4, 6]), draw.randrange(2, 5)
    return Drawn(
        rf"\frac{{\pi}}{{{d}}} + {k}n\pi",
        [rf"\frac{{\pi}}{{{d}}} + {k}k\pi", rf"{k}\pi n + \frac{{\pi}}{{{d}}}", rf"\frac{{\pi}}{{{d}}} + {k}n\pi, n \in \mathbb{{Z}}",
         rf"\frac{{\pi}}{{{d}}} + {k}n\pi \text{{ for any integer }} n"],
        [rf"\frac{{\pi}}{{{d}}} + {k + 1}n\pi", rf"-\frac{{\pi}}{{{d}}} + {k}n\pi", rf"\frac{{\pi}}{{{d}}}",
         rf"\frac{{\pi}}{{{d}}} + {k}n\pi \text{{ where }} n \text{{ is even}}", rf"\frac{{\pi}}{{{d}}} + {k}n\pi, n \in \mathbb{{N}}",
         rf"\frac{{\pi}}{{{d}}} + {k}x\pi"],
    )  # fmt: skip


def word(draw: random.Random) -> Drawn:
    a, b = draw.sample(["Monday", "isosceles", "east", "Evelyn", "even", "hyperbola", "undefined", "blue", "parallel"], 2)
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
        [rf"\angle {b}{a}{c}", rf"\angle {a}{c}{b}", f"{a}{b}{c}", rf"\triangle {a}{b}{c}", "0", rf"\angle {a}", rf"2\angle {a}{b}{c}"],
    )  # fmt: skip


def derivative(draw: random.Random) -> Drawn:
    y, x = draw.sample("yxtzu", 2)
    return Drawn(
        rf"\frac{{d{y}}}{{d{x}}}",
        [rf"\dfrac{{d{y}}}{{d{x}}}", rf"\frac{{ d{y} }}{{ d{x} }}"],
        ["0", "1", rf"\frac{{d{x}}}{{d{y}}}", rf"\frac{{{y}}}{{{x}}}", f"{y}'", f"{y}''", y, rf"\frac{{\partial {y}}}{{\partial {x}}}"],
    )  # fmt: skip


FAMILIES: list[Callable[[random.Random], Drawn]] = [
    integer, fraction, mixed_number, decimal, scientific, surd, multiple_of_pi, power, near_a_limit, quantity, money, percent,
    pair, set_of_values, interval, ray, union, polynomial, assignment, equation, solved_for, value_of_function, ratio,
    time_of_day, based, matrix, complex_number, general_solution, word, symbol, notation, derivative,
]  # fmt: skip


def _boxed(draw: random.Random, content: str) -> str:
    return draw.choice([rf"So we get $\boxed{{{content}}}$.", rf"\boxed{{{content}}}", rf"<think>hm</think> \[\boxed{{{content}}}\]"])


def respellings(total: int, seed: int = 0) -> Iterator[Case]:
    """Completions that are right, the families in turn."""
    draw = random.Random(seed)
    for index in range(total):
        family = FAMILIES[index % len(FAMILIES)]
        drawn = family(draw)
        yield Case(family.__name__, drawn.gold, _boxed(draw, draw.choice([drawn.gold, *drawn.respellings])), True)


def neighbours(total: int, seed: int = 0) -> Iterator[Case]:
    """Completions that are wrong by a digit, a sign, an exponent, an order, a unit or a relation."""
    draw = random.Random(seed)
    for index in range(total):
        family = FAMILIES[index % len(FAMILIES)]
        drawn = family(draw)
        yield Case(family.__name__, drawn.gold, _boxed(draw, draw.choice(drawn.neighbours)), False)


def _candidates(draw: random.Random, gold: str, other: str) -> str:
    first, second = draw.sample([gold, other], 2)
    return draw.choice([
        f"{first} or {second}", rf"{first} \text{{ or }} {second}", f"{first}, {second}", rf"{first} \text{{ maybe }} {second}",
        f"{first} = {second}", f"{first}; {second}", rf"{first} \text{{, but possibly }} {second}", f"{first} / {second}",
        rf"\{{{first}, {second}\}}", rf"{first} \text{{ for all I know, or }} {second}", rf"{first} \quad {second}",
        rf"{first} \approx {second}", rf"{first} \text{{ alternatively }} {second}", rf"\text{{{first} or {second}}}",
        rf"{first} \Rightarrow {second}", rf"{first} \text{{ where }} {first} = {second}", rf"{first} \to {second}",
        rf"{first} \equiv {second}", f"{first} & {second}", rf"{first} \\ {second}", rf"{first} \text{{ if lucky, else }} {second}",
        f"[{first}, {second}]", rf"x = {first} = {second}", rf"\text{{not }} {gold}", rf"{gold} \text{{ is wrong}}", rf"\neq {gold}",
        rf"{gold} \pm {other}", rf"\min({first}, {second}) \text{{ or }} \max({first}, {second})", f"{first}|{second}",
    ])  # fmt: skip


def _empty(draw: random.Random) -> str:
    return draw.choice([
        r"\boxed{}", r"\boxed{ }", r"\boxed{\text{answer}}", r"\boxed{?}", r"\boxed{x}", r"\boxed{\ldots}", r"\boxed{...}", "",
        r"\boxed{\text{the answer}}", r"\boxed{\text{See above.}}", r"\boxed{\boxed{}}", r"\boxed", r"\boxed{\text{}}",
        r"\boxed{[answer]}", r"\boxed{n}", r"\boxed{\_}", r"\boxed{=}", r"\boxed{\infty}", r"\boxed{\text{any number}}",
        r"\boxed{\mathbb{R}}", r"\boxed{\text{all real numbers}}", r"\boxed{nan}", r"\boxed{None}", r"\boxed{\emptyset}",
    ])  # fmt: skip


def _letters(draw: random.Random) -> tuple[str, str]:
    gold, other = draw.sample("ABCDE", 2)
    text = draw.choice([
        r"\boxed{%s) or %s)}", r"\boxed{%s, %s}", "The answer is %s, or %s.", "The answer is (%s) or (%s).", r"\boxed{%s. is wrong, so %s}",
        r"\boxed{%s: no, %s}", "The answer is %s: %s is also right, both are.", r"\boxed{\text{%s or %s}}", r"\boxed{%s and %s}",
        r"\boxed{%s%s}", "Answer: %s or %s", r"The answer is (%s). No, (%s).", r"\boxed{(%s) or (%s)}", r"\boxed{%s/%s}", r"\boxed{%s\ %s}",
        "(%s) (%s)", "The answer is %s. Actually, it is %s.", r"\boxed{%s) B) C) D) %s)}", r"\boxed{\text{either %s or %s}}",
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
            yield Case(kind, form % n, _boxed(draw, _candidates(draw, form % n, form % other)), False)
        elif kind == "restatement":
            drawn = draw.choice([assignment, solved_for])(draw)
            yield Case(kind, drawn.gold, _boxed(draw, drawn.neighbours[0]), False)
        elif kind == "empty":
            gold = draw.choice([str(n), rf"\frac{{1}}{{{n}}}", f"({n}, {other})", r"\text{Monday}", f"{n}x", f"x = {n}"])
            yield Case(kind, gold, _empty(draw), False)
        elif kind == "limit":
            drawn = near_a_limit(draw)
            yield Case(kind, drawn.gold, _boxed(draw, draw.choice(drawn.neighbours)), False)
        else:
            gold, text = _letters(draw)
            yield Case(kind, gold, text, False)
