"""Detection of training prompts that repeat a benchmark problem, by n-gram overlap with each problem.

A prompt overlaps a problem if the 8-grams they share cover more than half of the problem's words. This is the rule of
Tulu 3 (arXiv 2411.15124; `decontamination` in allenai/open-instruct). In GPT-3 (13 words) and open-r1 (8 words), one
shared n-gram is enough, which refuses prompts for a phrase like "where m and n are relatively prime positive integers".
Such phrases make up half of some problems, so n-grams that occur in ten or more problems are ignored, as GPT-3 ignores
frequent ones (arXiv 2005.14165, appendix C). A problem without an n-gram of its own must occur verbatim.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NGRAM_WORDS = 8
MIN_COVERED_SHARE = 0.5
COMMON_NGRAM_PROBLEMS = 10

# Commands that affect the typesetting of a formula, not its meaning.
_TYPESETTING = re.compile(
    r"\\(?:left|right|displaystyle|text(?:bf)?|math(?:rm|bf)|q?quad)(?![a-z])|(?<=\\)[dt](?=frac)"
)
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case words of a text; punctuation, line breaks and the typesetting of formulas are ignored."""
    return _WORD.findall(_TYPESETTING.sub("", unicodedata.normalize("NFKC", text).lower()))


def _ngrams(text_words: Sequence[str]) -> list[str]:
    return [" ".join(text_words[i : i + NGRAM_WORDS]) for i in range(len(text_words) - NGRAM_WORDS + 1)]


@dataclass(frozen=True)
class Hit:
    """An overlapping problem: its benchmark, its 1-based number there, and the share of its words that is covered."""

    benchmark: str
    number: int
    share: float


class Overlap:
    """
    Finds the benchmark problems that a prompt overlaps.

    Args:
        benchmarks: the texts of the problems, by name of the benchmark.
    """

    def __init__(self, benchmarks: Mapping[str, Iterable[str]]) -> None:
        entries = [(name, *entry) for name, problems in benchmarks.items() for entry in enumerate(problems, 1)]
        # Problems are identified by their index in `entries`.
        self._names = [(name, number) for name, number, _ in entries]
        texts = [words(problem) for _, _, problem in entries]
        ngrams_of_problems = [_ngrams(text) for text in texts]
        problem_count = Counter(ngram for ngrams in ngrams_of_problems for ngram in set(ngrams))
        self._occurrences: dict[str, list[tuple[int, int]]] = defaultdict(list)  # problem, position of the n-gram in it
        self._coverable_words: list[int] = []
        self._short_problems: dict[str, list[int]] = defaultdict(list)
        for index, ngrams in enumerate(ngrams_of_problems):
            rare = [
                (position, ngram)
                for position, ngram in enumerate(ngrams)
                if problem_count[ngram] < COMMON_NGRAM_PROBLEMS
            ]
            for position, ngram in rare:
                self._occurrences[ngram].append((index, position))
            self._coverable_words.append(_count_covered(position for position, _ in rare))
            if not rare:
                self._short_problems[" ".join(texts[index])].append(index)

    def hits(self, text: str) -> list[Hit]:
        """The problems that `text` overlaps: for each benchmark at most one, the one with the largest share."""
        positions: dict[int, set[int]] = defaultdict(set)
        for ngram in set(_ngrams(words(text))):
            for index, position in self._occurrences.get(ngram, ()):
                positions[index].add(position)
        shares = {index: _count_covered(starts) / self._coverable_words[index] for index, starts in positions.items()}
        # A short problem must equal the text or one line of it, because instructions are on separate lines.
        for line in {text, *text.splitlines()}:
            for index in self._short_problems.get(" ".join(words(line)), ()):
                shares[index] = 1.0
        best: dict[str, Hit] = {}
        for index, share in shares.items():
            name, number = self._names[index]
            if share > MIN_COVERED_SHARE and (name not in best or share > best[name].share):
                best[name] = Hit(name, number, share)
        return [best[name] for name in sorted(best)]


def _count_covered(starts: Iterable[int]) -> int:
    """Number of words covered by the n-grams that start at these positions."""
    return len({start + offset for start in starts for offset in range(NGRAM_WORDS)})
