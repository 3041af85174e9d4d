r"""Reading: what a query asks for, and which part of a text answers it.

Models think before their answer, go on after it, and repeat the question around it. The functions here find the part
that answers. They compare nothing, and never raise.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.code import asks_for_code
from langchain_rlfocal.answers.facts import Fact, find_facts, plain_numbers
from langchain_rlfocal.answers.languages import ANSWER_MARKS, NEGATIONS
from langchain_rlfocal.answers.lists import asks_for_list

MAX_SENTENCE = 400
"""Characters of a sentence that are read as a short answer."""

_MAX_QUERY = 20_000
_MAX_KEPT = 2_000  # characters of a text whose parts are kept: each reader of one text asks for them
_MAX_CHOICES = 30
_MAX_MARKED = 30
_THOUGHT = re.compile(r"</\|?(?:think|thinking|thought|reasoning|scratchpad|analysis)\|?>", re.IGNORECASE)
_RUN_ON = re.compile(
    r"\n[ \t]{0,8}[*#]{0,4} ?(?:question|q|user|human) ?[0-9]{0,3} ?:|<\|[a-z_]{1,20}\|>|<end_of_turn>|</s>",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"\b(?:answer(?: to [^.:\n]{1,100}?)?|correct (?:option|choice))[\"'*_`)\]]{0,4}(?:\s(?:is|are)\b|\s?[:=])(?! not\b)"
    r"|(?P<key>\"answer\"\s?:)|(?P<boxed>\\boxed\s?\{)|\#{4}(?!#)",
    re.IGNORECASE,
)
_QUOTES = " \t\n\"'*_`"
_HEADING = re.compile(r"[ \t]{0,8}#{1,6}[ \t][^\n]{0,200}")
_BOLD_HEADING = re.compile(r"[ \t]{0,8}\*\*[^*\n]{1,80}:?\*\*:?[ \t]{0,8}")
_LABEL = re.compile(r"[\s*_`#]{0,8}(?P<label>[^\W\d_][\w /'-]{0,40}?)[*_`]{0,3}\s?[:：=]\s?[*_`]{0,3}(?P<value>\S)")
_LABEL_WITHIN = re.compile(r"[,;.] ?[^\W\d_][\w '-]{0,40}[*_]{0,2}: ")
_GENERIC_LABELS = frozenset(
    [
        "answer",
        "category",
        "choice",
        "class",
        "classification",
        "decision",
        "final",
        "intent",
        "label",
        "option",
        "output",
        "prediction",
        "rating",
        "result",
        "score",
        "sentiment",
        "solution",
        "topic",
        "verdict",
    ]
)

_OPTION_STYLES = (
    re.compile(r"\(([A-Za-z])\)\s?"),
    re.compile(r"(?<![\w(])([A-Za-z])\)\s"),
    re.compile(r"(?<!\S)([A-Z])[.:]\s"),
)

_ASKS_YES_NO = re.compile(r"\byes\W{1,8}(?:or\W{1,8})?no\b")
_ASKS_TRUE_FALSE = re.compile(r"\btrue\W{1,8}(?:or\W{1,8})?false\b")
_STARTS_YES_NO = re.compile(
    r"(?:\W{0,8}(?:question|q) ?:)?\W{0,8}(?:(?:if|in|after|when|so|and|but|then)\b[^,?]{0,200}, )?(?:so |then )?"
    r"(?:is|are|am|was(?! (?:ist|sind|war|waren|bedeutet|heisst|kostet|macht|hat|fur|wird|wurde|kann|soll|passiert|geschah))|were|do|does|did|can|could|will|would|should|has|have|had|may|might|must|(?:is|are|was|were|do"
    r"|does|did|ca|could|wo|would|should|has|have|had)n't)\b(?! (?:you|we) \w| i know)"
)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|tall|far|long|big|heavy|high|deep|fast|often)\b"
    r"|\b(?:what|which|next|missing) (?:number|share|discount|speed|height|weight|length|score|interest rate|rate|dose|dosage|total|year|percentage|percent|fraction|age|price|temperature|amount|distance)\b"
    r"|\bnumber of\b|\bnumber (?:that )?comes\b|\b(?:with|as|give|only) (?:a|the|one) (?:single )?number\b"
    r"|\b(?:calculate|compute|percentage|average|remainder|probability|quotient|perimeter|circumference|decimal places?)\b"
    r"|\b(?:sum|product|difference|area|volume|square root|cost|price|total|population|mean|median|ratio|temperature|speed|height"
    r"|weight|length|distance|age|slope|gcd|lcm|value|dose|dosage|duration|size) (?:of|between|in|for|from|at|per)\b"
    r"|\b(?:what(?:'s| is| was| are| were| will be| would be)|find|determine) (?:(?!of\b)[a-z'-]{1,20} ){0,4}?(?:speed|age|height|weight|length"
    r"|width|depth|area|volume|price|cost|salary|temperature|distance|population|value|score|slope|perimeter|probability|rating|discount|profit"
    r"|balance|tax|interest|salary|budget|sum|product|difference|mean|median|quotient|remainder|rate|amount|total)\b(?! of (?:the|a) [a-z]+ who)"
    r"|[0-9]%? of [0-9$€£]|\brate (?:this|the|it|my)\b|\bon a scale\b|\bfrom (?:0|1|zero|one) to [0-9]|\bconvert [0-9]"
    r"|[0-9)] ?[-+*/×÷^] ?[0-9(]|[0-9] (?:x|plus|minus|times|divided by|modulo) [0-9]"
    r"|\bwhat(?:'s| is| are) (?:the value of )?[-(]?[0-9]|\b(?:plus|minus|times|divided by|squared|cubed|to the power of) [a-z]{3,9}\b"
    r"|\b(?:wie (?:viele?|hoch|lange?|alt|weit|gross|schwer)|wieviele?|combien|quel (?:age|pourcentage)|cuant[oa]s?|quant[oaei]s?"
    r"|hoeveel|hoe (?:lang|oud|hoog|ver)|сколько|скольким|kac|kac tane|ne kadar|ile|hur (?:manga|mycket)"
    r"|(?:qual|cual|quelle?|quale|was|wie|какая|какой|каково|wat|jaka|jaki)\W{1,3}(?:[^\W\d_]{1,12} ){0,3}?(?:distan[a-z]{1,4}|entfernung|prei?s|prezzo|precio|prix|preco|edad|eta|age|idade"
    r"|temperatur\w?|температура|velocidad\w{0,2}|velocita|vitesse|geschwindigkeit|скорость|hohe|altura|altezza|hauteur|poids|peso|gewicht"
    r"|цена|высота|расстояние|superficie|flache|population|poblacion|populacao|popolazione|afstand|prijs|cena|odleglosc))\b"
    r"|\b(?:berechne\w{0,2}|calcule[rz]?|calcula|calcola|calcolare|вычисли\w{0,3}|рассчитай\w{0,2}|oblicz|hesapla\w{0,6}|bereken|berakna)\b"
    r"|计算|計算|계산|احسب|多少|几[个人只岁年天]|第几|いくつ|いくら|何[人個歳年円本枚回%]|몇|얼마|كم |कितन"
)
_HOW_MANY = re.compile(
    r"\bhow (?:many|much|old|tall|far|long|big|heavy|high|deep|fast|often)\b|\b(?:calculate|compute)\b"
)
_POLITE = re.compile(r"^\W{0,4}(?:(?:please|kindly|can you|could you|also|and|then) )?")
_ENGLISH_VERB = re.compile(
    r"\W{0,4}(?:name|list|give|find|solve|express|differentiate|integrate|rewrite|describe|explain|summari[sz]e|rank|sort|put|complete|correct|call|estimate|state|determine|evaluate|simplify|calculate|compute|convert|rate|classify|write|print|show|tell|answer|label|extract"
    r"|round|translate|fill|choose|select|pick|identify|count|add|use|turn|return|make|create|implement|expand|factor|premise|let|if)\b"
)
_ASKS_DURATION = re.compile(
    r"\bhow long\b|\bduration\b|\blength of the (?:film|movie|video|recording|call|flight|trip|journey)\b|combien de temps|wie lange|cuanto (?:tiempo )?dura|quanto (?:tempo )?dura|hoe lang|сколько времени|как долго"
)
_ASKS_CLOCK = re.compile(
    r"\b(?:saat|uhr|ora|hora|heure|laat|godzin\w{0,3}|час\w{0,2}|klockan|kello|kl)\b|во сколько|o ktorej"
)
_ASKS_CASED = re.compile(r"\b(?:symbol|formula|password|passphrase|api key|token|variable|identifier|constant)\b")
_ASKS_WORD = re.compile(
    r"\btranslate\b|\bhow (?:do|would) you say\b|\b(?:english|spanish|german|french|italian|portuguese|dutch|polish|czech|swedish|russian"
    r"|turkish) (?:word |term |translation )?(?:for|of)\b|\bin (?:spanish|german|french|italian|portuguese|dutch|polish|czech|swedish"
    r"|russian|turkish)\b"
)
_RATES = re.compile(
    r"\b(?:rate|score|grade) (?:this|the|it|my|that|these)\b|\bon a scale\b|\bfrom (?:0|1|zero|one) to (?:5|10|100|five|ten)\b|\bout of (?:5|10|100)\b"
)
_PORTUGUESE = re.compile(
    r"\b(?:quantos|quantas|quem|qual|quais|onde|voce|sao|nao|ha|em|um|uma|do|dos|ao|pelo|isso|os)\b"
)
_SPANISH = re.compile(r"¿|\b(?:el|los|las|del|cual|cuales|donde|quien|cuant[oa]s?|una|y)\b")
_ASKS_COMMAND = re.compile(
    r"\bhow (?:do|can|would|should|to)\b[^.?!\n]{0,100}? (?:in|using|with|from) (?:git|docker|kubectl|kubernetes|linux|npm|pip|vim|the (?:terminal"
    r"|command line|shell))\b|\bhow (?:do|can|to)\b[^.?!\n]{0,60}\b(?:vim|nano|tmux|emacs)\b"
    r"|\b(?:funcion|fonction|funktion|funzione|funcao|функци[яюи]|fonksiyon\w?|consulta|abfrage|requete|skript|script)\b[^.?!\n]{0,60}"
    r"\b(?:python|javascript|sql|java|php|ruby|rust|go|bash|c\+\+|typescript|kotlin|swift)\b|(?:python|javascript|java|sql|js)[^.?!\n]{0,20}(?:函数|関数|함수|函數)"
    r"|\b(?:write|give|add)\b[^.?!\n]{0,40}\b(?:dockerfile|yaml|makefile|crontab|cron|nginx|terraform|gitignore)\b"
    r"|\b(?:commande|comando|befehl|komut|команд[аыу]|polecenie|kommando)\b|(?:命令|コマンド|명령어)|\b(?:git|docker|kubernetes|linux|bash|npm): how (?:do|can|to)\b"
)
_ASKS_SHARE = re.compile(
    r"\b(?:probability|chances?|likelihood|odds|what (?:fraction|proportion|share|part)|wahrscheinlichkeit|probabilite|probabilidade?d?"
    r"|probabilita|kans|olasilik|prawdopodobienstwo|вероятность|шанс)\b|概率|確率|확률"
)
_ASKS_RATIO = re.compile(
    r"\b(?:ratio|odds|verhaltnis|rapport|razon|proporcion|rapporto|razao|verhouding|соотношение|отношение)\b|比例|比率|비율"
)
_OVER_TEXT = re.compile(
    r"\W{0,4}(?:please )?(?:extract|find|identify|get|pull out|copy|quote|extrae|extraiga|extrahiere|extrais|extrayez|estrai|extraia|haal"
    r"|извлеки\w{0,3}|提取|抽出)\b[^:'\"\n?]{3,200}[:'\"\n]",
    re.IGNORECASE,
)
_ASKS_WHEN = re.compile(
    r"\bwhen\b|\bwhat (?:date|day|time|month|century|decade)\b|\bwhich (?:date|day|month|century|decade)\b|\bin what year\b"
)
_ASKS_WHEN_ELSEWHERE = re.compile(
    r"\b(?:wann|quand|cuando|quando|wanneer|когда|ne zaman|hangi (?:yil|tarih)\w{0,4}|kiedy|nar|saat kac\w{0,2}|ne gun|a que hora|a che ora|(?:um )?wie viel uhr|wie spat"
    r"|welche[mrsn]? (?:tag|datum|jahr|monat)|quel(?:le)? (?:jour|date|heure|annee|mois)|que (?:dia|hora|ano)|(?:qual|quale) (?:e )?(?:a |la )?data"
    r"|che (?:giorno|anno)|cual es la fecha|в каком году|какого числа|во сколько|o ktorej|hoe laat|hur dags|welk jaar|w ktorym roku|vilket ar)\b"
    r"|什么时候|何时|哪一?[年天日月]|几[点号月日]|何[年時日月]|いつ|언제|몇 ?(?:시|월|일|년)|متى|कब"
)
_WH_ELSEWHERE = re.compile(
    r"\b(?:wer|wen|wem|was|wo|wie|wohin|woher|welche[rsmn]?|warum|wieso|wann|qui|que|quoi|quand|ou|comment|quel(?:le)?s?|combien"
    r"|pourquoi|quien(?:es)?|cual(?:es)?|cuando|cuant[oa]s?|donde|como|por que|chi|cosa|quando|dove|quale|quali|quant[oaei]s?|perche"
    r"|quem|onde|qual|quais|wat|wanneer|waar|hoe|welke|waarom|кто|что|когда|где|как|какой|какая|какое|какие|сколько|почему|куда"
    r"|ne|kim|nerede|nasil|kac|hangi|neden|kto|co|kiedy|gdzie|jak|jaki|jaka|jakie|ile|dlaczego|oder|oppure|ou|или|veya|czy|lub)\b"
    r"|什么|甚么|谁|誰|哪|几|多少|怎|为何|何|いつ|どこ|どれ|どの|どう|なに|なん|いくつ|いくら|なぜ|还是|それとも"
    r"|무엇|누구|언제|어디|어떻|어느|몇|왜|얼마|ما|من |متى|أين|كيف|كم|لماذا|أي |कौन|कब|कहा|कैसे|कितन|क्यों|किस"
)
_ENGLISH = re.compile(r"\b(?:the|what|which|who|where|when|why|how|are|and|does|did|were|has|have|with)\b")
_NOT_ENGLISH = re.compile(r"\b(?:ist|der|das|ein|eine|und|oder|het|een|van|de|wat|el|las|los|una|que|il|um|uma)\b")
_ASKS_YES_NO_ELSEWHERE = re.compile(
    r"\W{0,4}(?:est-ce qu|هل |أليس |क्या |czy )|(?:ですか|ますか|ませんか|でしょうか|니까|나요|吗|嗎|吗|么)\W{0,4}$"
)
_NAMES_IDENTIFIER = re.compile(
    r"\b(?:phone|telephone|order|serial|tracking|account|invoice|case|room|flight|model|reference|license|plate|ticket|part|passport"
    r"|id|zip|postal|port|isbn|card|confirmation|contact) (?:number|code|id)s?\b|\b(?:version|address|isbn|zip|phone|license plate)\b"
    r"|\b(?:which|what) (?:flight|gate|room|model|platform|seat|bus|train|line)\b"
)
_ASKS_FACT = re.compile(r"\b(?:who|whom|whose|what|which|where|when|name)\b")
_ASKS_PROSE = re.compile(
    r"\b(?:explain|describe|why|essay|story|poem|summari[sz]e|summary|paragraph|discuss|advice|rewrite|rephrase|paraphrase"
    r"|translate|draft|compose|elaborate|compare|outline|brainstorm|tell me (?:about|a)|how (?:do|does|can|could|to|would|should)"
    r"|write (?:a|an|the|me|about|some|two|three)|in your own words|e-?mail to|letter to|haiku|limerick|slogan|biography)\b"
)
_ASKS_NAMES = re.compile(
    r"\b(?:who|whom|whose|where|why|which (?!year|number|month|day|date)|what (?!year|number|is the (?:total|sum|average|number)|percent))\b"
)
_SEVERAL = re.compile(
    r"(?:\band|,) (?:also )?(?:what|which|who|whom|where|when|why|how|is|are|was|were|did|does|in which|in what|at what)\b"
)
_CONDITION = re.compile(
    r"\W{0,4}(?:if|when|after|since|while|because|given|suppose|assuming|as|before|in|at|for|on|with)\b"
)
_ASKS_FIRST = re.compile(r", (?:what|which|who|whom|where|when|why|how|is|are|was|were|does|did)\b")
_OR = re.compile(r" or ")
_OR_ELSEWHERE = re.compile(r" (?:oder|ou|или|либо|lub|albo|veya|ya da|yoksa|أم|أو|या|또는|아니면|of|eller) ")
_OR_SHORT = re.compile(r" (?:o|oppure) ")
_WRITES_O = re.compile(r"¿|\b(?:el|los|las|es|un|il|lo|gli|di|che|chi|quale|del|della|delle|dei|questo|questa)\b")
"""Signs of Spanish and Italian, where "o" means "or"; in Portuguese it is an article."""
_OR_UNSPACED = re.compile(
    r"(?P<first>[\u3400-\u9fff]{1,6})(?:还是|還是|或者|或)(?P<last>[\u3400-\u9fff]{1,6})(?=[？?。吗呢]|$)"
)
_OR_ASKED_TWICE = re.compile(
    r"(?P<first>[\u3040-\u9fff]{1,12}?)(?:です|ます)か[、,] ?(?:それとも)?(?P<last>[\u3040-\u9fff]{1,8}?)(?:です|ます)か"
)
_ARTICLES = frozenset(
    [
        "the",
        "a",
        "an",
        "ein",
        "eine",
        "einen",
        "einem",
        "einer",
        "der",
        "die",
        "das",
        "den",
        "dem",
        "le",
        "la",
        "les",
        "l",
        "un",
        "une",
        "du",
        "des",
        "au",
        "aux",
        "el",
        "los",
        "las",
        "una",
        "il",
        "lo",
        "gli",
        "i",
        "uno",
        "al",
        "del",
        "um",
        "uma",
        "os",
        "as",
        "het",
        "een",
        "de",
    ]
)
_COPULAS = frozenset(["है", "हैं", "ist", "est", "es", "è", "é", "is"])
_CUTS = frozenset(
    [
        "at",
        "in",
        "on",
        "of",
        "for",
        "to",
        "from",
        "with",
        "by",
        "when",
        "if",
        "than",
        "as",
        "about",
        "around",
        "during",
        "after",
        "before",
        "because",
        "und",
        "and",
        "in",
    ]
)
_TELLING = frozenset(["answer", "reply", "respond", "choose", "say", "select", "output", "pick"])
_FIRST_VERBS = frozenset(
    ["is", "are", "was", "were", "do", "does", "did", "can", "should", "would", "will", "has", "have"]
)
_TELLS_TO_ANSWER = re.compile(
    r"\b(?:answer|reply|respond|choose|classify|say|decide|label|select|output|clasifica|responde|antworte|reponds|rispondi)\b"
)
_LITERAL = re.compile(
    r"\[/?python\]|\bassert\b[^\n]{0,400}==|\b(?:what (?:does|is|will)[^.?\n]{0,80}\b(?:print|output|return|evaluate)|output of)\b"
)
_LISTED_CHOICES = re.compile(
    r"\b(?:categories|labels|classes|intents|options|choices|sentiments|values|topics|tags|following|one of(?: these| the)?"
    r"(?: [a-z]{1,20}){0,3}|as (?:either )?one of|with (?:either )?one of|(?:either|as|with|classify|sentiment|answer|reply|respond)"
    r"(?: [a-z']{1,20}){0,4})\s?[:(]\s?(?P<listed>[^\n.?!:()]{3,400})"
)

_COLON_LIST = re.compile(
    r"\b(?:which|what|pick|choose|who|odd|welche[rs]?|cual|quel(?:le)?|quale|qual)\b(?![^:]*\border\b)[^:?\n]{0,80}:\s(?P<listed>[^:?!\n]{5,200})[?.]?$"
)
_ASIDE = re.compile(r"\((?!e\.?g|i\.?e|for example|such as)(?P<listed>[^()\n]{3,200})\)\s?(?:[?:.]|$)")

_SENTENCE_END = re.compile(r"(?P<word>\w{0,20})[.!?。！？][\"')\]*_`]{0,4}(?=\s|$)|[。！？]")
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "mt", "prof", "approx", "ca", "inc", "ltd"]
)
_BEFORE_NUMBERS = frozenset(["art", "ch", "chap", "sec", "fig", "vol", "no", "nr", "eq", "pp", "pg", "st"])
_COURTESY = re.compile(
    r"(?:sure|certainly|of course|okay|ok|great question|good question|absolutely|happy to help)\b(?: thing)?[!.,:] ?",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"(?:according to|based on|judging by|per) (?:the|your|this|these|my) [^,.\n]{1,60}, ?", re.IGNORECASE
)
_THINKING = re.compile(
    r"(?:let's|let us|let me|first,|step 1|to (?:find|determine|answer|solve|calculate)\b)", re.IGNORECASE
)
_BOLD = re.compile(r"\*\*[^*\n]{0,60}[0-9][^*\n]{0,60}\*\*")
_CONCLUSION = re.compile(
    r"[\s*_`>-]{0,8}(?:also|daher|somit|donc|ainsi|por (?:lo )?tanto|entonces|quindi|dunque|portanto|logo|dus|итак|значит|поэтому|следовательно"
    r"|dolayisiyla|wiec|zatem|إذن|لذلك|इसलिए|so|therefore|thus|hence|consequently|as a result|in conclusion|in total|altogether|overall|finally"
    r"|in summary|to conclude|this means|which means)\b[, ]",
    re.IGNORECASE,
)
_SO = re.compile(
    r"[,;.:] ?(?:(?:and|und|et|y|e) )?(?:so|therefore|thus|hence|which (?:is|means|gives|makes|equals)|giving|making|for a total of|in total|also|daher|somit"
    r"|donc|(?:por|pelo) (?:lo )?tanto|portanto|entonces|asi que|quindi|dunque|dus|поэтому|значит|следовательно|итого)\b[, ]{1,2}"
    r"|[,，、]?(?:所以|因此|一共|总共|共|よって|なので|だから|したがって|따라서|그래서)[,，、 ]?",
    re.IGNORECASE,
)
_RESULT = re.compile(r"[=≈]\s?[$€£]?(-?[0-9][0-9.,]{0,30})")
_EXPLANATION = re.compile(
    r",? because\b|,? since (?:it|he|she|they|the|this|that|there|its|his|her)\b|, (?:which|who|where|whose)\b|, as (?:it|he|she|they|the|this|that|there)\b",
    re.IGNORECASE,
)
_JOINT = re.compile(r"(?<=[^\W\d_])[-–—/](?=[^\W\d_])|,(?![0-9]{3}(?![0-9]))")
_INITIALS = re.compile(r"(?<=\b[A-Z]\.)(?=[A-Z][.a-z])")
_EDGES = "$।.,;:!?\"'()[]{}*_`~…|<>«»。、，；：！？「」『』（）【】¿¡"
_CONTRACTIONS = (
    (re.compile(r"\bcan(?:'t|not)\b", re.IGNORECASE), "can not"),
    (re.compile(r"\bwon't\b", re.IGNORECASE), "will not"),
    (re.compile(r"\bshan't\b", re.IGNORECASE), "shall not"),
    (re.compile(r"n't\b", re.IGNORECASE), " not"),
    (re.compile(r"'re\b", re.IGNORECASE), " are"),
    (re.compile(r"'ve\b", re.IGNORECASE), " have"),
    (re.compile(r"'ll\b", re.IGNORECASE), " will"),
    (re.compile(r"(?<=\bi)'m\b", re.IGNORECASE), " am"),
    (re.compile(r"\b(it|he|she|that|there|here|what|who|where)'s\b", re.IGNORECASE), r"\1 is"),
    (re.compile(r"'s\b", re.IGNORECASE), ""),
)


@dataclass(frozen=True, eq=False)
class Ask:
    """What a query asks for.

    Attributes:
        text: The query, cleaned.
        asking: The part of it that asks, where it is a command over a text of its own ("Extract the name: ..."); else all.
        options: Letter to plain text of the lettered options that it lists.
        letters: True if the options' labels are Latin letters.
        options_first: True if a question follows the lettered list, which may then be context and no options.
        choices: Plain texts of the alternatives that it offers in words.
        yes_no: True if yes and no are the answers.
        number: True if it asks for a number.
        identifier: True if it asks for a name with digits: an order number, a version, an address.
        version: True if that is a version.
        when: True if it asks for a date or a time.
        digits: True if there is any digit.
        fact: True if it asks for a name, a place, a thing.
        prose: True if it asks for an explanation or a composition.
        code: True if it asks for code or a command.
        listing: True if it asks for several things.
        several: True if it asks more than one question.
        names: True if it asks for a name or a thing beside numbers.
        literal: True if it asks for the exact value of an expression of a program.
        foreign: True if it is in another language than English.
        portuguese: True if it is in Portuguese, where "no" is no denial.
        rates: True if it asks for a rating.
        cased: True if it asks for what is told apart by its case, such as a symbol or a password.
        duration: True if it asks how long something takes.
        share: True if it asks for a probability or a part of a whole, which 1 in 4 and 25 % write alike.
        ratio: True if it asks for a ratio, which "2 to 3" is then.
        clock: True if it asks for a time of day, in a language that may write 16.30.
        negated: True if its question denies something.
        content: The stems of its question's words that count, in order.
        words: The plain words of its questions, or of all of it where it has none.
        stems: Their stems.
    """

    text: str
    asking: str
    options: Mapping[str, str]
    letters: bool
    options_first: bool
    choices: tuple[str, ...]
    yes_no: bool
    number: bool
    identifier: bool
    version: bool
    when: bool
    digits: bool
    fact: bool
    prose: bool
    code: bool
    listing: bool
    several: bool
    names: bool
    literal: bool
    foreign: bool
    portuguese: bool
    rates: bool
    cased: bool
    duration: bool
    share: bool
    ratio: bool
    clock: bool
    negated: bool
    content: tuple[str, ...]
    words: frozenset[str]
    stems: frozenset[str]

    @cached_property
    def facts(self) -> frozenset[tuple[str, object]]:
        """The facts that the query states, as kind and value."""
        return frozenset((fact.kind, fact.value) for fact in self._found)

    @cached_property
    def numbers(self) -> frozenset[object]:
        """The numbers that the query states, those within its other facts included."""
        return frozenset(plain_numbers(self.asking)) | {fact.stated for fact in self._found if fact.stated is not None}

    @cached_property
    def _found(self) -> list[Fact]:
        return find_facts(self.asking, query=self.text, day_first=self.foreign)


@lru_cache(maxsize=64)
def read_query(query: str) -> Ask:
    """Read what a query asks for; of a long query its beginning and its end."""
    if len(query) > _MAX_QUERY:
        query = f"{query[: _MAX_QUERY // 2]}\n{query[-_MAX_QUERY // 2 :]}"
    cleaned = values.clean(query)
    folded = values.fold(query)
    sentences = [
        sentence.strip() for sentence in re.split(r"(?<=[.?!।]) |(?<=[。?!])|\n", folded) if sentence.strip()
    ] or [""]
    questions = [sentence for sentence in sentences if sentence.endswith("?")] or [
        sentence for sentence in sentences if _ASKS_YES_NO_ELSEWHERE.search(sentence)
    ]
    told = [sentence for sentence in sentences if _TELLS_TO_ANSWER.search(sentence)]
    questions = questions or told[-1:] or sentences[:1]
    says_yes_no = bool(_ASKS_YES_NO.search(folded))
    code = asks_for_code(cleaned) or bool(_ASKS_COMMAND.search(folded))
    identifier = any(map(_NAMES_IDENTIFIER.search, questions))
    number = bool(_ASKS_NUMBER.search(folded)) and not identifier
    when = bool(_ASKS_WHEN.search(folded) or _ASKS_WHEN_ELSEWHERE.search(folded))
    prose = _asks_prose(sentences, questions, number=number) and not _RATES.search(folded)
    options, options_first = _options(cleaned)
    if not options:
        options = _labelled_options(query)
    starts = _STARTS_YES_NO.match(questions[-1]) and not _NOT_ENGLISH.search(questions[-1])
    english = _ENGLISH.search(folded) or starts or _ASKS_PROSE.search(folded)
    foreign = bool(folded) and not (english or _ENGLISH_VERB.match(folded) or re.search(r" or ", folded))
    over = _OVER_TEXT.match(cleaned)
    asked = " ".join(s for s in sentences if s.endswith("?")) or (values.fold(over[0]) if over else folded)
    words = frozenset(
        part for word in plain(uncontracted(asked)).split() for part in apart(without_ending(word) if foreign else word)
    )
    choices = () if says_yes_no or code else _choices(folded, [*questions, *told], prose=prose, foreign=foreign)
    content = content_words(questions[-1])
    several = len([s for s in sentences if s.endswith("?")]) > 1 or any(map(_asks_several, questions))
    return Ask(
        text=cleaned,
        asking=over[0] if over else cleaned,
        options=options,
        letters=not options or "A" in options,
        options_first=options_first,
        choices=choices,
        yes_no=says_yes_no or (not choices and not (foreign and (number or when)) and _asks_yes_no(questions[-1])),
        number=number,
        identifier=identifier,
        version=identifier and "version" in questions[-1],
        when=when,
        digits=any(char.isdigit() for char in folded),
        fact=bool(_ASKS_WORD.search(folded))
        or bool(_ASKS_FACT.search(folded))
        or (foreign and bool(_WH_ELSEWHERE.search(questions[-1])) and "?" in folded),
        prose=prose,
        code=code,
        listing=asks_for_list(cleaned),
        several=several,
        names=any(_ASKS_NAMES.search(question) for question in questions),
        literal=bool(_LITERAL.search(folded)),
        foreign=foreign,
        portuguese=foreign and bool(_PORTUGUESE.search(folded)) and not _SPANISH.search(folded),
        duration=bool(_ASKS_DURATION.search(folded)),
        share=bool(_ASKS_SHARE.search(folded)),
        ratio=bool(_ASKS_RATIO.search(folded)),
        clock=foreign and bool(_ASKS_CLOCK.search(folded)),
        negated=bool(set(content) & NEGATIONS),
        content=tuple(map(stem, content)),
        cased=bool(_ASKS_CASED.search(folded)),
        rates=bool(_RATES.search(folded)),
        words=words,
        stems=frozenset(map(stem, words)),
    )


def _asks_several(question: str) -> bool:
    """Whether a question asks twice: "who and when", but not "if it is 5, how many"."""
    second = _SEVERAL.search(question)
    if second is None:
        return False
    first = question[: second.start()]
    return not _CONDITION.match(question) or bool(_ASKS_FIRST.search(first))


def _asks_prose(sentences: list[str], questions: list[str], *, number: bool) -> bool:
    """Whether a question, or a command beside it, wants prose; a story that a number is asked about may hold such words."""
    if number and any(map(_HOW_MANY.search, [*questions, *sentences[-2:]])):
        return any(_ASKS_PROSE.match(_POLITE.sub("", sentence)) for sentence in sentences)
    return any(map(_ASKS_PROSE.search, sentences))


def _asks_yes_no(question: str) -> bool:
    """Whether a folded question is one of yes or no: by its first word in English, elsewhere by the want of a question word."""
    if _STARTS_YES_NO.match(question):
        return True
    if _ENGLISH.search(question):
        return False
    asks = question.rstrip().endswith("?") or bool(_ASKS_YES_NO_ELSEWHERE.search(question))
    if question.startswith(("est-ce qu", "هل ", "czy ")):
        return True
    return asks and not _WH_ELSEWHERE.search(question)


def final_part(text: str) -> str:
    """Cut what a model thinks before its answer and the next question that it invents after it."""
    return _final_part(text) if len(text) > _MAX_KEPT else _kept_final_part(text)


def _final_part(text: str) -> str:
    thoughts = list(_THOUGHT.finditer(text))
    text = text[thoughts[-1].end() :] if thoughts else text
    text = text.strip()
    run_on = _RUN_ON.search(text, 1)
    return text[: run_on.start()].strip() if run_on else text


_kept_final_part = lru_cache(maxsize=256)(_final_part)


def marked(text: str) -> tuple[str, ...]:
    r"""List what follows each explicit mark ("answer is", "Answer:", `\boxed{`, "####"), the last mark first."""
    return _marked(text) if len(text) > _MAX_KEPT else _kept_marked(text)


def _marked(text: str) -> tuple[str, ...]:
    own = list(_MARK.finditer(text))[-_MAX_MARKED:]
    covered = [(mark.start(), mark.end()) for mark in own]
    others = [
        mark
        for mark in list(ANSWER_MARKS.finditer(text))[-_MAX_MARKED:]
        if not any(start < mark.end() and mark.start() < end for start, end in covered)
    ]
    marks = sorted([*own, *others], key=lambda mark: mark.start())[-_MAX_MARKED:]
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    parts = [_marked_by(mark, max(end, mark.end())) for mark, end in zip(marks, ends, strict=True)]
    return tuple(part for part in (part.lstrip(f"{_QUOTES}:=>：").rstrip(_QUOTES) for part in reversed(parts)) if part)


_kept_marked = lru_cache(maxsize=256)(_marked)


def unheaded(text: str) -> str:
    """Drop headings, and a first line that only announces the next, from the beginning of a text."""
    while True:
        line, newline, rest = text.partition("\n")
        if (
            newline
            and rest.strip()
            and (
                _HEADING.fullmatch(line)
                or _BOLD_HEADING.fullmatch(line)
                or (line.rstrip().endswith((":", "：")) and len(line) < 200)
            )
        ):
            text = rest.strip()
        elif courtesy := _COURTESY.match(text):
            rest = text[courtesy.end() :].lstrip()
            if not rest:
                return text
            text = rest
        else:
            return _without_preamble(text)


def _without_preamble(text: str) -> str:
    match = _PREAMBLE.match(text)
    return text[match.end() :] if match and text[match.end() :].strip() else text


def unlabelled(text: str, ask: Ask) -> str:
    """Drop a label before a value, such as "Intent: ", where the label repeats the query or says nothing."""
    match = _LABEL.match(text)
    if match is None or "\n" in text.strip() or _LABEL_WITHIN.search(text, match.start("value")):
        return text
    label = plain(values.fold(match["label"])).split()
    known = all(word in _GENERIC_LABELS or word in ask.words or stem(word) in ask.stems for word in label)
    return text[match.start("value") :] if label and known else text


def sentences_of(text: str) -> list[str]:
    """Split a text into sentences; a line ends one too."""
    found = []
    for line in text.split("\n"):
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if not _abbreviates(end["word"], line[end.end() : end.end() + 2]):
                found.append(line[start : end.end()].strip())
                start = end.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence.strip(f"{_QUOTES}:#-")]


def conclusion(text: str, ask: Ask) -> str | None:
    """Find the last sentence of a text that thinks aloud; None where it does not conclude.

    It does where it says so, sets one number bold, states what a calculation before it comes to, or says in the words of
    the query alone what follows from one.
    """
    sentences = sentences_of(text[-4 * MAX_SENTENCE :])
    if len(sentences) < 2:
        return None
    last = sentences[-1]
    if _CONCLUSION.match(last) or len(_BOLD.findall(last)) == 1:
        return last
    result = None if "=" in last else next(reversed(list(_RESULT.finditer(text[-8 * MAX_SENTENCE : -len(last)]))), None)
    if not result:
        return None
    words = [word for word in plain(values.fold(last)).split() if not any(map(str.isdigit, word))]
    restates = (
        len(words) > 1
        and any(map(str.isdigit, last))
        and sum(word in ask.words or stem(word) in ask.stems for word in words) > len(words) / 2
    )
    return last if restates or set(plain_numbers(result[1])) & set(plain_numbers(last)) else None


def concluding(text: str) -> bool:
    """Whether a text is several sentences, or one with a conclusion."""
    return len(sentences_of(text[-4 * MAX_SENTENCE :])) > 1 or concluding_clause(text) is not None


def concluding_clause(sentence: str) -> str | None:
    """Find what stands behind the last "so" in a sentence."""
    ends = list(_SO.finditer(sentence[-4 * MAX_SENTENCE :]))
    return sentence[-4 * MAX_SENTENCE :][ends[-1].end() :] if ends else None


def first_sentence(text: str) -> str:
    """Take the sentence that answers: the first of the first line, or the last of a text that thinks aloud first.

    A line that ends in a colon announces the next; a code fence is no line.
    """
    lines = [line for line in text[: 4 * MAX_SENTENCE].split("\n") if line.strip(f"{_QUOTES}:#") and line[:3] != "```"]
    line = next((line for line in lines if not line.endswith(":")), text)[:MAX_SENTENCE].strip()
    thinks = bool(_THINKING.match(line))
    if thinks:
        line = text.rpartition("\n")[2][-MAX_SENTENCE:].strip()
    elif courtesy := _COURTESY.match(line):
        line = line[courtesy.end() :] or line
    sentences = sentences_of(line)
    if not sentences:
        return line
    return sentences[-1] if thinks else sentences[0]


def explained(sentence: str) -> str:
    """Cut an explanation that follows an answer."""
    match = _EXPLANATION.search(sentence, 1)
    return sentence[: match.start()].strip() if match else sentence


def plain(text: str) -> str:
    """Drop what tells no two short answers apart: punctuation at the edges of words, articles, words for digits.

    What consists of nothing else stays, without white space.
    """
    words = [bare(word) for word in _JOINT.sub(" ", values.in_digits(text)).split()]
    words = [word for word in words if word and word != "the"]
    words = [word for word, after in zip(words, [*words, ""][1:], strict=True) if word not in {"a", "an"} or not after]
    return " ".join(words) or "".join(text.split())


def joined_apart(text: str) -> str:
    """Set apart words that a hyphen, a slash or a comma joins, and initials."""
    return _JOINT.sub(" ", _INITIALS.sub(" ", text))


def uncontracted(text: str) -> str:
    """Write "isn't" as "is not", and drop the possessive's "'s"."""
    if "'" in text or "cannot" in text.lower():
        for pattern, plain_text in _CONTRACTIONS:
            text = pattern.sub(plain_text, text)
    return text


def bare(word: str) -> str:
    """Strip punctuation from the edges of a word, but what makes a number of it."""
    stripped = word.strip(_EDGES)
    if stripped[:1].isdigit() and f".{stripped}" in word[: len(stripped) + 3]:
        return f".{stripped}"
    return (
        stripped
        if stripped[:1] not in "-–—" or stripped[1:2].isdigit() or stripped[1:2] in {".", "$"}
        else stripped.lstrip("-–—")
    )


_NO_CONTENT = frozenset(
    [
        "the",
        "a",
        "an",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "it",
        "this",
        "that",
        "these",
        "those",
        "there",
        "do",
        "does",
        "did",
        "will",
        "would",
        "can",
        "could",
        "should",
        "has",
        "have",
        "had",
        "of",
        "so",
        "then",
        "also",
        "le",
        "la",
        "les",
        "el",
        "los",
        "las",
        "il",
        "lo",
        "der",
        "das",
        "die",
        "ein",
        "eine",
        "est",
        "ist",
        "es",
        "son",
        "sind",
        "o",
        "os",
        "as",
        "um",
        "uma",
        "het",
        "een",
        "ce",
    ]
)


def content_words(folded: str) -> list[str]:
    """List the words of a folded sentence that count, in order."""
    return [word for word in plain(uncontracted(folded)).split() if word not in _NO_CONTENT]


_CELSIUS = re.compile(
    r" ?(?:°|degrees?|grad|grados?|graus?|gradi|graden|stopni\w{0,2}|derece|градус\w{0,3}|度)? ?(?:celsius|centigrade|цельсия)\b",
    re.IGNORECASE,
)
_FAHRENHEIT = re.compile(
    r" ?(?:°|degrees?|grad|grados?|graus?|gradi|graden|stopni\w{0,2}|derece|градус\w{0,3}|度)? ?(?:fahrenheit|фаренгейта)\b",
    re.IGNORECASE,
)
_CELSIUS_FIRST = re.compile(r"(?:摄氏|摂氏|섭씨) ?(-?[0-9.,]{1,12}) ?(?:度|도)?")
_DOTTED_CLOCK = re.compile(r"(?<![0-9.])([01]?[0-9]|2[0-4])\.([0-5][0-9])(?![0-9.])")


def readable(part: str, ask: Ask) -> str:
    """Write LaTeX, degrees in words, and 16.30 where a time is asked for, as facts are read."""
    part = values.unlatex(part)
    if _TEMPERATURE.search(part):
        part = _FAHRENHEIT.sub(" °F", _CELSIUS.sub(" °C", _CELSIUS_FIRST.sub(r"\1 °C", part)))
    return _DOTTED_CLOCK.sub(r"\1:\2", part) if ask.clock else part


_TEMPERATURE = re.compile(r"celsius|fahrenheit|centigrade|цельсия|фаренгейта|摄氏|摂氏|섭씨", re.IGNORECASE)


def stem(word: str) -> str:
    """Cut the endings that most often tell forms of one English word apart."""
    for ending in ("ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word.endswith(("e", "y")) else word


_COPULA_ENDINGS = re.compile(
    r"(?:입니다|이에요|예요|이다|이었습니다|였습니다)$|'(?:[td][iıuü]r|in|ın|un|ün|nin|nın|nun|nün|da|de|ta|te)$"
)


def without_ending(word: str) -> str:
    """Cut the ending that makes a Korean or Turkish noun a sentence, or a genitive."""
    return _COPULA_ENDINGS.sub("", word) or word


def unspaced(text: str) -> bool:
    """Whether a text holds characters of a script that sets no spaces."""
    return any(map(_is_unspaced, text))


def apart(word: str) -> Iterator[str]:
    """Yield a word; of scripts without spaces each character."""
    if word.isascii() or not unspaced(word):
        yield word
        return
    run = ""
    for char in word:
        if _is_unspaced(char):
            if run := run.strip(_EDGES):
                yield run
            run = ""
            if char not in _EDGES and char != "・":
                yield char
        else:
            run += char
    if run := run.strip(_EDGES):
        yield run


def _is_unspaced(char: str) -> bool:
    """Whether a character is of a script that sets no spaces: Han, Kana, Thai, Lao, Khmer, Burmese."""
    code = ord(char)
    return (
        0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x9FFF
        or 0x0E00 <= code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x20000 <= code <= 0x3FFFF
    )


def letter_of_option(text: str) -> re.Match[str] | None:
    """Match the letter that a text begins with."""
    return _LETTER_FIRST.match(text)


_LETTER_FIRST = re.compile(
    r"[\s\"'*_({<$\[]{0,8}(?:(?:option|choice|letter)\s[(\"'*]{0,3})?(?P<letter>[A-Za-z])(?![\w'’])(?P<after>.{0,12})",
    re.IGNORECASE | re.DOTALL,
)


def _abbreviates(word: str | None, after: str) -> bool:
    if not word:
        return False
    folded = word.casefold()
    if folded in _BEFORE_NUMBERS and after[-1:].isdigit():
        return True
    return folded in _ABBREVIATIONS or (len(word) == 1 and word.isalpha())


def _marked_by(mark: re.Match[str], end: int) -> str:
    """Take what a mark marks: within its braces, in its quotes if it is a JSON key, else up to the end."""
    text = mark.string[mark.end() : end]
    groups = mark.re.groupindex
    if "key" in groups and mark["key"]:
        text = mark.string[mark.end() :]
        value = values.parse_json_start(text.lstrip())
        return text if value is None else value if isinstance(value, str) else values.dump_json(value)
    if "boxed" not in groups or not mark["boxed"]:
        return text
    depth, text = 1, mark.string[mark.end() : mark.end() + MAX_SENTENCE]
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if not depth:
            return text[:at]
    return text


def _options(query: str) -> tuple[dict[str, str], bool]:
    """Find the last complete list of options in any style; each option's text ends at its line's end.

    Returns:
        The options; and whether a question follows them, so that they may be something else.
    """
    best: dict[str, str] = {}
    follows = False
    for style in _OPTION_STYLES:
        runs: list[list[re.Match[str]]] = [[]]
        for match in style.finditer(query):
            run, letter = runs[-1], match[1].upper()
            starts_line = query[max(0, match.start() - 8) : match.start()].rpartition("\n")[2].strip() == ""
            if letter == chr(ord("A") + len(run)):
                run.append(match)
            elif letter == "A" and (starts_line or len(run) < 2):
                runs.append([match])
        run = next((run for run in reversed(runs) if len(run) > 1), [])
        if len(run) > len(best):
            ends = [match.start() for match in run[1:]] + [len(query)]
            texts = [query[match.end() : end].partition("\n")[0] for match, end in zip(run, ends, strict=True)]
            best = {match[1].upper(): plain(values.fold(text)) for match, text in zip(run, texts, strict=True)}
            rest = query[run[-1].end() + len(texts[-1]) :]
            follows = bool(re.search(r"\?", rest)) or bool(re.search(r"\bquestion\b", rest, re.IGNORECASE))
            follows = follows and not re.search(
                r"\b(?:option|letter|choice|choose|select|answer)\b", rest, re.IGNORECASE
            )
    return best, follows


_LABELS = ("123456789", "АБВГДЕЖ", "アイウエオカキ", "أبجدهوز", "甲乙丙丁戊", "①②③④⑤⑥⑦⑧⑨", "ABCDEFGH")
_LABELLED = re.compile(r"^[ \t(（【]{0,4}(\S)[ \t]?[)）】.．:：、]?[ \t]{0,4}(\S[^\n]{0,400})$", re.MULTILINE)
_CHOOSES = re.compile(r"\b(?:pick|choose|select|which|correct|option|best)\b")


def _labelled_options(query: str) -> dict[str, str]:
    """Find options on lines of their own whose labels are digits, or letters of other scripts; labels as they are cleaned."""
    lines = [(match[1], match[2]) for match in _LABELLED.finditer(query[-_MAX_QUERY:])]
    for labels in _LABELS:
        run: list[tuple[str, str]] = []
        for label, text in lines:
            if len(run) < len(labels) and label == labels[len(run)]:
                run.append((label, text))
            elif label == labels[0]:
                run = [(label, text)]
        if len(run) < 3 or (labels[0] in "1A" and not _CHOOSES.search(values.fold(query))):
            continue
        return {values.clean(label): plain(values.fold(text)) for label, text in run}
    return {}


def _choices(folded: str, questions: list[str], *, prose: bool, foreign: bool) -> tuple[str, ...]:
    if _ASKS_TRUE_FALSE.search(folded):
        return ("true", "false")
    _, listed, after = folded.rpartition("options:\n")
    if listed:
        bullets = [line for line in after.split("\n") if line.startswith(("- ", "* ", "• "))]
        return tuple(dict.fromkeys(plain(line[2:]) for line in bullets[:_MAX_CHOICES]))
    for match in reversed(list(_LISTED_CHOICES.finditer(folded))[-4:]):
        if len(found := _separated(match["listed"])) > 1:
            return found
    if (
        (aside := _ASIDE.search(folded))
        and len(found := _separated(aside["listed"])) > 1
        and not any(map(str.isdigit, aside[0]))
    ):
        return found
    for sentence in questions:
        ends = _COLON_LIST.search(sentence)
        if ends and len(found := _separated(ends["listed"])) > 2 and not any(map(str.isdigit, ends["listed"])):
            return found
    if prose:
        return ()
    for sentence in questions:
        if found := _alternatives(sentence, foreign=foreign):
            return found
    return ()


def _alternatives(sentence: str, *, foreign: bool) -> tuple[str, ...]:
    """Find the alternatives of "a, b or c" in a folded sentence."""
    unspaced = _OR_UNSPACED.search(sentence) or _OR_ASKED_TWICE.search(sentence)
    if unspaced:
        first, last = unspaced["first"], unspaced["last"]
        return tuple(dict.fromkeys((first[-len(last) :], last))) if len(first) >= len(last) else ()
    separator = _OR if not foreign else _OR_SHORT if _WRITES_O.search(sentence) else _OR_ELSEWHERE
    ors = list(separator.finditer(sentence))
    if not ors:
        return ()
    before, after = sentence[: ors[-1].start()], sentence[ors[-1].end() :]
    raw = re.split(r"[,;:?!)«»\"]|\. |\.$", after)[0].split()
    last = _without_articles(list(_until(raw, _CUTS)))
    size = len(last)
    pieces = [piece for piece in re.split(r"[,;:(] ?", separator.sub(",", before)) if piece.strip()]
    if not 1 <= size <= 4 or not pieces:
        return ()
    if last[0] in NEGATIONS:  # "spam or not spam"
        same = plain(" ".join(last[1:]))
        return (same, f"{last[0]} {same}") if same and f" {same} " in f" {plain(before)} " else ()
    own = pieces[-1].split()
    while own and own[-1] in _COPULAS:
        own.pop()
    at = max((i for i, word in enumerate(own) if word in _ARTICLES), default=-1)
    if at >= 0 and 0 < len(own) - at - 1 < size and own[-1] == last[-1]:  # "a planet or a dwarf planet"
        own = own[at + 1 :]
    elif at >= 0 and 0 < len(own) - at - 1 < size:  # "the active or the passive voice": one noun for both
        size = len(own) - at - 1
        last = last[:size]
    chosen = [plain(" ".join(own[-size:]))]
    for piece in reversed(pieces[:-1]):
        words = _without_articles(plain(piece).split())
        if len(words) > size:
            if (words[0] in _TELLING and len(words) - size <= 3) or (
                words[0] in _FIRST_VERBS and re.search(r"[,;]", before)
            ):
                chosen.append(" ".join(words[-size:]))
            break
        chosen.append(" ".join(words))
    distinct = tuple(dict.fromkeys((*reversed(chosen), plain(" ".join(last)))))
    return distinct if len(distinct) > 1 and all(distinct) else ()


def _until(words: list[str], ends: frozenset[str]) -> Iterator[str]:
    for at, word in enumerate(words):
        if at and word in ends:
            return
        yield word


def _without_articles(words: list[str]) -> list[str]:
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    while len(words) > 1 and words[-1] in _COPULAS:
        words = words[:-1]
    return words


def _separated(listed: str) -> tuple[str, ...]:
    """Split a list of alternatives at commas, slashes, bars or semicolons; empty where a piece is no short label."""
    pieces = [plain(re.sub(r"^(?:and|or) ", "", piece.strip())) for piece in re.split(r"[,;/|]| or ", listed)]
    pieces = [piece for piece in pieces if piece]
    if not all(len(piece.split()) <= 4 for piece in pieces):
        return ()
    return tuple(dict.fromkeys(pieces[:_MAX_CHOICES]))
