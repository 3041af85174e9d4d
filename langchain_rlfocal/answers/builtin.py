"""The kinds of this package, by name."""

from langchain_rlfocal.answers.automatic import LIST, Auto
from langchain_rlfocal.answers.choices import Choice, Option, YesNo
from langchain_rlfocal.answers.code import Code
from langchain_rlfocal.answers.kinds import Kind
from langchain_rlfocal.answers.mathematics import Math
from langchain_rlfocal.answers.objects import Json, ToolCalls
from langchain_rlfocal.answers.texts import Date, Exact, LongText, Number, Quantity, ShortText

BUILT_IN: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Auto(),
        Exact(),
        Option(),
        Number(),
        Quantity(),
        Date(),
        Math(),
        YesNo(),
        Choice(),
        LIST,
        Code(),
        Json(),
        ToolCalls(),
        ShortText(),
        LongText(),
    )
}
