"""Whether foreign words ask for what must not be typed into a foreign form, however they are spelt.

Knows: the words for secrets, and how a word looks to a person: letters of other alphabets that look like
ours, letters in frames, digits in place of letters, blanks and invisible characters between letters. Does not
know: what follows (``mcp.questions`` declines, ``promise_ops`` refuses), or who asks.

A look-alike is asked for as readily as the word itself (attacks.md C11), so what counts is what the eye
reads. Wrong in doubt: a question that is declined for nothing costs a server one answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

__all__ = ["MAX_READ", "names_secret"]

MAX_READ = 65_536
"""Characters that are read of all texts of one question; one that is longer asks for nothing honest."""

_SECRET = re.compile(
    r"pass[\W_]*(word|wort|phrase|code|key)|secret|credential|api[\W_]*key|private[\W_]*key|access[\W_]*key"
    r"|token|\bpin\b|\botp\b|one[\W_]*time|2fa|\bmfa\b|recovery|seed[\W_]*phrase|mnemonic|login|sign[\W_]*in"
    r"|social[\W_]*security|\bssn\b|card[\W_]*number|\bcvv\b|\bcvc\b|\biban\b|bearer|\bpwd\b|\bpasswd\b"
    r"|kennwort|geheimzahl|mot[\W_]+de[\W_]+passe|contrasen[iy]?a|wachtwoord|\bsenha\b|\bhaslo\b|losenord"
    r"|salasana|\bsifre\b|(verification|security|confirmation|sms|auth\w*)[\W_]*code|\bp?tan\b|\bpuk\b"
    r"|ssh[\W_]*key|\bwallet\b|passkey",
)
"""Of a text as :func:`_skeleton` reads it: small letters without marks."""
_ELSEWHERE = re.compile("пароль|пин-?код|密码|密碼|口令|暗証|パスワード|비밀번호|סיסמה|كلمة (?:ال)?مرور")
"""In alphabets that are not ours, read as they stand."""
_SQUEEZED = re.compile(
    r"password|passwort|passphrase|passcode|credential|apikey|privatekey|accesskey|seedphrase|mnemonic"
    r"|socialsecurity|cardnumber|kennwort"
)
"""Long enough to mean themselves where blanks and signs between all letters are left out."""
_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
_LETTERS = re.compile(r"(?<![a-z0-9])(?:[a-z0-9][\W_]{1,3}){2,}[a-z0-9](?![a-z0-9])")
"""Letters that stand apart: ``P I N``."""
_NAMED = re.compile(r"(?:LATIN|INDICATOR SYMBOL|SQUARED).*\bLETTER (?:[A-Z]+ )*?([A-Z])(?: WITH .*)?$")
"""``LATIN LETTER SMALL CAPITAL P``, ``LATIN SMALL LETTER L WITH STROKE``, and letters in frames."""

_LOOKS = {
    "a": "аαɑАΑᎪ",
    "b": "вьβВЬΒᏴ",
    "c": "сϲСᏟ",
    "d": "ԁժᎠ",
    "e": "еєεЕΕᎬҽ",
    "g": "ցԌᏀ",
    "h": "һհнНΗᎻ",
    "i": "іιІΙᎥӏ",
    "j": "јϳЈᎫ",
    "k": "кκКΚᏦ",
    "l": "ⅼᏞ",
    "m": "мМΜᎷ",
    "n": "пηոΝ",
    "o": "оοσօОΟՕ",
    "p": "рρРΡᏢ",
    "q": "ԛզ",
    "r": "гᎡ",
    "s": "ѕЅՏᏚ",
    "t": "тτТΤᎢ",
    "u": "υսՍц",
    "v": "ѵνᏙ",
    "w": "ԝωшᏔ",
    "x": "хχХΧ",
    "y": "уγУΥү",
    "z": "ΖᏃ",
}
_MAP = str.maketrans({theirs: ours for ours, row in _LOOKS.items() for theirs in row})
_DIGITS = str.maketrans("013457@$!|€£", "oieastasilel")
_ONES = str.maketrans("1", "l")


def names_secret(texts: Iterable[str]) -> bool:
    """Whether one of the texts asks for a secret, or they are more than is read."""
    left = MAX_READ
    for text in texts:
        # One character may be eighteen once it is taken apart: what is read is what that makes.
        left -= len(text) if len(text) > left else len(unicodedata.normalize("NFKD", text))
        if left < 0 or _names(text):
            return True
    return False


def _names(text: str) -> bool:
    plain = unicodedata.normalize("NFKC", text)
    if _ELSEWHERE.search(plain.casefold()):
        return True
    return any(_SECRET.search(read) or _SQUEEZED.search(_bare(read)) for read in _readings(plain))


def _readings(text: str) -> Iterator[str]:
    """The text as eyes may take it."""
    for words in dict.fromkeys((text, _SPLIT.sub(" ", text))):
        looks = _skeleton(words)
        for spelt in dict.fromkeys(
            (looks, looks.translate(_DIGITS), looks.translate(_ONES).translate(_DIGITS))
        ):
            yield spelt
            yield _LETTERS.sub(lambda found: _bare(found[0]), spelt)


def _bare(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def _skeleton(text: str) -> str:
    """Small Latin letters wherever one is seen; what is not seen is gone."""
    if text.isascii():
        return text.lower()
    return "".join(map(_seen, unicodedata.normalize("NFKD", text)))


@lru_cache(maxsize=4_096)
def _seen(char: str) -> str:
    if char.isascii():
        return char.lower()
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc") or char in "\u115f\u1160\u3164\uffa0\u2800":
        return ""
    mapped = char.translate(_MAP)
    if mapped != char:
        return mapped
    named = _NAMED.search(unicodedata.name(char, ""))
    if named is not None:
        return named[1].lower()
    return char.casefold()
