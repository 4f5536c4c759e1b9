"""Families of answers that are one number."""

import random
from math import gcd

from tests.verifier.generators.drawn import Drawn


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
    w, b = draw.randrange(1, 40), draw.choice([3, 4, 5, 6, 7, 8, 9, 11, 12, 16])
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
        [rf"\frac{{{a + b}\pi}}{{{b}}}", rf"-\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}\pi}}",
         rf"\frac{{{a}}}{{{b}}}",
         rf"\frac{{{a}\pi^2}}{{{b}}}", f"{a * 3.14159265 / b:.5f}", rf"\frac{{{180 * a}}}{{{b}}}",
         rf"\frac{{{a}\pi}}{{{b}}}^\circ"],
    )  # fmt: skip


def power(draw: random.Random) -> Drawn:
    b, e = draw.choice([2, 3, 5, 7]), draw.randrange(60, 2500)
    return Drawn(
        f"{b}^{{{e}}}",
        [f"{b}**{e}", rf"{b} \cdot {b}^{{{e - 1}}}", rf"({b}^{{{e}}})", f"{b}^{{{e - 3}+3}}",
         rf"\frac{{{b}^{{{e + 1}}}}}{{{b}}}"],
        [f"{b}^{{{e + 1}}}", f"{b}^{{-{e}}}", f"{e}^{{{b}}}", f"{b}^{{{e}}} + 1", f"-{b}^{{{e}}}",
         f"{b}{e}", str(b * e),
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
        [str(a), f"{a}.0", f"{a}{sign}{other}", f"{a}{'-' if sign == '+' else '+'}{tiny}", f"{a}.0000000000",
         f"{a - 1}.9999999999", f"{a}.0000000001",
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
        [rf"{n} \text{{ {other}}}", rf"{n} \text{{ {power_of}}}", rf"{n} \text{{ {thousandth}}}",
         rf"{n + 1} \text{{ {unit}}}",
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
    n = draw.randrange(11, 99)
    return Drawn(
        rf"{n}\%",
        [f"{n}%", f"{n} percent", rf"\frac{{{n}}}{{100}}", f"{n / 100:.2f}", str(n), rf"{n}.0\%"],
        [rf"{n + 1}\%", rf"{n}0\%", rf"{n / 10}\%", f"-{n}%", f"{n}00", f"{n / 1000:.3f}", f"1/{n}", rf"{n}^\circ"],
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
        [f"{digits}_{{{base + 1}}}", str(n), f"{digits}0_{base}", f"{digits[::-1]}1_{base}", f"{digits}.{base}",
         f"-{digits}_{base}"],
    )  # fmt: skip


def complex_number(draw: random.Random) -> Drawn:
    a, b = draw.sample(range(2, 30), 2)
    return Drawn(
        f"{a}+{b}i",
        [f"{b}i+{a}", f"{a} + {b} i", rf"{a}+{b}\mathrm{{i}}", f"z = {a}+{b}i", rf"{a}-\frac{{{b}}}{{i}}"],
        [f"{a}-{b}i", f"{b}+{a}i", f"{a}+{b}", f"-{a}+{b}i", f"{a}+{b}x", f"({a}, {b})", f"{a + 1}+{b}i"],
    )  # fmt: skip
