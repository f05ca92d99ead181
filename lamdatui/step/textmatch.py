"""Likeness of texts: near-duplicates, overlap with other texts, ROUGE-L, and text that repeats itself.

Everything compares words in lower case. In scripts that are written without spaces each character counts as a word.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from lamdatui.base.words import words

__all__ = ["degenerate", "grams", "near_duplicates", "overlaps", "rouge_l", "words"]

NEAR = 0.8
"""Jaccard similarity of 5-grams from which two texts are near-duplicates (Lee et al. 2021, arXiv 2107.06499)."""
NEAR_GRAM = 5
OVERLAP_GRAM = 8
"""Words of an n-gram in tests for contamination (PaLM: Chowdhery et al. 2022, arXiv 2204.02311, section 8)."""
PERMUTATIONS = 128

_RUN = re.compile(r"(.)\1{19}", re.DOTALL)


def grams(text: str, size: int) -> set[str]:
    """Distinct n-grams of `size` words; of a shorter text, all its words as one."""
    found = words(text)
    return {" ".join(found[start : start + size]) for start in range(max(1, len(found) - size + 1))}


def near_duplicates(texts: Sequence[str], kinds: Sequence[str] = (), threshold: float = NEAR) -> dict[int, int]:
    """Index of each text that nearly repeats an earlier one that is kept → index of that one.

    With `kinds` (one for each text), texts of different kinds are no duplicates.

    Candidates come from locality-sensitive hashing of MinHash signatures (Broder 1997; datasketch); only those whose
    sets of 5-grams really have a Jaccard similarity of `threshold` count. Texts under 5 words have to be equal.
    """
    from datasketch import MinHash, MinHashLSH

    sets = [grams(text, NEAR_GRAM) for text in texts]
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    repeats: dict[int, int] = {}
    for number, own in enumerate(sets):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([gram.encode() for gram in sorted(own)])
        for other in sorted(key for key in index.query(signature) if isinstance(key, int)):
            same = not kinds or kinds[number] == kinds[other]
            if same and len(own & sets[other]) >= threshold * len(own | sets[other]):
                repeats[number] = other
                break
        else:
            index.insert(number, signature)
    return repeats


def overlaps(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """For each text, the largest share of 8-grams that it has in common with one of `others`, in [0, 1].

    The share is of the shorter of the two (the overlap coefficient), so that a text inside a longer one is found in
    both directions. A text under 8 words is compared as a whole.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    sizes = []
    for number, other in enumerate(dict.fromkeys(others)):
        found = grams(other, OVERLAP_GRAM)
        sizes.append(len(found))
        for gram in found:
            holders[gram].append(number)
    shares = []
    for text in texts:
        own = grams(text, OVERLAP_GRAM)
        common = Counter(number for gram in own for number in holders.get(gram, ()))
        shares.append(max((count / min(len(own), sizes[number]) for number, count in common.items()), default=0.0))
    return shares


def rouge_l(text: str, others: Sequence[Sequence[str]], least: float = 0.0) -> float:
    """Largest ROUGE-L F1 (Lin 2004) of a text with `others` (their `words`); 0 where none reaches `least`.

    The F1 of the longest common subsequence, 2·LCS / (m + n), is rapidfuzz's normalised Indel similarity.
    """
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import extractOne

    best = extractOne(words(text), others, scorer=Indel.normalized_similarity, score_cutoff=least)
    return 0.0 if best is None else float(best[1])


def degenerate(text: str) -> bool:
    """Whether a text is broken: no letters or digits, one character 20 times running, or words that go round in circles.

    In circles: over 30% of the 4-grams of a text of 12 words and more have occurred in it before (after the repetition
    rules of Gopher: Rae et al. 2021, arXiv 2112.11446, appendix A).
    """
    if not any(sign.isalnum() for sign in text) or _RUN.search(text):
        return True
    count = len(words(text)) - 3
    return count >= 9 and len(grams(text, 4)) < 0.7 * count
