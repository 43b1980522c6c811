"""Select images, and divide them among splits, by a hash of their names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from advprop.randomness import derive_seed


def stratified_order(labels: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return all images' positions, ordered so that each prefix has the classes in proportion.

    Within a class, images are ordered by a hash of their `names`. The first positions, as many as
    there are classes, are one image of each class.
    """
    members: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    ranked: list[tuple[float, int, int]] = []
    for label, positions in members.items():
        positions.sort(key=lambda position: derive_seed("selection", names[position]))
        ranked += [(rank / len(positions), label, p) for rank, p in enumerate(positions)]
    return [position for _, _, position in sorted(ranked)]


def first_stratified(labels: Sequence[int], names: Sequence[str], count: int | None) -> list[int]:
    """Return the first `count` of `stratified_order` (None: all); larger subsets contain smaller.

    Raises ValueError if `count` is below the number of classes or above the number of images.
    """
    num_classes, num_images = len(set(labels)), len(labels)
    if count is not None and not num_classes <= count <= num_images:
        raise ValueError(
            f"num_train={count}: must be between {num_classes} (one image of each class) and "
            f"{num_images} (all there are); leave it out to train on all"
        )
    return stratified_order(labels, names)[:count]


def stratified_subset(labels: Sequence[int], count: int) -> list[int]:
    """Return the sorted positions of `count` images, the classes in proportion; at most all images.

    The result is deterministic. If `count` is at least the number of classes, larger subsets
    contain smaller ones; else it is one image each of `count` classes, spread over all classes.
    """
    names = [str(position) for position in range(len(labels))]
    order = stratified_order(labels, names)
    num_classes = len(set(labels))
    if count < num_classes:
        return sorted(order[place * num_classes // count] for place in range(count))
    return sorted(order[:count])


def shared_positions(
    labels: Sequence[Hashable], names: Sequence[str], shares: Mapping[str, float], where: str = ""
) -> dict[str, list[int]]:
    """Return the sorted positions of each part's images, in about the ratio of `shares` by class.

    An image's part depends on its own name alone, so adding images does not move others; only a
    part of a class that would stay empty takes an image from the largest one. If a class has fewer
    images than there are parts, the first parts get one each. Raises ValueError if a part of the
    whole stays empty; `where` is added to the message, to name the folder.
    """
    members: dict[Hashable, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    parts: dict[str, list[int]] = {part: [] for part in shares}
    for positions in members.values():
        for part, chosen in _shared_out(positions, names, shares).items():
            parts[part] += chosen
    if empty := [part for part, chosen in parts.items() if not chosen]:
        raise ValueError(
            f"too few images{where} to split: none is left for {' and '.join(empty)}; a class with "
            f"at least {len(shares)} images is needed, the largest has "
            f"{max(map(len, members.values()), default=0)}"
        )
    return {part: sorted(chosen) for part, chosen in parts.items()}


def _shared_out(
    positions: Sequence[int], names: Sequence[str], shares: Mapping[str, float]
) -> dict[str, list[int]]:
    """Return the `positions` of one class divided into parts."""
    parts: dict[str, list[int]] = {part: [] for part in shares}
    place = {position: derive_seed("share", names[position]) / 2**63 for position in positions}
    for position in sorted(positions, key=place.__getitem__):
        parts[_part_at(place[position], shares)].append(position)
    needed = list(shares)[: len(positions)]
    for part in needed:
        if not parts[part]:
            # a part that must not be empty keeps its last image
            donor = max(parts, key=lambda other: len(parts[other]) - (other in needed))
            parts[part].append(parts[donor].pop())
    return parts


def _part_at(place: float, shares: Mapping[str, float]) -> str:
    """Return the part in which `place`, a fraction of the sum of all shares, lies."""
    end, total = 0.0, sum(shares.values())
    for part, share in shares.items():
        end += share / total
        if place < end:
            return part
    return part  # rounding may leave the last end just below 1
