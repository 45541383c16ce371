"""The library's pages: each room has one with all its modules and names, and no reference of a graded question."""

from __future__ import annotations

import pytest
import yaml

from tools import ROOT, api, rooms
from tools.gates.html import toc_entries


def test_every_room_has_a_page_in_the_contents_in_order():
    entries = list(toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))))
    assert [name for name in entries if name.startswith("book/api/")] == [f"book/api/{r.name}" for r in rooms.ROOMS]
    for room in rooms.ROOMS:
        page = (ROOT / "book" / "api" / f"{room.name}.md").read_text("utf-8")
        assert page == f"# `xai_course.{room.name}`\n\n```{{api}} {room.name}\n```\n"


@pytest.mark.parametrize("room", rooms.ROOMS, ids=lambda room: room.name)
def test_a_room_s_page_has_its_public_modules_and_names(room):
    text = api.markdown(room.name)
    assert text.startswith(room.what)
    for path in room.files():
        name = ".".join(("xai_course", *path.relative_to(rooms.PACKAGE).with_suffix("").parts))
        hidden = "_" in (part[0] for part in name.split("."))
        assert (f".. automodule:: {name}\n" in text) != hidden, name
    for name in getattr(room.module, "__all__", ()):
        assert f"`{name}`" in text or f"`{name} <xai_course." in text, name
    assert "_reference" not in text and "check_class_map <" not in text


def test_the_index_leads_to_every_room_and_draws_one_line_under_the_course():
    text = api.markdown()
    assert [text.count(f'<a href="api/{room.name}.html">') for room in rooms.ROOMS] == [1] * len(rooms.ROOMS)
    course, library = text.split('<p class="house-library">')
    for room in rooms.ROOMS:
        assert f"<b>{room.name}</b>" in (library if room.library else course)
    with pytest.raises(ValueError, match="rooms are data, .*got 'attic'"):
        api.markdown("attic")


def test_first_sentences_become_markdown():
    def documented():
        r"""Mass :math:`m_c` of ``maps``, see `grad_cam` and :func:`~a.b`, e.g. one. Not this.

        Nor this.
        """

    class Plain:
        pass

    assert api.first_sentence(documented) == "Mass $m_c$ of `maps`, see `grad_cam` and `a.b`, e.g. one."
    assert api.first_sentence(Plain) == "" and api.link("Plain", Plain) == "`Plain`" and api.first_sentence(3) == ""
