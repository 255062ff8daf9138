"""How a prompt looks, whatever it says: written in haste, in capitals, as LaTeX, as Markdown, as code among prose.

Told by a few patterns each, so that counts are about right rather than exact: a typo that is in no list is not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

LEAST_WORDS = 4  # of one or two words nobody can say that their capitals or full stops are missing
LEAST_CASED = 12  # letters

# What people leave out when they type fast, and the slips that are seen most.
_SLIPS = (
    "dont doesnt didnt cant couldnt wont wouldnt isnt arent wasnt ive whats thats theres hows youre theyre wats wut pls plz "
    "thx cuz coz bcoz gonna wanna kinda dunno idk tho thru alot teh taht thier wich whcih becuase becasue becaus recieve "
    "recieved seperate seperately definately definatly wierd untill tommorow tomorow freind freinds beleive belive betwen "
    "difrence diffrence diffrent differnt bigest somthing remeber alredy agian insted corect comand happend hapens hapened "
    "libary enviroment goverment calcualte caculate equasion fucntion funtion retrun pyhton exmaple problme answear probablity "
    "serch rigt wory workng soluton allways occured neccessary writting begining grammer knowlege explane circel"
)
_HASTY = frozenset(_SLIPS.split())
_WORD = re.compile(r"[a-z]+")
_LATEX = re.compile(
    r"\\(?:frac|sqrt|int|sum|prod|lim|begin|math\w+|text|cdot|times|leq?|geq?|neq?|in|to|infty|alpha|beta|gamma|delta|epsilon"
    r"|theta|lambda|mu|pi|sigma|phi|omega|partial|nabla|left|right|binom|pmod|sin|cos|log|ln)(?![a-z])"
    r"|\$[^$\n]*[\\^_][^$\n]*\$"
)
_MARKDOWN = re.compile(
    r"^(?:#{1,6} \S|[-*] \S.*\n[-*] \S|> \S|\|.*\|\s*$|```)|\*\*[^*\n]+\*\*|`[^`\n]+`|\[[^\]\n]+\]\(http", re.MULTILINE
)
_CODE = re.compile(
    r"```|[;{}]\s*$|[A-Za-z_]\w{2,}\([^()\n]*\)|=>|[=!]=|&&|\|\||::|</?[a-z]+[^>\n]*>"
    r"|^\s*(?:def|class|import|from|const|let|var|func|fn|public|SELECT|#include)\b[^.?!]*$",
    re.MULTILINE,
)
_PROSE = re.compile(r"(?:[^\W\d_]+[,;:]? ){4}[^\W\d_]+")
_PUNCTUATION = re.compile(r"[.,;:!?'\"“”‘’…。、，？！；：؟،।။]")


def _mostly_cased(text: str) -> bool:
    """Whether most letters are of a script that has capitals, and there are enough of them."""
    letters = [c for c in text if c.isalpha()]
    cased = sum(c.lower() != c.upper() for c in letters)
    return cased >= LEAST_CASED and 2 * cased > len(letters)


def _some_words(text: str) -> bool:
    return len(text.split()) >= LEAST_WORDS


SURFACES: Mapping[str, Callable[[str], bool]] = {
    "hasty spelling": lambda text: not _HASTY.isdisjoint(_WORD.findall(text.lower())),
    "lower case": lambda text: text.islower() and _some_words(text) and _mostly_cased(text),
    "capitals": lambda text: text.isupper() and _mostly_cased(text),
    "no punctuation": lambda text: _some_words(text) and _PUNCTUATION.search(text) is None,
    "LaTeX": lambda text: _LATEX.search(text) is not None,
    "Markdown": lambda text: _MARKDOWN.search(text) is not None,
    "code and prose": lambda text: _CODE.search(text) is not None and _PROSE.search(text) is not None,
}


def surfaces_of(text: str) -> list[str]:
    """The names in SURFACES of all that a text looks like; most texts look like nothing of it."""
    return [name for name, looks in SURFACES.items() if looks(text)]
