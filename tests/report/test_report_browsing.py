import random

import pytest

from advprop.report.images.gallery import browse
from advprop.report.records import read_records


def records(predictions, methods=("vanilla", "advprop"), seeds=(0, 1), **changes):
    return read_records(
        [
            {"method": m, "seed": seed, "predictions": predictions(m, seed, **changes)}
            for m in methods
            for seed in seeds
        ]
    )


def test_pictures_stand_once_whatever_the_number_of_runs(predictions):
    found = browse(records(predictions))
    assert len(found["images"]) == 24
    assert len(found["sets"]) == 1
    assert [method["name"] for method in found["methods"]] == ["vanilla", "advprop"]
    run = found["methods"][0]["runs"][1]
    assert run["seed"] == "1"
    wrong = [
        at
        for at, answer in zip(found["sets"][0], run["clean"], strict=True)
        if answer != found["images"][at][1]
    ]
    assert wrong == [4, 9, 14]


def test_runs_that_saw_other_images_have_sets_of_their_own(predictions):
    first, second = records(predictions, seeds=(0,))
    other = second.model_copy(
        update={
            "predictions": second.predictions.model_copy(
                update={
                    "images": tuple(
                        image.model_copy(update={"id": image.id[::-1]})
                        for image in second.predictions.images
                    )
                }
            )
        }
    )
    found = browse([first, other])
    assert len(found["sets"]) == 2
    assert len(found["images"]) == 24 + 24 - 1  # the first image's name reads the same both ways


def test_pictures_beyond_the_limit_are_left_out_evenly(predictions, picture):
    chance = random.Random(0)
    parts = records(predictions, picture=lambda i: picture(chance.randrange(256), size=10))
    size = sum(len(image.picture) for image in parts[0].predictions.images)
    found = browse(parts, most_bytes=size // 2)
    assert 8 <= len(found["images"]) < 24
    assert found["left_out"] == 24 - len(found["images"])
    assert sum(len(source) for source, *_ in found["images"]) <= 0.55 * size
    assert len(found["sets"][0]) == len(found["methods"][0]["runs"][0]["clean"])


def test_files_are_named_where_they_are_known(predictions):
    parts = records(predictions)
    assert {name for *_, name in browse(parts)["images"]} == {""}
    answers = parts[0].predictions
    named = tuple(i.model_copy(update={"name": f"a/{i.id}.jpg"}) for i in answers.images)
    found = browse(
        [parts[0].model_copy(update={"predictions": answers.model_copy(update={"images": named})})]
    )
    assert [name for *_, name in found["images"]] == [image.name for image in named]


def test_what_is_no_embedded_picture_is_left_out(predictions):
    parts = records(predictions, picture=lambda i: "https://example.org/cat.png")
    assert browse(parts)["images"] == []
    assert browse(read_records([{"method": "vanilla", "seed": 0}])) is None


def test_answers_of_another_length_are_refused():
    image = {"id": "a", "label": "0"}
    with pytest.raises(ValueError, match=r"predictions: .*differ in length"):
        read_records([{"method": "v", "predictions": {"images": [image], "clean": []}}])
