"""Tokenizers: round trips, end tokens, bytes that are no text."""

import json

import pytest

from jaxrl_surrogate.tasks import tokenizers

TEXTS = ["", "12+34=", "Zürich\n日本 \U0001f642", "a  b\tc", "<|endoftext|> 1234567"]


@pytest.fixture
def trained(tmp_path):
    pytest.importorskip("tokenizers")
    return tokenizers.train_bpe(TEXTS * 3, 300, tmp_path / "deep" / "tokenizer.json")


def test_byte_round_trip(random):
    tokenizer = tokenizers.get("byte")
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (257, 256)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for _ in range(100):
        ids = random.integers(0, 257, size=30).tolist()
        text = tokenizer.decode(ids)
        assert text == tokenizer.decode([i for i in ids if i != tokenizer.eos_id])
    assert tokenizer.decode(tokenizer.encode("\ud800")) == "?"  # half a pair


def test_ascii_round_trip():
    tokenizer = tokenizers.get("ascii")
    text = "".join(map(chr, range(32, 127))) + "\n"
    ids = tokenizer.encode(text)
    assert sorted([*ids, tokenizer.eos_id]) == list(range(tokenizer.vocab_size))
    assert tokenizer.decode([*ids, tokenizer.eos_id, 500, -1]) == text
    for character in "é\t\x00日":
        with pytest.raises(ValueError, match=r"cannot encode .*use the tokenizer"):
            tokenizer.encode(f"12{character}")


def test_trained_round_trip(trained, random):
    for text in [*TEXTS[:4], "unseen Ω"]:
        assert trained.decode(trained.encode(text)) == text
    assert trained.decode([*trained.encode("12"), trained.eos_id]) == "12"
    assert 257 < trained.vocab_size <= 300  # five texts have few pairs to merge
    for _ in range(100):
        ids = random.integers(0, trained.vocab_size, size=30).tolist()
        assert isinstance(trained.decode([*ids, 10**6, -1]), str)
    digits = trained.encode("1234567")
    assert len(digits) == 7


def test_training_is_deterministic(trained, tmp_path):
    again = tokenizers.train_bpe(iter(TEXTS * 3), 300, tmp_path / "again.json")
    with open(trained.name) as first, open(again.name) as second:
        assert first.read() == second.read()
    assert not list(tmp_path.rglob("*.partial"))


def test_end_token_is_found(trained, tmp_path):
    data = json.loads((tmp_path / "deep" / "tokenizer.json").read_text())
    extra = {**data["added_tokens"][0], "id": 700, "content": "<|im_end|>"}
    data["added_tokens"].append(extra)
    data["truncation"] = {
        "max_length": 3,
        "stride": 0,
        "strategy": "LongestFirst",
        "direction": "Right",
    }
    path = tmp_path / "two"
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(data))
    usual = tokenizers.get(path)
    assert usual.eos_id == usual.vocab_size - 1 != trained.eos_id
    assert tokenizers.get(path, eos="<|endoftext|>").eos_id == trained.eos_id
    assert len(usual.encode("1234567")) == 7  # the file asked for at most 3
    for content in ("<|endoftext|>", {"content": "<|endoftext|>"}):
        config = json.dumps({"eos_token": content})
        (path / "tokenizer_config.json").write_text(config)
        assert tokenizers.get(path).eos_id == trained.eos_id
    with pytest.raises(ValueError, match=r"no end token among <stop>"):
        tokenizers.get(path, eos="<stop>")


def test_errors_say_what_to_do(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match="did you mean ascii"):
        tokenizers.get("asci")
    with pytest.raises(ValueError, match=r"expected a tokenizer\.json file"):
        tokenizers.get(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not a tokenizer\.json file"):
        tokenizers.get(tmp_path)
    with pytest.raises(ValueError, match=r"vocab_size=256: expected at least 257"):
        tokenizers.train_bpe([], 256, tmp_path / "x.json")
    with pytest.raises(ValueError, match="eos='x'"):
        tokenizers.get("byte", eos="x")


def test_missing_library_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[hf\]'"):
        tokenizers.train_bpe(["a"], 300, tmp_path / "x.json")
