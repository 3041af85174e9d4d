"""Styles: how each embedded model is prompted, as the Jinja chat template of its server.

A request picks a style with `chat_template_kwargs={"style": ...}`; without one, or with `plain`, nothing is added. Every
other style puts its solved questions before the conversation; they teach the model a form, and lean it towards their
kinds of question, so that members of one model err on different ones. System messages and several turns keep working. No
solved question is one of those that the shipped policy is trained or tested on.
"""

import json
from collections.abc import Mapping

_WORD = "Answer with one word."
_NUMBER = "Answer with a number."
_LETTER = "Answer with one letter."
_YES_NO = "Answer yes or no."
_OPTION = "Answer with the letter A, B or C."

STYLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "plain": (),
    "few_shot": (
        ("What is the capital of Japan? Answer with the name of the city.", "Tokyo"),
        (f"Are stones softer than butter? {_YES_NO}", "no"),
        (f"What color is an orange? {_WORD}", "orange"),
        (f"What is the opposite of light? {_WORD}", "dark"),
        (f'Is this review positive or negative? "The soup was salty and cold." {_WORD}', "negative"),
        (f"Which is taller, a tower or a flower? {_WORD}", "tower"),
        (f"Is a rose a flower? {_YES_NO}", "yes"),
        (f"Is a table a vehicle, a plant or a piece of furniture? {_WORD}", "furniture"),
        (f"Which animal eats bananas and climbs trees? {_WORD}", "monkey"),
        (f'Is this review negative or positive? "A wonderful evening, thank you." {_WORD}', "positive"),
        (f"How many wheels does a truck have? {_NUMBER}", "6"),
        (f'What is the first letter of the word "basket"? {_LETTER}', "b"),
    ),
    "words": (
        (f"What is the opposite of above? {_WORD}", "below"),
        (f'What is the plural of "tree"? {_WORD}', "trees"),
        (f'What is the past tense of "look"? {_WORD}', "looked"),
        (f'What is the first letter of the word "basket"? {_LETTER}', "b"),
        (f"What is the opposite of light? {_WORD}", "dark"),
        (f'What is the past tense of "begin"? {_WORD}', "began"),
        (f'What is the last letter of the word "sofas"? {_LETTER}', "s"),
        (f'What is the plural of "enemy"? {_WORD}', "enemies"),
        (f"What is a young elephant called? {_WORD}", "calf"),
        (f"What comes next: P, Q, R, ...? {_LETTER}", "S"),
    ),
    "choices": (
        (f"Which of these is used to write?\nA) soup\nB) a pencil\nC) a cloud\n{_OPTION}", "B"),
        (f"Is a table a vehicle, a plant or a piece of furniture? {_WORD}", "furniture"),
        (f"Where do children learn?\nA) in a pond\nB) on the moon\nC) at school\n{_OPTION}", "C"),
        (f"Which is taller, a tower or a flower? {_WORD}", "tower"),
        (f"Which of these is a drink?\nA) tea\nB) a sock\nC) a lamp\n{_OPTION}", "A"),
        (f'Is this review negative or positive? "The soup was salty and cold." {_WORD}', "negative"),
        (f"Is a feather heavy? {_YES_NO}", "no"),
        (f'Is this review positive or negative? "A wonderful evening, thank you." {_WORD}', "positive"),
    ),
    "steps": (
        (
            f"Is a table a vehicle, a plant or a piece of furniture? {_WORD}",
            "A table is a piece of furniture. Answer: furniture",
        ),
        (f"What is the opposite of above? {_WORD}", "The opposite of above is below. Answer: below"),
        (f"Which is taller, a tower or a flower? {_WORD}", "A tower is taller than a flower. Answer: tower"),
        (f"What is 2 + 12? {_NUMBER}", "2 + 12 = 14. Answer: 14"),
        (f"What comes next: P, Q, R, ...? {_LETTER}", "P, Q, R, S. Answer: S"),
        (f"What comes next: 1, 3, 5, 7, ...? {_NUMBER}", "1, 3, 5, 7, 9. Answer: 9"),
        (f"What is 10 - 4? {_NUMBER}", "10 - 4 = 6. Answer: 6"),
        (f"What comes next: 40, 39, 38, 37, ...? {_NUMBER}", "40, 39, 38, 37, 36. Answer: 36"),
    ),
}
"""The solved questions of each style, with their answers."""

_HEAD = """\
{%- set styles = STYLES -%}
{%- set style = style | default('plain') -%}
{%- if style not in styles -%}
{{- raise_exception('`style` must be one of NAMES, got ' + style + '.') -}}
{%- endif -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set system = messages[0].content -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
"""

_SMOLLM2 = """\
{{- '<|im_start|>system\\n' + (system or 'Answer with as few words as possible.') + '<|im_end|>\\n' -}}
{%- for question, answer in styles[style] -%}
{{- '<|im_start|>user\\n' + question + '<|im_end|>\\n<|im_start|>assistant\\n' + answer + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- for turn in turns -%}
{{- '<|im_start|>' + turn.role + '\\n' + (turn.content or '') + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_GEMMA3 = """\
{%- if system -%}
{{- system + '\\n\\n' -}}
{%- endif -%}
{%- for question, answer in styles[style] -%}
{{- 'Question: ' + question + '\\nAnswer: ' + answer + '\\n\\n' -}}
{%- endfor -%}
{%- for turn in turns -%}
{%- if turn.role == 'assistant' -%}
{{- 'Answer: ' + (turn.content or '') + '\\n\\n' -}}
{%- else -%}
{{- 'Question: ' + (turn.content or '') + '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- 'Answer:' -}}
{%- endif -%}
"""


def smollm2_template() -> str:
    """Return the chat template of SmolLM2-135M-Instruct: ChatML, the solved questions as earlier turns."""
    return _head() + _SMOLLM2


def gemma3_template() -> str:
    """Return the chat template of Gemma 3 270M, a base model: a list of questions and answers to be continued."""
    return _head() + _GEMMA3


def _head() -> str:
    """Return the start of both templates: the solved questions as Jinja literals, and the system message apart."""
    return _HEAD.replace("STYLES", json.dumps(dict(STYLES))).replace("NAMES", ", ".join(STYLES))
