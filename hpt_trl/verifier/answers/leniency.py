r"""Everything in which the verifier is lenient: one table, with an example and a counterexample for each rule.

All other answers must be one value that equals the gold answer exactly, and that can be read completely. The guide on
data and the verifier shows this table; a test judges its examples and compares the two.
"""

from typing import NamedTuple


class Leniency(NamedTuple):
    """One rule: `gold` is answered by `accepted`, but not by `refused`."""

    name: str
    rule: str
    gold: str
    accepted: str
    refused: str


LENIENCIES = (
    Leniency(
        "name",
        "One of the two may omit the name of the value; if both have one, they must be the same.",
        "5", "x = 5", "x = 4 = 5",
    ),
    Leniency(
        "unit",
        "One of the two may omit the unit; units of the same dimension are converted.",
        r"12\text{ cm}", "120 mm", r"12\text{ cm}^2",
    ),
    Leniency(
        "counted thing",
        "A noun after a number counts as a unit, unless it changes the number (`million`, `plus`, `or`).",
        "7", "7 apples", "7 plus one",
    ),
    Leniency(
        "percent",
        r"`50\%` equals `0.5`, and also `50`, because a question may ask for percent; `0.5` never equals `50`.",
        r"50\%", "0.5", r"0.5\%",
    ),
    Leniency(
        "degrees",
        r"Degrees may be given in radians. A number without a unit answers a gold answer in degrees, not in radians.",
        r"90^\circ", r"\frac{\pi}{2}", r"\pi",
    ),
    Leniency(
        "base",
        "The answer may omit the base of a gold answer, but not add one to it, unless the values agree.",
        "FF_{16}", "FF", "FF_{17}",
    ),
    Leniency(
        "rounding",
        "A decimal with ten or more significant digits may be rounded or cut off; a shorter one is exact.",
        r"\frac{1}{3}", "0.3333333333", "0.333",
    ),
    Leniency(
        "approximation",
        r"`exact \approx rounded` is one answer if the second rounds the first.",
        r"\frac{\sqrt{3}}{3}", r"\frac{\sqrt{3}}{3} \approx 0.577", r"\frac{\sqrt{3}}{3} \approx 0.578",
    ),
    Leniency(
        "brackets",
        "Brackets around several values may be missing: around a set in any order, around a tuple in the same order.",
        r"\{1, 2\}", "2, 1", "(2, 1)",
    ),
    Leniency(
        "order of names",
        "Values with names answer a tuple in the usual order of the names.",
        "(3, 2)", "y = 2, x = 3", "(y, x) = (3, 2)",
    ),
    Leniency(
        "domain",
        r"One of the two may omit that a variable is arbitrary: `k \in \mathbb{Z}`, `for all x`.",
        r"\frac{\pi}{3} + 2k\pi", r"\frac{\pi}{3} + 2k\pi, k \in \mathbb{Z}",
        r"\frac{\pi}{3} + 2k\pi \text{ where } k \text{ is even}",
    ),
    Leniency(
        "dummy name",
        r"The integer in a general solution may have another name, of k, l, m and n, if it only multiplies $\pi$.",
        r"n\pi", r"k\pi", r"2k\pi",
    ),
    Leniency(
        "letter",
        'A gold letter is also answered by "the answer is (C)", and by a letter with the text of the option.',
        "C", r"\text{(C) } 42", "C or D",
    ),
)  # fmt: skip
