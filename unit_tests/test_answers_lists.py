"""Lists: which answers of several items are the same, which are not, and what is no list at all."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.answers.lists import List, ListAnswer, asks_for_list, asks_for_order, find_list

FRUITS = "List three fruits."
PRESIDENTS = "List the first three US presidents."
TABLE = "| City | People |\n|---|---|\n| Rome | 2.8 |\n| Oslo | 0.7 |"
ONE_TWO_THREE = "1. Washington\n2. Adams\n3. Jefferson"

THE_SAME = [
    (FRUITS, "- apple\n- pear\n- fig", "- fig\n- apple\n- pear"),
    (FRUITS, "- apple\n- pear\n- fig", "* Apple\n* Pear.\n* Fig"),
    (FRUITS, "- apple\n- pear\n- fig", "• **apple**\n• *pear*\n• a fig"),
    (FRUITS, "- apple\n- pear\n- fig", "apple, pear and fig"),
    (FRUITS, "- apple\n- pear\n- fig", "Apple; pear; fig."),
    (FRUITS, "- apple\n- pear\n- fig", "apple\npear\nfig"),
    (FRUITS, "- apple\n- pear\n- fig", "Sure! Here are 3 fruits:\n\n- apple\n- pear\n- fig\n\nEnjoy your meal!"),
    (FRUITS, "- apple\n- pear\n- fig", "# Three fruits\n\n- apple\n\n- pear\n\n- fig"),
    (
        FRUITS,
        "- apple\n- pear\n- fig",
        "<think>1. plum</think>\n- apple\n- pear\n- fig",
    ),
    (FRUITS, "- apple\n- pear\n- fig", "<thinking>1. plum</thinking>\n- apple\n- pear\n- fig"),
    (FRUITS, "- apple\n- pear\n- fig", "1. apple\n2. pear\n3. fig"),
    ("Just the names of three fruits.", "- apple\n- pear\n- fig", "- apple: a fruit\n- pear: sweet\n- fig: soft"),
    ("List fruits, no explanations.", "- apple\n- pear", "- apple (a fruit)\n- pear (sweet)"),
    (FRUITS, "- apple\n- pear\n- fig", "The fruits are apple, pear and fig."),
    (PRESIDENTS, ONE_TWO_THREE, "1) washington\n2) adams\n3) jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, "(1) Washington\n(2) Adams\n(3) Jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, "a. Washington\nb. Adams\nc. Jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, "i. Washington\nii. Adams\niii. Jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, "1. Washington\n1. Adams\n1. Jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, "- Washington\n- Adams\n- Jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, "Washington, Adams, Jefferson"),
    (PRESIDENTS, ONE_TWO_THREE, '["Washington", "Adams", "Jefferson"]'),
    (PRESIDENTS, ONE_TWO_THREE, "```json\n['Washington', 'Adams', 'Jefferson']\n```"),
    (PRESIDENTS, ONE_TWO_THREE, "| # | Name |\n|---|---|\n| 1 | Washington |\n| 2 | Adams |\n| 3 | Jefferson |"),
    (PRESIDENTS, ONE_TWO_THREE, "① Washington\n② Adams\n③ Jefferson"),
    ("Compare the cities.", TABLE, "Here you are:\n\n" + TABLE.replace("---", ":-----:")),
    ("Compare the cities.", TABLE, "|City|People|\n|-|-|\n|Oslo|0.7|\n|Rome|2.8|"),
    ("Describe him.", "Name: Bob\nAge: 3", "**Age:** 3\n**Name:** Bob"),
    ("Describe him.", "Name: Bob\nAge: 3", "| Name | Age |\n|---|---|\n| Bob | 3 |"),
    ("What are the first five primes?", "2, 3, 5, 7, 11", "2,3,5,7,11"),
    ("Nenne drei Farben.", "- rot\n- grün\n- blau", "Rot, blau und grün"),
    ("Which types?\nList them.", "`tuple` and `str`", "- tuple\n- str"),
    ("Which factors does 30 have?", "2, 3, 5", "The factors of 30 are 2, 3, and 5."),
    ("Nombra las estaciones.", "primavera, verano, otoño e invierno", "Primavera, verano, otoño, invierno"),
    ("Put these in order: walk, crawl.", "1) Crawl\n2) Walk", "crawl, walk"),
    ("List the drugs.", "- metoprolol 50 mg\n- ramipril 5 mg", "- Metoprolol, 50 mg\n- Ramipril, 5 mg"),
    ("列出三种水果", "苹果、香蕉和橙子", "1. 苹果\n2. 香蕉\n3. 橙子"),
    ("List the rules.", "- Wash – always\n- Dry", "- Wash: always\n- Dry"),
]

DIFFERENT = [
    ("Name the capitals of the north.", "- Norway: Oslo\n- Iceland: Reykjavik", "- Norway: Bergen\n- Iceland: Reykjavik"),
    (PRESIDENTS, ONE_TWO_THREE, "1. Washington\n2. Jefferson\n3. Madison"),  # one item
    (PRESIDENTS, ONE_TWO_THREE, "1. Washington\n2. Adams"),  # one missing
    (PRESIDENTS, ONE_TWO_THREE, "1. Adams\n2. Washington\n3. Jefferson"),  # the order
    (PRESIDENTS, ONE_TWO_THREE, "3. Washington\n2. Adams\n1. Jefferson"),  # numbers that say another order
    (PRESIDENTS, "- Washington\n- Adams\n- Jefferson", "- Adams\n- Washington\n- Jefferson"),  # the query asks for it
    (FRUITS, "1. apple\n2. pear\n3. fig", "1. pear\n2. apple\n3. fig"),
    (FRUITS, "- apple\n- pear\n- fig", "- apple\n- apple\n- fig"),  # multisets
    (FRUITS, "- apple\n- pear\n- fig", "- apple\n- pear\n- fig\n- plum"),
    (FRUITS, "- apple\n- pear\n- fig", "- apple\n- pear\n- fig\n\nBut not the pear."),
    (FRUITS, "- apple\n- pear\n- fig", "These are not fruits:\n- apple\n- pear\n- fig"),
    (FRUITS, "- apple (1 euro)\n- pear (2 euro)", "- apple (2 euro)\n- pear (1 euro)"),
    (FRUITS, "- 5 apples\n- pear", "- -5 apples\n- pear"), (FRUITS, "- 6'\n- pear", '- 6"\n- pear'),
    (FRUITS, "- .5\n- pear", "- 5\n- pear"), (FRUITS, "- no, apples\n- pear", "- no apples\n- pear"),
    (FRUITS, "- 1, 5\n- pear", "- 1 5\n- pear"), (FRUITS, "- `id`\n- pear", "- `ID`\n- pear"),
    (FRUITS, "- 5!\n- pear", "- 5\n- pear"), ("Compare the cities.", TABLE, TABLE.replace("0.7", "0.8")),  # one number in a cell
    ("Compare the cities.", TABLE, TABLE.replace("People", "Area")),
    ("Compare the cities.", TABLE, "| City | People |\n|---|---|\n| Rome | 0.7 |\n| Oslo | 2.8 |"),
    ("Describe him.", "Name: Bob\nAge: 3", "Name: Bob\nAge: 4"),
    ("Describe him.", "Name: Bob\nAge: 3", "Name: Tom\nAge: 3"),
    ("What are the first five primes?", "2, 3, 5, 7, 11", "2, 3, 5, 7, 13"),
    ("List the sizes.", "1,234 and 5", "1, 234 and 5"),
    ("List two presidents and why.", "- Adams: first\n- Polk: last", "- Adams: last\n- Polk: first"),
    ("Who won?", "Bob, because:\n- he ran\n- he slept", "Amy, because:\n- he ran\n- he slept"),
    ("Who won?", "- he ran\n- he slept\n\nSo Bob.", "- he ran\n- he slept\n\nSo Amy."),
    ("List pros.", "## Pros\n- fast\n## Cons\n- dear", "## Pros\n- dear\n## Cons\n- fast"),
    ("List groups.", "- Fruits\n  - apple\n- Roots\n  - beet", "- Fruits\n  - beet\n- Roots\n  - apple"),
    ("List the flags.", "- `-l`\n- `-a`", "- `-L`\n- `-a`"), ("List the names.", "- `__init__`\n- x", "- `init`\n- x"),
    ("Name the ages.", "Bob is 5, Amy is 6", "Tom is 5, Amy is 6"), ("What does it print?", "[1, 2]", "[2, 1]"),
    (FRUITS, "- not apple\n- pear", "- apple\n- pear"),
    ("List the states.", "- [x] done\n- [ ] open", "- [ ] done\n- [ ] open"),
    ("List the steps.", "1. mix\n   for 5 minutes\n2. bake", "1. mix\n   for 9 minutes\n2. bake"),
    ("List the steps.", "1. mix\n\nWait 5 minutes.\n\n2. bake", "1. mix\n\nWait 9 minutes.\n\n2. bake"),
    ("List equations.", "- x - 1\n- y", "- x: 1\n- y"),
]  # fmt: skip

NO_LISTS = [
    "", "Paris", "1. Paris", "- Paris", "It is 3.14 - 2. That is all, and no more.", "J. Smith\nK. Jones",
    "Reasoning: it is so\nAnswer: 5", "x = 4 - 2\nx = 2", "---\n***\n* * *", "(3, 4)", "[[1, 2], [3, 4]]", '{"a": 1}',
]  # fmt: skip


@pytest.mark.parametrize(("query", "a", "b"), THE_SAME)
def test_lists_of_the_same_items_are_the_same(query, a, b):
    x, y = List().read(a, query), List().read(b, query)
    assert x is not None
    assert y is not None
    assert List().same(x, y)
    assert List().same(y, x)
    if x.ordered == y.ordered:
        assert List().write(x) == List().write(y)


@pytest.mark.parametrize(("query", "a", "b"), DIFFERENT)
def test_lists_that_differ_in_one_thing_differ(query, a, b):
    x, y = List().read(a, query), List().read(b, query)
    assert x is not None
    assert y is not None
    assert not List().same(x, y)
    assert not List().same(y, x)
    assert List().write(x) != List().write(y)


@pytest.mark.parametrize("text", NO_LISTS)
def test_what_is_no_list_is_none(text):
    assert List().read(text, "What is it?") is None


@pytest.mark.parametrize("text", ["red, green and blue", "red\ngreen\nblue"])
def test_parts_of_a_line_and_bare_lines_are_items_only_where_a_list_is_asked_for(text):
    assert find_list(text) is None
    assert find_list(text, commas=True) == ListAnswer(("red", "green", "blue"), numbered=False)


def test_a_list_keeps_the_text_around_it():
    found = find_list("Two of them:\n1. **a**\n2. [b](https://x.org)\n\nThat is all.")
    assert found == ListAnswer(("a", "b"), numbered=True, lead="Two of them:", tail="That is all.")


def test_a_table_gives_rows_or_the_cells_of_its_one_row():
    assert find_list(TABLE).items == ("City: Rome | People: 2.8", "City: Oslo | People: 0.7")
    assert find_list("| City |\n|---|\n| Rome |\n| Oslo |").items == ("Rome", "Oslo")
    assert find_list("| City | People |\n|---|---|\n| Rome | 2.8 |").items == ("City: Rome", "People: 2.8")
    assert find_list("| City |\n|---|\n| Rome |").items == ("Rome",)


def test_an_explanation_counts_where_it_states_a_number_or_where_one_item_has_none():
    plain = List().read("- Adams\n- Polk", "Only the names of two presidents.")
    dated = List().read("- Adams (1797)\n- Polk (1845)", "Only the names of two presidents.")
    other = List().read("- Adams (1796)\n- Polk (1845)", "Only the names of two presidents.")
    half = List().read("- Adams (a lawyer)\n- Polk", "Only the names of two presidents.")
    assert not any(List().same(a, b) for a, b in [(plain, dated), (dated, other), (plain, half)])


def test_items_may_be_compared_by_a_function():
    kind = List(lambda a, b: a[0] == b[0])
    x, y, z = (kind.read(text, FRUITS) for text in ("- ab\n- cd", "- cx\n- ay", "- ab\n- dd"))
    assert kind.same(x, y)
    assert not kind.same(x, z)


def test_each_item_is_paired_with_one_of_its_own():
    """p~x, p~y, q~x: the pairing p-y, q-x exists although the first choice p-x leaves q alone."""
    alike = {("p", "x"), ("p", "y"), ("q", "x")}
    kind = List(lambda a, b: (a, b) in alike or (b, a) in alike)
    x, y = kind.read("- p\n- q", FRUITS), kind.read("- x\n- y", FRUITS)
    assert kind.same(x, y)
    assert kind.same(y, x)
    assert not kind.same(kind.read("- p\n- p", FRUITS), kind.read("- x\n- x\n- y", FRUITS))


@pytest.mark.parametrize(
    "query",
    [
        "List three fruits.", "Name three US presidents.", "Which countries border Portugal?",
        "What are the primary colours?", "Who were the first five presidents?", "Please list all planets.",
        "Give me five names for a dog", "What are the top 10 movies?", "Nenne drei Flüsse.", "列出三种水果",
    ],
)  # fmt: skip
def test_queries_that_ask_for_several_things(query):
    assert asks_for_list(query)


@pytest.mark.parametrize(
    "query",
    [
        "What is the sum of the list [1, 2, 3]?", "Is the list sorted?", "What is the capital of France?",
        "Who are you?", "How does a list comprehension work?", "",
    ],
)  # fmt: skip
def test_queries_that_ask_for_one_thing(query):
    assert not asks_for_list(query)


def test_queries_that_ask_for_an_order():
    assert all(
        map(asks_for_order, ["Rank them.", "the three largest lakes", "the steps to bake", "Sortiere", "按顺序"])
    )
    assert not any(map(asks_for_order, ["List three fruits.", "Which countries border Spain?", ""]))


def test_labels_are_short_and_tell_long_lists_apart():
    items = [f"- item {number} with | and // in it" for number in range(500)]
    a, b = (List().read("\n".join([*items, last]), "") for last in ("- x", "- y"))
    assert len(List().write(a)) < 350
    assert List().write(a) != List().write(b)
    assert List().write(a).isprintable()


@pytest.mark.parametrize(
    "text",
    ["- a\n" * 30_000, "# " * 45_000, "- x" + "\n  y" * 20_000 + "\n- z", "| a " * 20_000 + "\n" + "|-" * 20_000, "[1," * 30_000,
     "**" * 45_000, "a, " * 30_000, "a: b\n" * 18_000, " " * 90_000, "- \ud800\n- \x00"],
)  # fmt: skip
def test_any_text_is_read_in_little_time(text):
    start = time.process_time()
    for asked in ("List things", text):
        value = List().read(text, asked)
        if value is not None:
            assert List().same(value, value)
            List().write(value)
    assert time.process_time() - start < 5


@given(st.text(alphabet="ab1. -*•|:\n,;()[]'\"`#é½ \ud800", max_size=80), st.sampled_from(["", FRUITS, "Rank them."]))
def test_reading_never_raises_and_is_the_same_as_itself(text, query):
    value = List().read(text, query)
    assert value == List().read(text, query)
    if value is not None:
        assert List().same(value, value)
        assert hash(value) == hash(List().read(text, query))
        assert 0 < len(List().write(value)) < 350


@given(
    st.lists(st.sampled_from(["apple", "pear", "5 figs", "-5 figs", "no plum"]), min_size=2, max_size=6), st.randoms()
)
def test_shuffled_bullets_are_the_same_and_shuffled_numbers_only_if_nothing_moved(items, rng):
    mixed = rng.sample(items, len(items)) if isinstance(rng, random.Random) else items
    bullets = [List().read("\n".join(f"- {item}" for item in each), FRUITS) for each in (items, mixed)]
    numbers = [
        List().read("\n".join(f"{at}. {item}" for at, item in enumerate(each, 1)), FRUITS) for each in (items, mixed)
    ]
    assert List().same(*bullets)
    assert List().same(*numbers) == (items == mixed)
