"""Which images are trained on: orders and shares that are fixed by a hash, never by a draw."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from advprop.randomness import derive_seed


def stratified_order(labels: Sequence[int], names: Sequence[str]) -> list[int]:
    """Positions of all images in an order whose every beginning has the classes in proportion.

    Within a class the order is that of a hash of the images' `names`. A beginning that is as long
    as there are classes has one image of each.
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
    """The first `count` of `stratified_order` (None: all), so smaller choices are within larger.

    ValueError: `count` is below the number of classes, or above the number of images.
    """
    num_classes, num_images = len(set(labels)), len(labels)
    if count is not None and not num_classes <= count <= num_images:
        raise ValueError(
            f"num_train={count}: must be between {num_classes} (one image of each class) and "
            f"{num_images} (all there are); leave it out to train on all"
        )
    return stratified_order(labels, names)[:count]


def stratified_subset(labels: Sequence[int], count: int) -> list[int]:
    """Positions of `count` images in proportion to the classes, sorted; all if there are no more.

    The same ones each time; choices with an image of each class hold all smaller such. Fewer than
    there are classes are one each of so many classes, spread over all.
    """
    names = [str(position) for position in range(len(labels))]
    order = stratified_order(labels, names)
    num_classes = len(set(labels))
    if count < num_classes:
        return sorted(order[place * num_classes // count] for place in range(count))
    return sorted(order[:count])


def shared_out(names: Sequence[str], shares: Mapping[str, float]) -> dict[str, list[str]]:
    """One class's files shared out: part to its names, in about the proportions `shares`.

    The part of a file depends on its own name alone, so adding files moves no other. The one
    exception: a part that would stay empty gets a file of the largest part, as far as there are
    files (the first parts come first).
    """
    parts: dict[str, list[str]] = {part: [] for part in shares}
    place = {name: derive_seed("share", name) / 2**63 for name in names}
    for name in sorted(names, key=place.__getitem__):
        parts[_part_at(place[name], shares)].append(name)
    needed = list(shares)[: len(names)]
    for part in needed:
        if not parts[part]:
            # a part that is needed keeps its last file
            donor = max(parts, key=lambda other: len(parts[other]) - (other in needed))
            parts[part].append(parts[donor].pop())
    return {part: sorted(chosen) for part, chosen in parts.items()}


def shared_positions(
    labels: Sequence[Hashable], names: Sequence[str], shares: Mapping[str, float], where: str = ""
) -> dict[str, list[int]]:
    """Part to the positions of its images, sorted; each class is shared out by `shared_out`.

    The `names` of images differ. ValueError: too few images (`where` says in which folder), so that
    a part has none.
    """
    position_of = {name: position for position, name in enumerate(names)}
    members: dict[Hashable, list[str]] = {}
    for label, name in zip(labels, names, strict=True):
        members.setdefault(label, []).append(name)
    parts: dict[str, list[int]] = {part: [] for part in shares}
    for own in members.values():
        for part, chosen in shared_out(own, shares).items():
            parts[part] += [position_of[name] for name in chosen]
    if empty := [part for part, positions in parts.items() if not positions]:
        raise ValueError(
            f"too few images{where} to split: none is left for {' and '.join(empty)}; a class with "
            f"at least {len(shares)} images is needed, the largest has "
            f"{max(map(len, members.values()), default=0)}"
        )
    return {part: sorted(positions) for part, positions in parts.items()}


def _part_at(place: float, shares: Mapping[str, float]) -> str:
    """The part in which `place`, a fraction of the sum of all shares, lies."""
    end, total = 0.0, sum(shares.values())
    for part, share in shares.items():
        end += share / total
        if place < end:
            return part
    return part  # rounding may leave the last end just below 1
