"""Pages of a long list: the rows of each, and links to the others that keep the filters."""

from cloudseg_ui.paging import Paging


def test_a_page_names_its_rows() -> None:
    second = Paging(2, 30)
    assert (second.offset, second.first, second.last, second.count, second.pages) == (24, 25, 30, 6, 2)
    beyond = Paging(9, 30)
    assert (beyond.first, beyond.count) == (0, 0)
    empty = Paging(1, 0)
    assert (empty.first, empty.count, empty.pages) == (0, 0, 1)
    assert Paging(1, 48).pages == 2


def test_another_page_keeps_the_filters() -> None:
    paging = Paging(1, 30, filters={"recipe": "a & b", "verdict": ""})
    assert paging.active == {"recipe": "a & b"}
    assert paging.query(2) == "?recipe=a+%26+b&page=2"
