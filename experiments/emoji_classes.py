"""Which emoji are drawn, as what they are labelled, and which count as one.

The classes are Unicode's subgroups, merged to what a person tells apart at a glance. Left out are
emoji on which people would disagree (a cat's face that cries: a face or an animal?) and those that
repeat another one up to a colour, a direction or a digit, since a test image that is all but in the
training set tests memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pictures import fixed_hash

SUBGROUPS = {
    "faces": (
        "face-smiling face-tongue face-sleepy face-affection face-glasses face-neutral-skeptical "
        "face-concerned face-unwell face-hand face-hat face-negative"
    ),
    "people": (
        "person person-gesture person-role person-fantasy person-activity person-sport "
        "person-resting family person-symbol"
    ),
    "hands_body": (
        "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands "
        "hand-prop body-parts"
    ),
    "animals": (
        "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug"
    ),
    "plants": "plant-flower plant-other",
    "food_drink": "food-prepared food-asian food-sweet food-fruit food-vegetable drink",
    "places": "place-building place-religious place-other place-geographic",
    "vehicles": "transport-ground transport-air transport-water",
    "sky_weather": "sky-weather",
    "sports_games_arts": "sport game award-medal arts-crafts musical-instrument",
    "clothing": "clothing",
    "objects": (
        "office writing book-paper mail money computer phone light-video sound music tool "
        "household dishware lock science medical"
    ),
    "signs": (
        "transport-sign warning arrow religion zodiac av-symbol punctuation math other-symbol "
        "alphanum keycap geometric gender currency"
    ),
    "flags": "country-flag subdivision-flag flag",
}
"""The subgroups of each class, in emoji-datasource's words, blanks and ampersands as hyphens."""

MOST = 120
"""Emoji in a class at most, those with the least hashes, so that classes balance better."""

# no instances of their class, or ones on which people would disagree
UNCLEAR = """
skull skull_and_crossbones family people_hugging footprints bust_in_silhouette
busts_in_silhouette speaking_head_in_silhouette fingerprint family_adult_adult_child
family_adult_adult_child_child family_adult_child_child family_adult_child
sleeping_accommodation bath bone selfie pig_nose feet feather wing microbe spider_web empty_nest
nest_with_eggs rosette white_flower ice_cube salt canned_food takeout_box baby_bottle wood rock
bricks barber carousel_horse wedding hotsprings parachute roller_skate manual_wheelchair
motorized_wheelchair station busstop motorway railway_track oil_drum fuelpump wheel
rotating_light traffic_light vertical_traffic_light octagonal_sign construction seat satellite
anchor ring_buoy thermometer closed_umbrella umbrella_on_ground fire droplet hearts spades
mirror_ball running_shirt_with_sash martial_arts_uniform gun ring gem prayer_beads hair_pick
folding_hand_fan shopping_bags email e-mail musical_note notes musical_score no_bell elevator
drop_of_blood dna bubbles petri_dish x-ray boomerang name_badge high_brightness splatter
crossed_flags chess_pawn
"""

# another one again, but for a colour, a direction, a number, or what 32 pixels do not show
REPEATED = """
people_holding_hands mx_claus
woman-kiss-man man-kiss-man woman-kiss-woman woman-heart-man man-heart-man woman-heart-woman
smiley smile slightly_frowning_face hushed point_right point_up point_up_2 right-facing_fist
rightwards_hand leftwards_hand rightwards_pushing_hand raised_back_of_hand service_dog camel
tangerine new_moon waxing_crescent_moon first_quarter_moon waning_gibbous_moon last_quarter_moon
waning_crescent_moon last_quarter_moon_with_face barely_sunny second_place_medal
third_place_medal clubs diamonds green_book blue_book orange_book yen euro pound mailbox_closed
mailbox_with_mail open_file_folder envelope_with_arrow round_pushpin linked_paperclips
camera_with_flash speaker sound low_battery unlock hash keycap_star zero one two four five six
seven eight nine capital_abcd abcd 1234 u6708 u6709 u6307 u5272 u7121 u7981 u7533 u5408 u7a7a
u55b6 u6e80 congratulations a b o2 ng cool free new up vs arrow_upper_left arrow_lower_right
arrow_lower_left arrow_left arrow_up arrow_down leftwards_arrow_with_hook arrow_heading_down
arrows_counterclockwise left_right_arrow end on soon top arrow_backward rewind arrow_up_small
arrow_double_up arrow_double_down black_left_pointing_double_triangle_with_vertical_bar
repeat_one low_brightness aries taurus cancer leo virgo libra scorpius sagittarius capricorn
aquarius wavy_dash heavy_multiplication_x heavy_minus_sign grey_question grey_exclamation
interrobang negative_squared_cross_mark ballot_box_with_check heavy_check_mark six_pointed_star
tm registered male_sign large_orange_circle large_yellow_circle large_green_circle
large_blue_circle large_purple_circle large_brown_circle black_circle white_circle
large_orange_square large_yellow_square large_green_square large_blue_square large_purple_square
large_brown_square black_large_square white_large_square black_medium_square white_medium_square
black_medium_small_square white_medium_small_square black_small_square white_small_square
white_square_button small_orange_diamond small_blue_diamond large_orange_diamond
small_red_triangle_down flag-um flag-bv flag-sj flag-hm flag-mf flag-cp flag-mc flag-ro flag-ea
flag-dg flag-lu flag-ac flag-sh flag-ta flag-ie flag-pl
"""

_PERSON = "1F9D1"
# what a person of one sex or age stands for; artists drew different ones
_SAME = {
    "1F468": _PERSON,
    "1F469": _PERSON,
    "1F474": "1F9D3",
    "1F475": "1F9D3",
    "1F466": "1F9D2",
    "1F467": "1F9D2",
    "1F934": "1FAC5",
    "1F478": "1FAC5",
    "1F936": "1F385",
    "1F57A": "1F483",
    "1F46C": "1F46B",
    "1F46D": "1F46B",
    "1FAC3": "1F930",
    "1FAC4": "1F930",
}
_VARIANTS = {"FE0F", "2640", "2642", "27A1"} | {f"1F9B{n}" for n in "0123"}
_SKINS = {f"1F3F{digit}" for digit in "BCDEF"}


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One thing to draw: `codes` of its variants, the preferred one first, all of one identity."""

    identity: str
    label: str
    codes: tuple[str, ...]


def plain(codes: str) -> str:
    """Code points as the sets write them, in one form: upper case, no presentation selectors."""
    return "-".join(part for part in codes.upper().split("-") if part != "FE0F")


def identity(codes: str) -> str:
    """What variants of skin, sex, hair and direction have in common."""
    parts = [_SAME.get(part, part) for part in codes.upper().split("-")]
    kept = [part for part in parts if part not in _VARIANTS | _SKINS]
    return "-".join(kept).replace("-200D", "")


def classify(datasource: Iterable[dict[str, str]]) -> list[Emoji]:
    """The emoji to draw, out of the entries of emoji-datasource, by class and identity."""
    label_of = {name: label for label, names in SUBGROUPS.items() for name in names.split()}
    left_out = set(f"{UNCLEAR} {REPEATED}".split())
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(datasource, key=lambda entry: int(entry["sort_order"])):
        label = label_of.get(entry["subcategory"].replace(" & ", "-"))
        name = entry["short_name"]
        if label is None or name in left_out:
            continue
        groups.setdefault((label, identity(entry["unified"])), []).append(plain(entry["unified"]))
    emoji = [
        Emoji(identity=key, label=label, codes=tuple(codes))
        for (label, key), codes in groups.items()
    ]
    return [chosen for label in SUBGROUPS for chosen in _fewest(emoji, label)]


def _fewest(emoji: Iterable[Emoji], label: str) -> list[Emoji]:
    members = [one for one in emoji if one.label == label]
    members.sort(key=lambda one: fixed_hash(f"order {one.identity}"))
    return members[:MOST]


def split_of(emoji: Iterable[Emoji]) -> dict[str, str]:
    """The split of each identity: 60, 15 and 25 in a hundred of each class, by a fixed hash."""
    splits: dict[str, str] = {}
    for label in SUBGROUPS:
        members = [one.identity for one in emoji if one.label == label]
        members.sort(key=lambda key: fixed_hash(f"split {key}"))
        for position, key in enumerate(members):
            share = (position + 0.5) / len(members)
            splits[key] = "train" if share < 0.6 else "val" if share < 0.75 else "test"
    return splits
