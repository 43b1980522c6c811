"""Which icons are drawn, as what they are labelled, and whose design they are.

A class is a noun with its synonyms, and an icon belongs to it if its name begins with one. The
classes are those of which at least 200 distinct icons are found, without words that show several
things (a pin is a needle or a place, a watch shows the time or means "later", an apple is a firm).
"""

from __future__ import annotations

CLASSES = {
    words.split()[0]: tuple(words.split())
    for words in """
airplane plane aeroplane
battery
bell
bicycle bike
bookmark
book
briefcase
bug
building
bus
calculator
calendar
camera
car
cart
chat comment message
clipboard
clock
cloud
compass
crown
database
dice
envelope mail email
eye
fire flame
flag
folder
gear cog
gift
globe earth world
headphones headphone
heart
home house
hourglass
image photo picture
key
laptop
leaf
lightbulb bulb
lock padlock
map
microphone mic
moon
mouse
music
pen pencil
phone telephone mobile smartphone
printer
receipt
rocket
monitor desktop tv television
server
shield
star
sun
tag
thermometer
ticket
trash
tree
trophy
truck
umbrella
user person
wallet
wifi
""".strip().splitlines()
}
"""The words that name each class, the first of them its label."""

MOST = 80
"""Icons of one family in a class at most, those with the least hashes."""

SHOWS_MORE = {"off", "slash", "pointer", "cursor", "marker", "pin", "location", "structure", "view"}
"""Words of a name by which an icon shows something else, or the thing struck out."""

CATEGORIES_LEFT_OUT = {"Logos", "Programming", "Emoji"}
SETS_LEFT_OUT = {"fluent-emoji"}
"""Of no category, and emoji: they are another set of images here."""

FAMILIES = {
    "Material": (
        "Google",
        "Material Design Authors",
        "MDI Community",
        "Pictogrammers",
        "Vjacheslav Trushkin",
    ),
    "Feather": ("Cole Bemis", "Lucide Contributors", "Megumi Hano", "zkreations"),
    "Solar": ("480 Design", "REICON"),
    "Font Awesome": ("Dave Gandy", "Icons8"),
    "Heroicons": ("Refactoring UI Inc", "Steve Schoger"),
    "Ionicons": ("Ben Sperry", "Family"),
    "Map icons": ("Mapbox", "Bryan Housel", "Quincy Morgan", "Scott de Jonge"),
}
"""Authors, as sets name them, whose icons are drawn after one another's; each other author is a
family alone. Half of REICON's icons are Solar's; a fifth of Feather's are in each set of its
family."""

_DRAWN = """
outline outlined fill filled solid bold thin light duotone line linear broken sharp round rounded
twotone regular color alt 12 16 20 24 28 32 48
"""
STYLES = frozenset(_DRAWN.split())
"""Words of a name that say how the thing is drawn, not what."""

_LABELS = {word: label for label, words in CLASSES.items() for word in words}
_FAMILIES = {author: family for family, authors in FAMILIES.items() for author in authors}


def label_of(name: str) -> str | None:
    """The class of the icon called `name`; None if it has none, or shows a second thing."""
    first, *others = name.split("-")
    label = _LABELS.get(first)
    if label is None or SHOWS_MORE.intersection(others):
        return None
    return label if all(_LABELS.get(word, label) == label for word in others) else None


def family_of(author: str) -> str:
    """The family of sets whose `author` is named."""
    return _FAMILIES.get(author, author)


def motif_of(name: str) -> str:
    """The name without its words for styles: an icon in all its styles is one motif."""
    return "-".join(word for word in name.split("-") if word not in STYLES)
