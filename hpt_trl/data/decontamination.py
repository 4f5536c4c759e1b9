"""Does a training prompt repeat a benchmark's problem? n-gram overlap, problem by problem.

A prompt overlaps a problem if the 8-grams they share cover more than half of the problem's words: the rule of Tulu 3
(arXiv 2411.15124; `decontamination` in allenai/open-instruct). For GPT-3 (13 words) and open-r1 (8 words) one shared
n-gram is enough, which refuses prompts for a phrase like "where m and n are relatively prime positive integers". Such
phrases still fill half of some problems, so n-grams that stand in ten or more problems do not count, much as GPT-3
leaves out its frequent ones (arXiv 2005.14165, appendix C). A problem with no n-gram of its own must be there whole.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NGRAM_WORDS = 8
COVERED_SHARE = 0.5
COMMON_IN_PROBLEMS = 10

# How a formula is set, not what it says.
_STYLE = re.compile(r"\\(?:left|right|displaystyle|text(?:bf)?|math(?:rm|bf)|q?quad)(?![a-z])|(?<=\\)[dt](?=frac)")
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Letters and digits in lower case: punctuation, line breaks and how formulas are set make no difference."""
    return _WORD.findall(_STYLE.sub("", unicodedata.normalize("NFKC", text).lower()))


def _ngrams(text_words: Sequence[str]) -> list[str]:
    return [" ".join(text_words[i : i + NGRAM_WORDS]) for i in range(len(text_words) - NGRAM_WORDS + 1)]


@dataclass(frozen=True)
class Hit:
    """A problem that a prompt overlaps: its benchmark, its number there from 1, and the share of its words covered."""

    benchmark: str
    number: int
    share: float


class Overlap:
    """
    Finds the benchmark problems a prompt overlaps.

    Args:
        benchmarks: name -> texts of its problems.
    """

    def __init__(self, benchmarks: Mapping[str, Iterable[str]]) -> None:
        listed = [(name, *entry) for name, problems in benchmarks.items() for entry in enumerate(problems, 1)]
        self._names = [(name, number) for name, number, _ in listed]
        texts = [words(problem) for _, _, problem in listed]
        ngrams_of = [_ngrams(text) for text in texts]
        found_in = Counter(ngram for ngrams in ngrams_of for ngram in set(ngrams))
        self._where: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._covered: list[int] = []
        self._whole: dict[str, list[int]] = defaultdict(list)
        for index, ngrams in enumerate(ngrams_of):
            own = [(place, ngram) for place, ngram in enumerate(ngrams) if found_in[ngram] < COMMON_IN_PROBLEMS]
            for place, ngram in own:
                self._where[ngram].append((index, place))
            self._covered.append(_count_covered(place for place, _ in own))
            if not own:
                self._whole[" ".join(texts[index])].append(index)

    def hits(self, text: str) -> list[Hit]:
        """The problems that `text` overlaps, at most one of each benchmark, the best covered."""
        places: dict[int, set[int]] = defaultdict(set)
        for ngram in set(_ngrams(words(text))):
            for index, place in self._where.get(ngram, ()):
                places[index].add(place)
        shares = {index: _count_covered(found) / self._covered[index] for index, found in places.items()}
        # A short problem is there whole if it is the text, or a line of it: instructions stand on lines of their own.
        for line in {text, *text.splitlines()}:
            for index in self._whole.get(" ".join(words(line)), ()):
                shares[index] = 1.0
        best: dict[str, Hit] = {}
        for index, share in shares.items():
            name, number = self._names[index]
            if share > COVERED_SHARE and (name not in best or share > best[name].share):
                best[name] = Hit(name, number, share)
        return [best[name] for name in sorted(best)]


def _count_covered(places: Iterable[int]) -> int:
    """How many words the n-grams that begin at these places cover together."""
    return len({place + word for place in places for word in range(NGRAM_WORDS)})
