"""Languages: the words by which a short answer says yes or no, denies, or announces itself, in many languages.

Everything here is a table and what finds its entries in folded text. It refuses to translate: a word that means yes in
one language and no in another means nothing here, and a word of another script never stands for its transliteration.
"""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from langchain_rlfocal.answers import values

__all__ = ["ANSWER_MARKS", "NEGATIONS", "NEGATION_PARTS", "count_negations", "yes_no"]

_split = str.split

# Yes and no, by language. The first word of each is from Unicode's Common Locale Data Repository, release 48.2, posix
# messages (yesstr, nostr), under the Unicode License v3 (https://www.unicode.org/license.txt); others are common usage.
_YES_AND_NO: Final = {
    "af": ("ja", "nee"),
    "am": ("አዎን አዎ", "አይ አይደለም"),
    "ar": ("نعم أجل بلى", "لا كلا"),
    "as": ("হয়", "নহয়"),
    "ast": ("sí", "non"),
    "az": ("hə bəli", "yox xeyr"),
    "be": ("так", "не"),
    "bg": ("да", "не"),
    "bn": ("হ্যাঁ", "না"),
    "bs": ("da", "ne"),
    "ca": ("sí", "no"),
    "cs": ("ano", "ne"),
    "da": ("ja", "nej"),
    "de": ("ja jawohl", "nein"),
    "el": ("ναι", "όχι"),
    "en": ("yes yeah yep yup", "no nope nah"),
    "eo": ("jes", "ne"),
    "es": ("sí", "no"),
    "et": ("jah", "ei"),
    "eu": ("bai", "ez"),
    "fa": ("بله آری آره", "نه خیر"),
    "fi": ("kyllä joo juu", "ei"),
    "fr": ("oui ouais", "non"),
    "gl": ("si", "non"),
    "gu": ("હા", "નહીં ના"),
    "he": ("כן", "לא"),
    "hi": ("हाँ हां", "नहीं"),
    "hr": ("da", "ne"),
    "hu": ("igen", "nem"),
    "hy": ("այո", "ոչ"),
    "id": ("ya iya", "tidak bukan"),
    "is": ("já", "nei"),
    "it": ("sì", "no"),
    "ja": ("はい ええ うん そうです", "いいえ いや ううん 違います"),
    "ka": ("კი დიახ", "არა"),
    "kk": ("иә", "жоқ"),
    "km": ("បាទ ចាស", "ទេ"),
    "kn": ("ಹೌದು", "ಇಲ್ಲ"),
    "ko": ("예 네 응 그렇습니다", "아니요 아니오 아뇨 아니"),
    "ky": ("ооба", "жок"),
    "lt": ("taip", "ne"),
    "lv": ("jā", "nē"),
    "mk": ("да", "не"),
    "ml": ("ഉവ്വ് അതെ", "അല്ല ഇല്ല"),
    "mn": ("тийм", "үгүй"),
    "mr": ("होय", "नाही"),
    "ms": ("ya", "tidak"),
    "nb": ("ja", "nei"),
    "ne": ("हो", "होइन"),
    "nl": ("ja", "nee"),
    "pa": ("ਹਾਂ", "ਨਹੀਂ"),
    "pl": ("tak", "nie"),
    "pt": ("sim", "não"),
    "ro": ("da", "nu"),
    "ru": ("да", "нет"),
    "sk": ("áno", "nie"),
    "sl": ("da", "ne"),
    "sq": ("po", "jo"),
    "sr": ("да", "не"),
    "sv": ("ja", "nej"),
    "sw": ("ndiyo", "hapana"),
    "ta": ("ஆம்", "இல்லை"),
    "te": ("అవును", "కాదు"),
    "th": ("ใช่", "ไม่ใช่ ไม่"),
    "tr": ("evet", "hayir hayır"),
    "tt": ("әйе", "юк"),
    "uk": ("так", "ні"),
    "ur": ("ہاں", "نہیں"),
    "uz": ("ha", "yo'q"),
    "vi": ("có vâng đúng", "không"),
    "yue": ("係", "唔係"),
    "zh": ("是 是的 对 對 没错 沒錯", "否 不 不是 不对 不對"),
    # Yes in these, and no above, or the other way round: these words mean nothing.
    "lb": ("jo", "nee"),
}
_EDGES: Final = " \t\n\r.,;:!?¡¿\"'()[]{}*_`~…。!?、،؟।"


def _folded(words: Iterable[str]) -> frozenset[str]:
    return frozenset(values.fold(word) for word in words)


_YES: Final = _folded(word for yes, _ in _YES_AND_NO.values() for word in yes.split())
_NO: Final = _folded(word for _, no in _YES_AND_NO.values() for word in no.split())
_LONGEST_YES_NO: Final = 40


def yes_no(phrase: str) -> bool | None:
    """Tell whether a word or short phrase, and nothing beside it, is a yes or a no in some language.

    Args:
        phrase: The whole answer; case, accents and punctuation around it do not matter.

    Returns:
        True for yes, False for no, None for anything else and for a word that is yes in one language and no in another.
    """
    if len(phrase) > _LONGEST_YES_NO:
        return None
    word = values.fold(phrase).strip(_EDGES)
    yes, no = word in _YES, word in _NO
    return yes if yes != no else None


# What a text calls its answer: the word, what may stand between, and the verbs; in their usual spelling, to be folded.
_NOUNS: Final = (
    ("answer", "", "is are"),
    ("antwort", "", "ist lautet"),
    ("antwoord", "", "is luidt"),
    ("respuesta", "final correcta definitiva", "es"),
    ("réponse", "finale correcte définitive exacte", "est"),
    ("risposta", "finale corretta esatta definitiva", "è"),
    ("resposta", "final correta correcta certa", "é és"),
    ("răspuns răspunsul", "final corect", "este e"),
    ("odpowiedź", "", "to brzmi"),
    ("odpověď odpoveď", "", "je zní znie"),
    ("odgovor", "", "je"),
    ("válasz", "", ""),
    ("svar svaret", "", "är er"),
    ("vastaus", "", "on"),
    ("vastus", "", "on"),
    ("cevap cevabı yanıt", "", ""),
    ("jawaban jawabannya jawapan", "akhir akhirnya yang\\ benar", "adalah ialah"),
    ("đáp\\ án câu\\ trả\\ lời trả\\ lời", "cuối\\ cùng đúng", "là"),
    ("atsakymas", "", "yra"),
    ("atbilde", "", "ir"),
    ("jibu", "", "ni"),
    ("ответ", "", ""),
    ("відповідь", "", ""),
    ("отговор отговорът", "", "е"),
    ("одговор", "", "је"),
    ("απάντηση", "", "είναι"),
    ("الجواب جواب", "النهائي الصحيح", "هو"),
    ("الإجابة الاجابة إجابة", "النهائية الصحيحة", "هي"),
    ("پاسخ", "نهایی صحیح درست", ""),
    ("उत्तर जवाब", "", "है"),
    ("תשובה התשובה", "סופית הסופית הנכונה", "היא"),
    ("উত্তর", "", ""),
    ("பதில் விடை", "", ""),
    ("답 정답 답변 해답", "", ""),
    ("คำตอบ", "สุดท้าย ที่ถูกต้อง", ""),
)
_JOINED: Final = {"답 정답 답변 해답": "[은는](?= )", "คำตอบ": " ?คือ"}  # verbs that stand without a space
_NOT: Final = _split("not nicht niet pas není neni inte ikke bukan не ليس ليست")
"""What makes a mark deny its answer; words that are the answer "no" as well are left out."""
_CLOSING: Final = r"[\"'*_`)\]]{0,4}"
_SIGN: Final = rf"\s?(?:[:：=]|\s?[-–—](?=\s)){_CLOSING}"


def _spellings(words: str) -> list[str]:
    r"""List words as written and as folded; `\ ` is a space within one."""
    listed = [word.replace("\x00", " ") for word in words.replace("\\ ", "\x00").split()]
    return sorted({spelled for word in listed for spelled in (values.clean(word).casefold(), values.fold(word))})


def _either(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))


def _marks() -> str:
    r"""Write the pattern of final marks, the words grouped by their first letter: a search tries only those that fit."""
    branches: list[tuple[str, str]] = []
    for nouns, between, verbs in _NOUNS:
        said = rf"(?: (?:{_either(_spellings(between))}))?" if between else ""
        is_ = rf"| (?:{_either(_spellings(verbs))})(?![^\W_])(?:\s?:)?" if verbs else ""
        if nouns in _JOINED:
            is_ = f"|{_JOINED[nouns]}"
        branches.extend(
            (noun[0], rf"{re.escape(noun[1:])}{said}{_CLOSING}(?:{_SIGN}{is_})") for noun in _spellings(nouns)
        )
    grouped = groupby(sorted(branches), key=lambda branch: branch[0])
    spaced = "|".join(f"{letter}(?:{'|'.join(rest for _, rest in group)})" for letter, group in grouped)
    signs = (
        rf"(?:答案|回答|解答|正解|答え|答)(?:{_CLOSING}{_SIGN}|(?:应该是|應該是|应为|應為|是|为|為|は)(?![不没沒非]))"
    )
    return rf"(?:(?<![^\W_])(?:{spaced})|{signs})(?:(?<=[-–—:：=\"'*_`)\]])|(?! ?(?:{_either(_NOT)})\b))"


ANSWER_MARKS: Final = re.compile(_marks(), re.IGNORECASE)
"""Finds the final marks of many languages ("Respuesta:", "La réponse est", "答案是") in cleaned or folded text.

What precedes the word ("final", "correct", an article) is not part of the match; what follows the match is the answer.
"""

_CONTRACTIONS: Final = [
    verb + "n't"
    for verb in _split(
        "is are was were do does did has have had ca could wo would should must might need ought sha ai dare"
    )
]
NEGATIONS: Final = _folded(
    [
        *_CONTRACTIONS,
        "n't",
        *_split("not no never none nobody nothing nowhere neither nor without cannot hardly scarcely"),  # English
        *_split("nicht kein keine keinen keinem keiner keines nie niemals nichts niemand ohne weder nein"),  # German
        *_split("ne pas jamais sans aucun aucune rien ni non nul nulle"),  # French
        *_split("no nunca jamás sin ningún ninguno ninguna nada nadie ni tampoco"),  # Spanish
        *_split("non mai senza nessuno nessuna nessun niente nulla né"),  # Italian
        *_split("não nunca jamais sem nenhum nenhuma nada ninguém nem tampouco"),  # Portuguese
        *_split("no mai ningú"),  # Catalan
        *_split("nu nici fără niciodată niciun nicio nimic nimeni"),  # Romanian
        *_split("niet geen nooit zonder niets niemand nee"),  # Dutch
        *_split("inte ej icke aldrig utan ingen inget inga ikke aldri uten ingenting intet uden hverken"),  # Nordic
        *_split("ei emme ette eivät älä ilman eikä mitään"),  # Finnish
        *_split("nie nigdy bez żaden żadna żadne nic nikt ani"),  # Polish
        *_split("ne není nejsou nemá nelze nikdy žádný žádná žádné nikdo nic"),  # Czech
        *_split("nie nikto žiadny žiadna bez"),  # Slovak
        *_split("nem ne sem soha nélkül nincs nincsenek semmi senki"),  # Hungarian
        *_split("не нет ни без никогда нельзя никто ничто ничего ничто никакой нету"),  # Russian
        *_split("не ні без ніколи немає ніхто нічого жоден жодна"),  # Ukrainian
        *_split("не няма без никога никой нищо нема никада"),  # Bulgarian, Serbian
        *_split("δεν δε μη μην όχι ποτέ χωρίς ούτε κανένας κανείς τίποτα"),  # Greek
        *_split("değil yok hayır asla hiç hiçbir olmadan ne"),  # Turkish
        *_split("لا ليس ليست ليسوا لم لن بدون دون غير أبدا أبدًا كلا"),  # Arabic
        *_split("نه نیست نیستند بدون هرگز هیچ بی نمی"),  # Persian
        *_split("نہیں نہ بغیر"),  # Urdu
        *_split("לא אין בלי ללא אינו אינה אינם מעולם"),  # Hebrew
        *_split("नहीं न ना मत बिना"),  # Hindi
        *_split("tidak bukan jangan tanpa belum"),  # Indonesian
        *_split("không chẳng chưa đừng"),  # Vietnamese
        *_split("안 말고"),  # Korean
        *_split("hapana"),  # Swahili
    ]
)
"""Folded words that deny, in languages that write spaces.

Some are another word in another language, such as the name of a month (mai) or a function (sin): where texts are compared
by them, take dates and formulas out first. What is far more often another word (Finnish "en", "et") is left out.
"""

NEGATION_PARTS: Final = tuple(_split("不 没 沒 未 非 無 无 否 ない なかった なし ません 않 없 아니 못 ไม่ ไร้"))
"""What denies as a part of a word or sentence, in languages that write no spaces or join it to the word."""

# 非常 is "very", 非洲 Africa
_DENYING_PART: Final = re.compile("|".join(map(values.clean, NEGATION_PARTS)).replace("非", "非(?![常洲])"))
_WORD: Final = re.compile("[^\\W_][\\w\u0300-\u036f\u0900-\u0963\u064b-\u0652]{0,60}(?:'t(?!\\w))?")
_SECOND: Final = frozenset(["pas", "jamais", "rien", "aucun", "aucune"])


def count_negations(folded: str) -> int:
    """Count what denies in a folded text; the two words of the French "ne ... pas" count once.

    Equal counts do not mean that two texts deny the same; different ones mean that they may not say the same.
    """
    words: list[str] = _WORD.findall(folded)
    count = sum(word in NEGATIONS for word in words)
    count -= min(words.count("ne"), sum(word in _SECOND for word in words))
    return count + (0 if folded.isascii() else len(_DENYING_PART.findall(folded)))
