from __future__ import annotations

from collections import Counter

import pytest

from advprop.data.listing.selection import first_stratified, shared_positions, stratified_order

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def shared_out(names: list[str]) -> dict[str, list[str]]:
    """Divide one class with these names, beside another class of 40 images."""
    others = [f"other/{number}.png" for number in range(40)]
    labels = [0] * len(names) + [1] * len(others)
    parts = shared_positions(labels, names + others, SHARES)
    assert sorted(position for part in parts.values() for position in part) == [*range(len(labels))]
    return {part: [names[p] for p in found if labels[p] == 0] for part, found in parts.items()}


@pytest.mark.parametrize(
    "labels",
    [
        [0],
        [4, 2, 0],
        [0] * 40,
        [0] * 79 + [1],
        [1] + [0] * 79,
        [0, 1] * 25,
        [0] * 40 + [1] * 20 + [2] * 10 + [3] * 5 + [4],
        [0, 0, 3] * 13 + [1, 2, 4],
    ],
    ids=lambda labels: f"{len(labels)} images {len(set(labels))} classes",
)
def test_every_beginning_has_the_classes_in_proportion(labels):
    order = stratified_order(labels, [str(position) for position in range(len(labels))])
    assert sorted(order) == list(range(len(labels)))
    sizes = Counter(labels)
    assert len({labels[position] for position in order[: len(sizes)]}) == len(sizes)
    for length in range(len(sizes), len(labels) + 1):
        counts = Counter(labels[position] for position in order[:length])
        for label, size in sizes.items():
            # one image each comes first, whatever the class's share: at most all others are ahead
            assert abs(counts[label] - length * size / len(labels)) <= len(sizes)


def test_the_order_within_a_class_is_that_of_names_not_positions():
    names = [f"image{number}" for number in range(30)]
    labels = [0] * 30
    chosen = {names[i] for i in first_stratified(labels, names, 10)}
    backwards = names[::-1]
    assert {backwards[i] for i in first_stratified(labels, backwards, 10)} == chosen
    assert chosen != set(names[:10])


def test_counts_out_of_bounds_are_refused():
    labels, names = [0, 0, 1, 2], list("abcd")
    for count in (2, 0, -1, 5):
        with pytest.raises(ValueError, match=rf"num_train={count}: must be between 3 .* and 4"):
            first_stratified(labels, names, count)
    assert len(first_stratified(labels, names, 3)) == 3
    assert len(first_stratified(labels, names, None)) == 4


def test_shares_are_about_those_asked_for():
    parts = shared_out([f"cat/{number}.png" for number in range(4000)])
    # four standard deviations of a binomial share of 4,000
    assert abs(len(parts["train"]) - 2800) < 4 * (4000 * 0.7 * 0.3) ** 0.5
    assert abs(len(parts["test"]) - 600) < 4 * (4000 * 0.15 * 0.85) ** 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 40])
def test_no_file_is_lost_doubled_or_left_without_a_split(count):
    for folder in range(25):
        names = [f"{folder}/{number}.png" for number in range(count)]
        parts = shared_out(names)
        assert sorted(name for part in parts.values() for name in part) == sorted(names)
        assert all(parts[part] for part in list(SHARES)[:count])


@pytest.mark.parametrize("folder", ["cat", "0", "änd"])
def test_adding_files_moves_no_other(folder):
    names = [f"{folder}/{number}.png" for number in range(120)]
    before, after = shared_out(names[:60]), shared_out(names)
    for part, members in before.items():
        assert set(members) <= set(after[part])
