"""Word problems with one calculation on two numbers: easy with one-digit numbers, hard with two-digit numbers."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from hpt_trl.miniature.tasks import Split, split_of, unique

NAMES = ("Anna", "Ben", "Carla", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "coins", "cups", "hats", "pens", "shells", "stamps")


@dataclass(frozen=True)
class Story:
    """A kind of word problem.

    Args:
        questions: question templates with the fields `name`, `thing`, `a` and `b`.
        sign: operator of the calculation.
        answer: computes the answer from the two numbers.
        easy: smallest and largest value of either number in an easy problem.
        hard: the same in a hard problem.
    """

    questions: tuple[str, ...]
    sign: str
    answer: Callable[[int, int], int]
    easy: tuple[tuple[int, int], tuple[int, int]]
    hard: tuple[tuple[int, int], tuple[int, int]]


STORIES: dict[str, Story] = {
    "gain": Story(
        (
            "{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?",
            "{name} finds {a} {thing} on Monday and {b} on Friday. How many {thing} is that?",
        ),
        "+",
        lambda a, b: a + b,
        easy=((2, 9), (2, 9)),
        hard=((11, 49), (11, 49)),
    ),
    "loss": Story(
        (
            "{name} has {a} {thing} and gives away {b}. How many {thing} are left?",
            "Of {a} {thing} {name} loses {b}. How many {thing} does {name} still have?",
        ),
        "-",
        lambda a, b: a - b,
        easy=((6, 9), (2, 5)),
        hard=((50, 99), (11, 49)),
    ),
    "price": Story(
        (
            "{name} buys {a} {thing} at {b} dollars each. How many dollars is that?",
            "{name} fills {a} boxes with {b} {thing} each. How many {thing} is that?",
        ),
        "*",
        lambda a, b: a * b,
        easy=((2, 5), (2, 9)),
        hard=((2, 6), (11, 29)),
    ),
}


def sample_problem(generator: random.Random, is_hard: bool, split: Split) -> dict[str, str]:
    """Sample one problem of a split.

    Args:
        generator: source of randomness.
        is_hard: whether at least one number has two digits.
        split: `"train"` or `"test"`. A hash of the question assigns it to a split, whatever the seed. The same
            calculation may be in both splits, with other people or things.

    Returns:
        `question`, `demonstration`, `solution` (digits only) and `kind` of story, all strings.
    """
    while True:
        kind = generator.choice(list(STORIES))
        story = STORIES[kind]
        a, b = (generator.randint(*limits) for limits in (story.hard if is_hard else story.easy))
        name, thing = generator.choice(NAMES), generator.choice(THINGS)
        question = generator.choice(story.questions).format(name=name, thing=thing, a=a, b=b)
        if split_of(question) == split:
            answer = story.answer(a, b)
            return {
                "question": question,
                "demonstration": f"{a}{story.sign}{b}=\\boxed{{{answer}}}",
                "solution": str(answer),
                "kind": kind,
            }


def word_problems(count: int, seed: int, split: Split, is_hard: bool = True) -> list[dict[str, str]]:
    """Unique problems; the same arguments give the same rows.

    Args:
        count: number of problems, at least 1.
        seed: seed of the sampling.
        split: `"train"` or `"test"`.
        is_hard: whether at least one number has two digits.

    Raises:
        ValueError: if `count` is below 1.
    """
    generator = random.Random(f"{seed} {split} {is_hard}")
    return unique(count, "question", lambda: sample_problem(generator, is_hard, split))
