"""Templates: how each embedded model is prompted, as the Jinja chat template of its server.

A request picks a style with `chat_template_kwargs={"style": ...}`: `plain` (also where none is given), `few_shot` (a few
solved questions come first) or `steps` (solved questions whose answers give a reason first). System messages and several
turns keep working in each. No solved question is one of the questions that the shipped policy is trained or tested on.
"""

import json

EXAMPLES: tuple[tuple[str, str, str], ...] = (
    ("What is the capital of Japan? Answer with the name of the city.", "The seat of Japan's government is Tokyo.", "Tokyo"),
    ("Is a whale bigger than a mouse? Answer yes or no.", "A whale is huge and a mouse is tiny.", "Yes"),
    ("What is 20 + 10? Answer with a number.", "Adding 10 to 20 makes 30.", "30"),
    ("Which is heavier, a car or a pen? Answer with one word.", "A car weighs a ton, a pen weighs grams.", "car"),
    (
        'Is this review positive or negative? "A wonderful evening, thank you." Answer with one word.',
        "Wonderful is a word of praise.",
        "positive",
    ),
    ("Do snakes have legs? Answer yes or no.", "Snakes have no limbs at all.", "No"),
    (
        "Which of these is used to write?\nA) pencil\nB) cloud\nC) soup\nAnswer with the letter A, B or C.",
        "A pencil is used to write, and it is option A.",
        "A",
    ),
    ("What is the opposite of above? Answer with one word.", "If something is not above, it is below.", "below"),
)
"""Solved questions: question, reason, answer."""

_HEAD = """\
{%- set style = style | default('plain') -%}
{%- set solved = EXAMPLES -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set system = messages[0].content -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
"""

_SMOLLM2 = """\
{%- if system -%}
{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' -}}
{%- endif -%}
{%- if style != 'plain' -%}
{%- for example in solved -%}
{{- '<|im_start|>user\\n' + example[0] + '<|im_end|>\\n<|im_start|>assistant\\n' -}}
{%- if style == 'steps' -%}{{- example[1] + ' Answer: ' -}}{%- endif -%}
{{- example[2] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- endif -%}
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
{%- if style != 'plain' -%}
{%- for example in solved -%}
{{- 'Question: ' + example[0] + '\\nAnswer: ' -}}
{%- if style == 'steps' -%}{{- example[1] + ' Answer: ' -}}{%- endif -%}
{{- example[2] + '\\n\\n' -}}
{%- endfor -%}
{%- endif -%}
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
    return _HEAD.replace("EXAMPLES", json.dumps(EXAMPLES)) + _SMOLLM2


def gemma3_template() -> str:
    """Return the chat template of Gemma 3 270M, a base model: a list of questions and answers to be continued."""
    return _HEAD.replace("EXAMPLES", json.dumps(EXAMPLES)) + _GEMMA3
