"""Who asks in German, French or Spanish gets the model that the same ask in English would."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.routing.lexical import WORD_GROUPS, read
from app.routing.tongues import LEXICON, folded, in_english


def test_asks_in_other_languages_are_read_with_english_words() -> None:
    """Nearly all there is to learn from is English; a proof is one in any language."""
    for ask in ("Beweise es.", "Démontre-le.", "¡Demuestra!", "Prove it."):
        assert read(ask)[1][0] == b"prove", ask


def test_capitals_accents_and_turned_marks_do_not_hide_a_word() -> None:
    for ask in ("Übersetze", "übersetze", "UBERSETZE", "¿Traduce?", "« Traduis »"):
        assert in_english(read(ask)[1]) == [b"translate"], ask


def test_what_the_lexicon_does_not_know_stays() -> None:
    """Also names and code, and all of English: nothing is lost for those who ask in it."""
    for ask in ("The cat sat on Grafana.", "Die, chat and son are words of English, too."):
        assert read(ask)[1] == [word.strip(".,").lower().encode() for word in ask.split()]
    assert folded("∑ x² ≤ π × 2 ÷ 3 — 漢字") == "∑ x² ≤ π × 2 ÷ 3 — 漢字"


def test_every_form_is_read_as_one_word_only() -> None:
    """A form that stands twice, or is a word that English texts are counted by, would change what an ask means."""
    forms = Counter(form for each in LEXICON.values() for form in each.split())
    assert [form for form, count in forms.items() if count > 1] == []
    assert not forms.keys() & LEXICON.keys()
    assert not forms.keys() & {word for group in WORD_GROUPS.values() for word in group.split()}
    assert all(form.isascii() and form.isalpha() and form.islower() for form in forms)


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    """A stranger's text must not stop the classifier, lone surrogates and all."""
    data, words, _ = read(text)
    assert len(words) <= len(data)
