"""Tokenizers: bytes, printable ASCII, or a Hugging Face `tokenizer.json`."""

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from jaxrl_surrogate.errors import FieldError, nearest

_BYTES = 256
_TRAINED_END = "<|endoftext|>"
# Usual end tokens; if a file has several of them, the first in this list is used.
_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    _TRAINED_END,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
)


class Tokenizer(Protocol):
    """The interface of tokenizers."""

    name: str
    vocab_size: int  # ids are in [0, vocab_size)
    eos_id: int  # ends a completion and is part of it

    def encode(self, text: str) -> list[int]:
        """Convert text to ids, without an end token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Convert ids to text, without the end token. Never raises."""
        ...


class ByteTokenizer:
    """A tokenizer for any text, with 257 ids: the bytes of UTF-8 and an end token.

    Examples:
      >>> ByteTokenizer().decode([104, 105, 255, 256])
      'hi\ufffd'
    """

    name, vocab_size, eos_id = "byte", _BYTES + 1, _BYTES

    def encode(self, text: str) -> list[int]:
        """Convert text to its UTF-8 bytes."""
        return list(text.encode("utf-8", "replace"))

    def decode(self, ids: Sequence[int]) -> str:
        """Convert ids to text; bytes that are not UTF-8 become U+FFFD."""
        return bytes(i for i in ids if 0 <= i < _BYTES).decode("utf-8", "replace")


class AsciiTokenizer:
    """A tokenizer for small models: printable ASCII, newline, an end token; 97 ids."""

    _characters = "\n" + "".join(map(chr, range(32, 127)))
    _ids = {character: index + 1 for index, character in enumerate(_characters)}  # noqa: RUF012
    name, vocab_size, eos_id = "ascii", len(_characters) + 1, 0

    def encode(self, text: str) -> list[int]:
        """Convert text to ids.

        Raises:
          FieldError: a character that is neither printable ASCII nor a newline.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            # This can also happen during a run, so the error has the full field path.
            raise FieldError(
                "task.tokenizer",
                "ascii",
                problem=f"cannot encode {error.args[0]!r} of {text[:60]!r}",
                expected="printable ASCII and newlines",
                remedy="use the tokenizer 'byte'",
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Convert ids to text; ids out of range are left out."""
        return "".join(self._characters[i - 1] for i in ids if 0 < i < self.vocab_size)


class FileTokenizer:
    """A tokenizer from a `tokenizer.json` of the Hugging Face library `tokenizers`."""

    def __init__(self, path: str | Path, eos: str | None = None):
        """Load a file.

        Args:
          path: the file, or a directory that holds `tokenizer.json`.
          eos: the end token's text. None takes the `eos_token` of the
            `tokenizer_config.json` or `special_tokens_map.json` beside the file, or, if
            these name none, the first usual end token that the file has.

        Raises:
          FieldError: the library is missing, there is no such file, it cannot be read,
            or it has no end token.
        """
        library = _library()
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FieldError("tokenizer", str(path), "a tokenizer.json file")
        try:
            self._tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise FieldError(
                "tokenizer", str(path), problem=f"not a tokenizer.json file: {error}"
            ) from error
        # Some files truncate or pad the ids; prompts must be encoded completely.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        stated = eos or _stated_end(path.parent)
        ends = (stated,) if stated else _ENDS
        ids = [self._tokenizer.token_to_id(token) for token in ends]
        found = [i for i in ids if i is not None]
        if not found:
            raise FieldError(
                "tokenizer",
                str(path),
                problem=f"has no end token among {', '.join(ends)}",
                expected="eos=TOKEN to name one",
            )
        self.name = str(path)
        self.eos_id = found[0]
        # Ids may have gaps, so this can be more than the number of tokens. The
        # embedding table has a row for every id.
        self.vocab_size = max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Convert text to ids; no special tokens are added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Convert ids to text; special tokens and ids out of range are left out."""
        known = [i for i in ids if 0 <= i < self.vocab_size and i != self.eos_id]
        return self._tokenizer.decode(known, skip_special_tokens=True)


_BUILT_IN = {"byte": ByteTokenizer, "ascii": AsciiTokenizer}


def names() -> tuple[str, ...]:
    """Return the names of the tokenizers that need no file."""
    return tuple(_BUILT_IN)


def get(name: str | Path, *, eos: str | None = None) -> Tokenizer:
    """Return a tokenizer.

    Args:
      name: one of `names()`, or the path of a `tokenizer.json` or of its directory.
      eos: the end token's text, only for a file; see `FileTokenizer`.

    Raises:
      FieldError: there is no such tokenizer or file, `eos` is given without a file, or
        `FileTokenizer` refuses the file.
    """
    if str(name) in _BUILT_IN:
        if eos is not None:
            raise FieldError(
                "eos",
                eos,
                problem=f"tokenizer {name!r} has its own end token",
                expected="none",
            )
        return _BUILT_IN[str(name)]()
    if not os.path.exists(name):
        raise FieldError(
            "tokenizer",
            str(name),
            f"{' or '.join(_BUILT_IN)}, or the path of a tokenizer.json",
            nearest(str(name), _BUILT_IN),
        )
    return FileTokenizer(name, eos)


def train_bpe(texts: Iterable[str], vocab_size: int, path: str | Path) -> FileTokenizer:
    """Train a byte-level BPE tokenizer on texts, save it, and return it.

    The same texts give the same file, byte for byte. Digits are single tokens, so a
    number is encoded in the same way at every place.

    Args:
      texts: the training texts; few texts may give fewer ids than `vocab_size`.
      vocab_size: number of ids, the 256 bytes and the end token included.
      path: where to write the `tokenizer.json`; its directory is created.

    Raises:
      FieldError: the vocabulary is too small, or the library is missing.
    """
    if vocab_size <= _BYTES:
        raise FieldError(
            "vocab_size",
            vocab_size,
            f"at least {_BYTES + 1}, the 256 bytes and the end token",
        )
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
        special_tokens=[_TRAINED_END],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file is renamed when it is complete, because a resumed run would read a
    # partial file. The name is random: process ids may be the same on several hosts.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        tokenizer.save(str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return FileTokenizer(path, _TRAINED_END)


def _stated_end(directory: Path) -> str | None:
    """Return the `eos_token` in the config files beside a tokenizer, or None."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = json.loads((directory / name).read_text("utf-8")).get("eos_token")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str) and token:
            return token
    return None


def _library():
    try:
        import tokenizers
    except ImportError:
        raise FieldError(
            "tokenizer",
            problem="tokenizer.json files need the library tokenizers",
            remedy="in the checkout: pip install -e '.[hf]'",
        ) from None
    return tokenizers
