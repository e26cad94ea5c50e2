"""Text to token ids and back: bytes, printable ASCII, or a Hugging Face file."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class Tokenizer(Protocol):
    """What the trainer needs of a tokenizer."""

    name: str
    vocab_size: int
    eos_id: int

    def encode(self, text: str) -> list[int]:
        """Text to ids, without an end token."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Ids to text; never raises, and the end token is not rendered."""
        ...


class ByteTokenizer:
    """The 256 bytes of UTF-8 and an end token."""

    name, vocab_size, eos_id = "byte", 257, 256

    def encode(self, text: str) -> list[int]:
        """Text to its UTF-8 bytes."""
        return list(text.encode("utf-8"))

    def decode(self, ids: list[int]) -> str:
        """Ids to text; bytes that are not UTF-8 become the replacement character."""
        return bytes(i for i in ids if 0 <= i < 256).decode("utf-8", "replace")


class AsciiTokenizer:
    """Printable ASCII, newline and an end token: 97 ids, for small models."""

    _characters = "\n" + "".join(map(chr, range(32, 127)))
    name, vocab_size, eos_id = "ascii", len(_characters) + 1, 0

    def __init__(self):
        self._ids = {
            character: index + 1 for index, character in enumerate(self._characters)
        }

    def encode(self, text: str) -> list[int]:
        """Text to ids.

        Raises:
          ValueError: a character that is neither printable ASCII nor a newline.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ValueError(
                f"{error.args[0]!r}: not printable ASCII; use the tokenizer 'byte'"
            ) from None

    def decode(self, ids: list[int]) -> str:
        """Ids to text."""
        return "".join(self._characters[i - 1] for i in ids if 0 < i < self.vocab_size)


class FileTokenizer:
    """A `tokenizer.json` of the Hugging Face library `tokenizers`."""

    _ENDS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>", "<eos>", "[EOS]")

    def __init__(self, path: str | Path, eos: str | None = None):
        """Load a file.

        Args:
          path: the file, or a directory that holds `tokenizer.json`.
          eos: the end token's text; found among the usual ones if not given.

        Raises:
          ValueError: no such file, or no end token in it.
        """
        library = _library()
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"tokenizer={str(path)!r}: expected a tokenizer.json file")
        self._tokenizer = library.Tokenizer.from_file(str(path))
        ends = [eos] if eos else self._ENDS
        ids = [self._tokenizer.token_to_id(token) for token in ends]
        found = [i for i in ids if i is not None]
        if not found:
            raise ValueError(
                f"tokenizer={str(path)!r}: has none of the end tokens {list(ends)}"
            )
        self.name = str(path)
        self.eos_id = found[0]
        self.vocab_size = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Text to ids, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Ids to text, special tokens left out."""
        known = [i for i in ids if 0 <= i < self.vocab_size]
        return self._tokenizer.decode(known, skip_special_tokens=True)


def get(name: str) -> Tokenizer:
    """Return a tokenizer: "byte", "ascii", or the path of a `tokenizer.json`.

    Raises:
      ValueError: neither a name nor a file.
    """
    built_in = {"byte": ByteTokenizer, "ascii": AsciiTokenizer}
    if name in built_in:
        return built_in[name]()
    if not os.path.exists(name):
        raise ValueError(
            f"tokenizer={name!r}: expected 'byte', 'ascii' or the path of a "
            "tokenizer.json"
        )
    return FileTokenizer(name)


def train_bpe(texts: Iterable[str], vocab_size: int, path: str | Path) -> None:
    """Train a byte-level BPE tokenizer on texts and save it; deterministic.

    Args:
      texts: what it learns from.
      vocab_size: ids in all, the 256 bytes and the end token included.
      path: of the `tokenizer.json` to write.
    """
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Digits(individual_digits=True),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def _library():
    try:
        import tokenizers
    except ImportError:
        raise ValueError(
            "tokenizer: reading tokenizer.json needs the library tokenizers; "
            "pip install 'jaxrl_surrogate[hf]'"
        ) from None
    return tokenizers
