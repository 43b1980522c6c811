import pytest

from advprop.report import render_report
from advprop.report.images.gallery import galleries, read_picture
from advprop.report.records import read_records


def test_picture_knows_its_size(picture):
    found = read_picture(picture(200, size=12), "clean", "a seven")
    assert (found.width, found.height, found.alt) == (12, 12, "a seven")


@pytest.mark.parametrize(
    "source",
    [
        None,
        "",
        "https://example.org/cat.png",
        "javascript:alert(1)",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/png;base64,AAAA",
        "data:image/png;base64,A",
    ],
)
def test_anything_but_an_embedded_png_is_no_picture(source):
    assert read_picture(source, "clean", "") is None


def test_nothing_rides_on_a_picture(picture):
    assert read_picture(picture(1) + '" onerror="alert(1)', "clean", "") is None
    assert read_picture(picture(1) + "\n", "clean", "") is None


def test_first_gallery_of_each_method_advprop_first(record):
    records = [record(m, seed) for seed in (0, 1) for m in ("vanilla", "advprop")]
    found = galleries(read_records([{"method": "mixed", "seed": 0}, *records]))
    assert [(gallery.method, gallery.seed) for gallery in found] == [
        ("advprop", "0"),
        ("vanilla", "0"),
    ]
    assert found[0].sentence == "8 of 8 correct without attack, 5 under attack"


def test_pictures_beyond_the_limit_are_left_out_by_turns(record):
    records = read_records([record(m) for m in ("vanilla", "advprop", "mixed")])
    (whole, *_) = galleries(records)
    size = sum(len(p.source) for triple in whole.triples for p in triple.pictures)
    counts = [len(g.triples) for g in galleries(records, most_bytes=size)]
    assert sum(counts) in (7, 8, 9)
    assert max(counts) - min(counts) <= 1
    assert [g.method for g in galleries(records, most_bytes=size // 8 + 20)] == ["advprop"]


def test_files_are_named_where_they_are_known(record):
    known = record("advprop")
    known["gallery"] = [{**item, "name": f"0/{i}.jpg"} for i, item in enumerate(known["gallery"])]
    (gallery,) = galleries(read_records([known]))
    assert [triple.image.name for triple in gallery.triples[:2]] == ["0/0.jpg", "0/1.jpg"]
    assert {
        triple.image.name for triple in galleries(read_records([record("mixed")]))[0].triples
    } == {""}


def test_alternative_text_tells_both_readings(record):
    (gallery,) = galleries(read_records([record("advprop")]))
    first = gallery.triples[0]
    assert first.image.clean_right
    assert not first.image.adversarial_right
    assert [picture.alt for picture in first.pictures] == [
        "clean image of class 0, predicted as 0",
        "perturbation of the image of class 0, stretched to full contrast",
        "adversarial image of class 0, predicted as 5",
    ]


def test_a_gallery_without_its_label_is_refused(record):
    known = record("advprop")
    del known["gallery"][1]["label"]
    with pytest.raises(ValueError, match=r"gallery\.1\.label"):
        render_report({"runs": []}, {"records": [known]})


def test_maps_stand_below_their_image(record, picture):
    known = record("advprop")
    titles = ("gradient, clean", "gradient, adversarial")
    maps = [{"title": title, "picture": picture(90)} for title in titles]
    known["gallery"][0]["saliency"] = [*maps, {"title": "gradient, lost", "picture": "none"}]
    first, second, *_ = galleries(read_records([known]))[0].triples
    assert [found.kind for found in first.saliency] == list(titles)
    assert first.saliency[1].alt == "gradient, adversarial, for class 0"
    assert second.saliency == ()
    page = render_report({"runs": []}, {"records": [known]})
    assert page.count('<div class="saliency" style="--columns: 2">') == 1
    assert "Grad-CAM, the locations" in page
    assert "Grad-CAM" not in render_report({"runs": []}, {"records": [record("advprop")]})
