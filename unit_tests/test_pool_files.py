"""Pool files: what they may hold, what becomes of it, and what is said of a file that breaks a rule."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from langchain_openai import ChatOpenAI

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.demo import pool as demo_pool
from langchain_rlfocal.errors import CheckpointError, MissingDependencyError, PoolError
from langchain_rlfocal.pool_files import MAX_FILE_BYTES, pool_schema, read_pool

SCHEMA_FILE = Path(__file__).parents[1] / "docs/reference/pool.schema.json"
KEY = "sk-" + "a1" * 12

WHOLE = """
# yaml-language-server: $schema=pool.schema.json
members:
  small: &small
    model: openai:gpt-4.1-nano
    api_key_env: MY_KEY
    parameters: {temperature: 1e-3, reasoning_effort: low}
    usd_per_million: {input: 0.05, cached_input: 0.005, cache_write: 0.06, output: 0.4, reasoning: 0.5}
    timeout_s: 20
    concurrency: 8
    competence: 0.7
  thorough:
    <<: *small
    parameters: {reasoning_effort: high}
  no:
    class: langchain_openai:ChatOpenAI
    base_url: http://127.0.0.1:${PORT}/v1
    headers: {X-Gateway: "Bearer ${MY_KEY}", X-Plain: "$${PORT}"}
    parameters: {model: qwen3, api_key: none}
"""

WHOLE_TOML = """
[members.small]
model = "openai:gpt-4.1-nano"
api_key_env = "MY_KEY"
parameters = { temperature = 1e-3, reasoning_effort = "low" }
usd_per_million = { input = 0.05, cached_input = 0.005, cache_write = 0.06, output = 0.4, reasoning = 0.5 }
timeout_s = 20
concurrency = 8
competence = 0.7

[members.thorough]
model = "openai:gpt-4.1-nano"
api_key_env = "MY_KEY"
parameters = { reasoning_effort = "high" }
usd_per_million = { input = 0.05, cached_input = 0.005, cache_write = 0.06, output = 0.4, reasoning = 0.5 }
timeout_s = 20
concurrency = 8
competence = 0.7

[members.no]
class = "langchain_openai:ChatOpenAI"
base_url = "http://127.0.0.1:${PORT}/v1"

[members.no.parameters]
model = "qwen3"
api_key = "none"

[members.no.headers]
X-Gateway = "Bearer ${MY_KEY}"
X-Plain = "$${PORT}"
"""

MINE = """
from langchain_rlfocal.testing import ScriptedChatModel

class Echo(ScriptedChatModel):
    script: object = ["echo"]

class Faulty:
    def __init__(self, **settings):
        raise ValueError(f"api_key={settings['token']} is refused")

def number():
    return 7
"""


@pytest.fixture(autouse=True)
def environment(folder, monkeypatch):
    """An empty working folder with a module of the user's, and two variables."""
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.syspath_prepend(folder)
    Path("my_models.py").write_text(MINE)


def read(text, name="pool.yaml"):
    Path(name).write_text(text)
    return read_pool(name)


def refused(text, name="pool.yaml"):
    with pytest.raises(PoolError) as caught:
        read(text, name)
    said = str(caught.value)
    assert said.splitlines() == [said]
    assert KEY not in said
    return said


def member(*lines, name="small"):
    """A file with one member: the key lines of its entry."""
    return "\n".join(["members:", f"  {name}:", *(f"    {line}" for line in lines)])


# ---- what becomes of it


@pytest.mark.parametrize(("text", "name"), [(WHOLE, "pool.yaml"), (WHOLE, "pool.YML"), (WHOLE_TOML, "pool.toml")])
def test_a_file_says_everything_of_its_members_in_their_order(text, name):
    pool = read(text, name)
    assert pool.names == ("small", "thorough", "no")
    small, thorough, no = (each.model for each in pool)
    assert {type(model) for model in (small, thorough, no)} == {ChatOpenAI}
    assert (small.model_name, small.temperature, small.reasoning_effort) == ("gpt-4.1-nano", 0.001, "low")
    assert thorough.reasoning_effort == "high"
    assert small.openai_api_key.get_secret_value() == KEY
    for one in (pool["small"], pool["thorough"]):
        prices = (one.input_usd_per_mtok, one.cached_input_usd_per_mtok, one.output_usd_per_mtok)
        assert (*prices, one.reasoning_usd_per_mtok) == (0.05, 0.005, 0.4, 0.5)
        assert one.cache_write_usd_per_mtok == 0.06
        assert (one.timeout_s, one.max_concurrent_calls, one.competence) == (20, 8, 0.7)
    assert (no.model_name, no.openai_api_base) == ("qwen3", "http://127.0.0.1:8080/v1")
    assert no.default_headers == {"X-Gateway": f"Bearer {KEY}", "X-Plain": "${PORT}"}
    assert (pool["no"].input_usd_per_mtok, pool["no"].timeout_s, pool["no"].competence) == (None, None, 0.5)


def test_json_is_read_too():
    entries = {"$schema": "pool.schema.json", "members": {"a": {"class": "my_models:Echo"}}}
    assert read(json.dumps(entries, indent=2), "pool.json")["a"].model.invoke("?").text == "echo"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_a_mark_of_its_encoding(encoding):
    Path("pool.yaml").write_text(member("class: my_models:Echo", name="zürich"), encoding=encoding)
    assert read_pool("pool.yaml").names == ("zürich",)


def test_names_that_yaml_once_took_for_something_else_are_names():
    names = ["no", "yes", "on", "1.5", "2024-01-01", "12:30", "null", "0x1f"]
    text = "members:\n" + "\n".join(f"  {name}: {{class: my_models:Echo}}" for name in names)
    assert read(text).names == tuple(names)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.5", -0.5),
        ("true", True),
        ("~", None),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("!!str 5", "5"),
        ("'5'", "5"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_are_read_as_in_yaml_1_2(written, value):
    model = read(
        member("model: openai:gpt-4.1", "api_key_env: MY_KEY", "parameters:", f"  metadata: {{at: {written}}}")
    )
    assert model["small"].model.metadata["at"] == value
    assert type(model["small"].model.metadata["at"]) is type(value)


def test_an_entry_takes_what_it_merges_only_where_it_says_nothing_itself():
    text = """
members:
  a: &a {class: my_models:Echo, competence: 0.1, timeout_s: 1}
  b: &b {class: my_models:Echo, competence: 0.2, concurrency: 2}
  c:
    competence: 0.3
    <<: [*b, *a]
"""
    c = read(text)["c"]
    assert (c.competence, c.timeout_s, c.max_concurrent_calls) == (0.3, 1, 2)


def test_a_key_of_openai_goes_to_no_other_server(monkeypatch):
    """Where an address is given without a key, the provider's own variable is not for it; with `api_key_env` it is."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = member("model: openai:qwen3", "base_url: http://127.0.0.1:1/v1")
    assert read(text)["small"].model.openai_api_key.get_secret_value() == "none"
    asked = read(f"{text}\n    api_key_env: OPENAI_API_KEY")
    assert asked["small"].model.openai_api_key.get_secret_value() == KEY
    at_home = read(member("model: openai:gpt-4.1"))
    assert at_home["small"].model.openai_api_key.get_secret_value() == KEY


def test_another_provider_goes_through_init_chat_model():
    pytest.importorskip("langchain", reason="langchain is optional")
    pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is optional")
    lines = ("model: anthropic:claude-haiku-4-5", "api_key_env: MY_KEY", "parameters: {max_tokens: 99}")
    model = read(member(*lines))["small"].model
    assert (type(model).__name__, model.max_tokens) == ("ChatAnthropic", 99)
    assert model.anthropic_api_key.get_secret_value() == KEY


# ---- embedded models


@pytest.fixture
def embedded(monkeypatch):
    """The embedded pool without its servers; counts how often it was started, and closed."""

    class Pool:
        started = closed = 0

        def __init__(self):
            type(self).started += 1
            self.members = {name: ChatOpenAI(model=name, api_key="none") for name in demo_pool.MEMBERS}

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            type(self).closed += 1

    monkeypatch.setattr(demo_pool, "embedded_pool", Pool)
    return Pool


EMBEDDED = """
members:
  one: {model: embedded:smollm2-steps}
  other: {model: embedded:smollm2-steps, parameters: {temperature: 0.5, max_tokens: 9}}
  mine: {class: my_models:Echo}
"""


def test_embedded_models_are_started_once_and_closed_with_the_pool(embedded):
    with read(EMBEDDED) as pool:
        one, other = pool["one"].model, pool["other"].model
        assert (one.model_name, one.temperature) == ("smollm2-steps", None)
        assert (other.model_name, other.temperature, other.max_tokens) == ("smollm2-steps", 0.5, 9)
        assert (embedded.started, embedded.closed) == (1, 0)
    assert embedded.closed == 1


def test_nothing_runs_on_where_a_later_member_cannot_be_made(embedded):
    assert "member `bad`" in refused(EMBEDDED + "  bad: {class: my_models:number}\n")
    assert (embedded.started, embedded.closed) == (1, 1)


def test_nothing_is_started_for_a_file_that_breaks_a_rule(embedded):
    refused(EMBEDDED + "  bad: {class: my_models:Echo, api_key_env: NOT_SET}\n")
    said = refused(EMBEDDED.replace("smollm2-steps", "smollm-3"))
    assert "`embedded:smollm-3` is none of the embedded models: smollm2-plain" in said
    assert embedded.started == 0


def test_an_embedded_model_has_no_address_and_no_unknown_parameter(embedded):
    said = refused(member("model: embedded:smollm2-plain", "base_url: http://127.0.0.1:1"))
    assert "line 3, member `small`: An embedded model needs no base_url" in said
    said = refused(member("model: embedded:smollm2-plain", "parameters:", "  temprature: 1"))
    assert "line 5, member `small`: `temprature` is no parameter of ChatOpenAI. Did you mean `temperature`?" in said


# ---- from_pool


def test_a_model_is_made_of_a_file_and_a_policy_trained_on_the_same_names(random_policy):
    text = "members:\n" + "\n".join(f"  {name}: {{class: my_models:Echo}}" for name in ("b", "a"))
    Path("pool.yaml").write_text(text)
    random_policy(["a", "b"]).save("policy")
    model = RLFocalChatModel.from_pool("pool.yaml", policy="policy", max_team=1)
    assert (model.pool.names, model.max_team) == (("b", "a"), 1)
    message = model.invoke("?")
    assert message.text == "echo"
    assert message.response_metadata["rlfocal"]["trained"]
    assert not RLFocalChatModel.from_pool(Path("pool.yaml")).invoke("?").response_metadata["rlfocal"]["trained"]


def test_a_pool_is_closed_where_no_model_comes_of_it(embedded, random_policy):
    Path("pool.yaml").write_text(EMBEDDED)
    random_policy(["x", "y"]).save("policy")
    with pytest.raises(CheckpointError, match="belongs to another pool"):
        RLFocalChatModel.from_pool("pool.yaml", policy="policy")
    assert (embedded.started, embedded.closed) == (1, 1)
    model = RLFocalChatModel.from_pool("pool.yaml")
    assert embedded.closed == 1
    model.pool.close()
    assert embedded.closed == 2


# ---- what breaks a rule

OPENAI = ("model: openai:gpt-4.1", "api_key_env: MY_KEY")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # the file
        ("", "file pool.yaml: It is empty"),
        ("# nothing\n", "nothing but comments"),
        ("members: [\n", "file pool.yaml, line 2: It is no YAML"),
        ("members:\n\tsmall: 1", "line 2: It is no YAML: found character '\\t' that cannot start any token. Indent with"),
        ("a: 1\n---\nb: 2", "line 2: It is no YAML: but found another document"),
        ("members:\n  a: \x01", "It is no YAML"),
        ("- 1", "line 1: The file must hold entries such as `NAME: {model: provider:model}`, got a list"),
        ("pool: {}", "line 1: `pool` is no key of a pool file"),
        ("member: {}", "line 1: `member` is no key of a pool file. Did you mean `members`?"),
        ("{}", "line 1: `members` is missing"),
        ("members:", "line 1: `members` must hold entries such as `NAME: {model: provider:model}`, got nothing"),
        ("members: {}", "`members` must have at least one member, got none"),
        ("members: [a]", "`members` must hold entries such as `NAME: {model: provider:model}`, got a list"),
        ("members:\n  ? [a]\n  : b", "line 2: A key must be a text"),
        ("members:\n  a: !!python/object:os.system x", "line 2: `!!python/object:os.system x` is not taken"),
        ("members:\n  a: !!bool yes", "line 2: `!!bool yes` is not taken"),
        (f"members:\n  a: {'9' * 5000}", "line 2: `!!int 999"),
        ("a: &a [*a]", "nested deeper than 20, or holds itself"),
        ("a: &a {<<: *a}", "nested deeper than 20, or holds itself"),
        ("[" * 3000, "nested deeper than 20"),
        # members
        ("members:\n  small: x", "line 2, member `small`: `small` must hold entries such as `NAME:"),
        ("members:\n  ' ': {class: my_models:Echo}", "A member's `name` must be a text that is not blank"),
        (member("competence: 0.5"), "line 2, member `small`: It must have either `model` or `class`, and not both"),
        (member("class_: a:b"), "line 3, member `small`: `class_` is no key of a member. Did you mean `class`?"),
        (member("model: openai:x", "class: a:b"), "must have either `model` or `class`"),
        (member(*OPENAI, "timeout: 3"), "line 5, member `small`: `timeout` is no key of a member. Did you mean `timeout_s`?"),
        (member(*OPENAI, "temperature: 1"), "line 5, member `small`: `temperature` is no key of a member. What the model itself"),
        (member(*OPENAI, "timeout_s: 5s"), "line 5, member `small`: `timeout_s` must be a number, got '5s'"),
        (member(*OPENAI, "timeout_s: 0"), "`timeout_s` must be greater than 0, got 0"),
        (member(*OPENAI, "timeout_s: .inf"), "`timeout_s` must be a finite number, got inf"),
        (member(*OPENAI, "concurrency: 1.5"), "`concurrency` must be a whole number, got 1.5"),
        (member(*OPENAI, "concurrency: true"), "`concurrency` must be a whole number, got True"),
        (member(*OPENAI, "competence: 70"), "`competence` must be less than or equal to 1, got 70"),
        (member(*OPENAI, "headers: {X-A: 1}"), "`X-A` must be a text, got 1"),
        (member("model: gpt-5"), "line 3, member `small`: `model` must be `provider:model`, such as openai:gpt-5-nano, got 'gpt-5'"),
        (member("class: my_models"), "`class` must be `package.module:ClassName`"),
        (member(*OPENAI, "timeout_s: 3", "timeout_s: 4"), "line 6: `timeout_s` stands here a second time, after line 5"),
        # prices
        (member(*OPENAI, "usd_per_million: {input: 1}"), "line 5, member `small`: `output` is missing. Add it."),
        (member(*OPENAI, "usd_per_million: {input: -1, output: 1}"), "`input` must be greater than or equal to 0, got -1"),
        (
            member(*OPENAI, "usd_per_million:", "  input: 1", "  outptu: 1"),
            "line 7, member `small`: `outptu` is no key of prices. Did you mean `output`?",
        ),
        # models
        (member(*OPENAI, "parameters:", "  temprature: 1"), "line 6, member `small`: `temprature` is no parameter of ChatOpenAI. Did"),
        (member(*OPENAI, "parameters:", "  wings: 1"), "`wings` is no parameter of ChatOpenAI. What its provider takes beside"),
        (member(*OPENAI, "parameters:", "  temperature: hot"), "line 3, member `small`: 'openai:gpt-4.1' names no usable model"),
        (member("model: openai:gpt-4.1"), "line 3, member `small`: 'openai:gpt-4.1' names no usable model"),
        (member("class: my_models:Ekho"), "line 3, member `small`: `class: my_models:Ekho` names nothing"),
        (member("class: my_models:number"), "line 2, member `small`: Member `small` must be a LangChain chat model"),
        (member("class: my_models:Echo", "base_url: http://x"), "line 4, member `small`: Echo takes no `base_url`, so `base_url` must"),
        (member("class: my_models:Echo", "headers: {A: b}"), "line 4, member `small`: Echo takes no `default_headers`, so `headers`"),
        (member("class: my_models:Faulty", "parameters: {token: '${MY_KEY}'}"), "cannot be made: api_key=*** is refused"),
        # secrets
        (member("model: openai:gpt-4.1", f"api_key: {KEY}"), "line 4, member `small`: `api_key` holds what looks like a secret"),
        (member("model: openai:gpt-4.1", f"api_key_env: {KEY}"), "line 4, member `small`: `api_key_env` holds what looks like"),
        (member("model: openai:gpt-4.1", "parameters:", "  api_key: hunter22"), "line 5, member `small`: `api_key` holds what looks"),
        (member(*OPENAI, "headers:", "  Authorization: Bearer abcd1234"), "line 6, member `small`: `Authorization` holds what looks"),
        (member(*OPENAI, "headers:", "  X-Key: hunter22${PORT}"), "line 6, member `small`: `X-Key` holds what looks like a secret"),
        (member(*OPENAI, "base_url: https://me:hunter22@x/v1"), "line 5, member `small`: `base_url` holds what looks like a secret"),
        (member(*OPENAI, "base_url: https://me:hunter22@x:${PORT}"), "line 5, member `small`: `base_url` holds what looks like"),
        (member("model: openai:gpt-4.1", "api_key_env: NOT_SET"), "line 4, member `small`: `api_key_env` needs the environment variable NOT_SET, which is not set. Set it: export NOT_SET=..."),
        (member("model: openai:gpt-4.1", "api_key_env: EMPTY"), "variable EMPTY, which is empty"),
        (member("model: openai:gpt-4.1", "api_key_env: my-key"), "`api_key_env` must be the name of an environment variable"),
        (member(*OPENAI, "base_url: http://${NOT_SET}/v1"), "line 5, member `small`: `base_url` needs the environment variable NOT_SET"),
        (member(*OPENAI, "headers:", "  X-A: ${NOT_SET}"), "line 6, member `small`: `X-A` needs the environment variable NOT_SET"),
        (member(*OPENAI, "headers:", "  X-A: ${not-a-name}"), "line 6, member `small`: `${not-a-name}` must name an environment"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_said_in_one_line_with_its_place_and_the_way_out(text, said):
    assert said in refused(text)


def test_a_password_in_an_address_may_come_from_the_environment():
    pool = read(member(*OPENAI, "base_url: https://me:${MY_KEY}@gateway/v1"))
    assert pool["small"].model.openai_api_base == f"https://me:{KEY}@gateway/v1"


def test_a_missing_package_is_said_with_its_place():
    with pytest.raises(
        MissingDependencyError, match=r"file pool.yaml, line 3, member `small`: `class: not_there:Model`"
    ):
        read(member("class: not_there:Model"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("members = [", "file pool.toml, line 1: It is no TOML"),
        ("[members.a]\nmodel = 'x:y'\nmodel = 'x:z'", "file pool.toml, line 3: It is no TOML: Cannot overwrite a value"),
        ("[members.a]\nmodel = 'openai:x'\ntime_out_s = 3", "line 3, member `a`: `time_out_s` is no key of a member. Did"),
        ("[members.a]\nmodel = 'openai:x'\n[members.a.usd_per_million]\ninput = 'x'\noutput = 1", "line 4, member `a`: `input` must"),
        ("[members.'a.b']\nmodel = 'x'", "line 2, member `a.b`: `model` must be `provider:model`"),
        ("members.a = {model = 'openai:x', api_key_env = 'NOT_SET'}", "line 1, member `a`: `api_key_env` needs the environment"),
        ("[members.a]\nmodel = 2024-01-01", "line 2, member `a`: `model` must be a text"),
    ],
)  # fmt: skip
def test_a_toml_file_is_refused_alike(text, said):
    assert said in refused(text, "pool.toml")


def test_aliases_that_stand_for_gigabytes_are_refused():
    """Nine levels of nine: 9⁹ texts out of half a kilobyte."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "It stands for more than 20,000 values" in refused("\n".join(levels))


def test_what_is_no_readable_file_is_said(tmp_path):
    Path("folder").mkdir()
    Path("pool.txt").touch()
    Path("big.yaml").write_text("#" * (MAX_FILE_BYTES + 1))
    Path("latin.yaml").write_bytes("members:\n  zürich: 1".encode("latin-1"))
    for name, said in {
        "folder": "It is a folder. Name the pool file in it.",
        "absent.yaml": "It cannot be read: No such file or directory. Give the path of a pool file.",
        "pool.txt": "A pool file must end in .yaml, .yml, .toml or .json. Rename it.",
        "big.yaml": "It must have at most 200,000 bytes.",
        "latin.yaml": "file latin.yaml, line 2: It must be in UTF-8, and is not.",
    }.items():
        with pytest.raises(PoolError) as caught:
            read_pool(name)
        assert said in str(caught.value)


def test_a_name_can_not_steer_the_terminal_of_who_reads_the_error():
    said = refused('members:\n  "a\\e[2J\\nb": {model: x}')
    assert "\x1b" not in said


def test_the_files_of_the_how_to_are_pools_that_say_the_same(monkeypatch):
    """Its Python is run with the other pages'; here the file in TOML is that in YAML."""
    pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is optional")
    page = (Path(__file__).parents[1] / "docs/how-to/describe-a-pool.md").read_text()
    for name, text in re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```', page, re.MULTILINE | re.DOTALL):
        Path(name).write_text(text)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    yaml_nano, toml_nano = (read_pool(f"pool.{kind}")["nano"] for kind in ("yaml", "toml"))
    assert replace(yaml_nano, model=toml_nano.model) == toml_nano
    assert yaml_nano.model.reasoning_effort == toml_nano.model.reasoning_effort == "low"
    jsonschema.validate(yaml.safe_load(Path("pool.yaml").read_text()), pool_schema())


# ---- the schema


def test_the_published_schema_is_the_one_that_is_checked():
    assert json.loads(SCHEMA_FILE.read_text()) == pool_schema()


def test_the_schema_takes_what_a_file_may_hold_and_refuses_what_it_may_not():
    validator = jsonschema.Draft202012Validator(pool_schema())
    validator.check_schema(pool_schema())
    whole = yaml.safe_load(WHOLE.replace("1e-3", "0.001").replace("  no:", "  other:"))
    assert validator.is_valid(whole)
    entry = whole["members"]["other"]
    for change in ({"colour": 1}, {"model": "openai:x"}, {"timeout_s": 0}, {"usd_per_million": {"input": 1}}):
        assert not validator.is_valid({"members": {"a": {**entry, **change}}}), change
    assert not validator.is_valid({"members": {}})
    assert not validator.is_valid({"members": {"a": {"competence": 1}}})
