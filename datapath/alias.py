"""Weighted choice at the price of an even one: the alias method. Pure.

Of n places one is drawn evenly, and a second draw decides between the place's own backend and one
other. Whatever the weights are, a choice costs two draws and n places are enough.
(Walker 1977; the table is built as in Vose 1991.)
"""

from collections.abc import Sequence

DRAWS = 1 << 16  # how finely a place is divided: `other_share` has 16 bits


def build(weights: Sequence[int]) -> list[tuple[int, int]]:
    """For each place: which other place shares it, and how many of ``DRAWS`` the other gets.

    Weights are above 0. A place that nobody shares is (0, 0).
    """
    total, count = sum(weights), len(weights)
    table = [(0, 0)] * count
    left = [weight * count for weight in weights]  # ``total`` fills a place
    small = [n for n in range(count) if left[n] < total]
    large = [n for n in range(count) if left[n] > total]
    while small and large:
        poor, rich = small.pop(), large[-1]
        missing = total - left[poor]
        # A backend keeps one draw of its own place, however small its weight is.
        table[poor] = (rich, min(DRAWS - 1, round(missing * DRAWS / total)))
        left[rich] -= missing
        if left[rich] <= total:
            large.pop()
            if left[rich] < total:
                small.append(rich)
    return table
