"""Text to token ids and back: bytes, printable ASCII, or a Hugging Face file."""

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from jaxrl_surrogate.errors import FieldError, nearest

_BYTES = 256
_TRAINED_END = "<|endoftext|>"
# End tokens of the usual families; in a file with several, the first one listed.
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
    """What the trainer needs of a tokenizer."""

    name: str
    vocab_size: int  # ids are in [0, vocab_size)
    eos_id: int  # ends a completion and is part of it

    def encode(self, text: str) -> list[int]:
        """Text to ids, without an end token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; never raises, and the end token is not rendered."""
        ...


class ByteTokenizer:
    """The 256 bytes of UTF-8 and an end token: any text, 257 ids.

    Examples:
      >>> ByteTokenizer().decode([104, 105, 255, 256])
      'hi\ufffd'
    """

    name, vocab_size, eos_id = "byte", _BYTES + 1, _BYTES

    def encode(self, text: str) -> list[int]:
        """Text to its UTF-8 bytes."""
        return list(text.encode("utf-8", "replace"))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; bytes that are not UTF-8 become the replacement character."""
        return bytes(i for i in ids if 0 <= i < _BYTES).decode("utf-8", "replace")


class AsciiTokenizer:
    """Printable ASCII, newline and an end token: 97 ids, for small models."""

    _characters = "\n" + "".join(map(chr, range(32, 127)))
    _ids = {character: index + 1 for index, character in enumerate(_characters)}  # noqa: RUF012
    name, vocab_size, eos_id = "ascii", len(_characters) + 1, 0

    def encode(self, text: str) -> list[int]:
        """Text to ids.

        Raises:
          FieldError: a character that is neither printable ASCII nor a newline.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            # Also met when a run is under way: with the whole path of the field.
            raise FieldError(
                "task.tokenizer",
                "ascii",
                problem=f"cannot encode {error.args[0]!r} of {text[:60]!r}",
                expected="printable ASCII and newlines",
                remedy="use the tokenizer 'byte'",
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; ids out of range are left out."""
        return "".join(self._characters[i - 1] for i in ids if 0 < i < self.vocab_size)


class FileTokenizer:
    """A `tokenizer.json` of the Hugging Face library `tokenizers`."""

    def __init__(self, path: str | Path, eos: str | None = None):
        """Load a file.

        Args:
          path: the file, or a directory that holds `tokenizer.json`.
          eos: the end token's text. By default the `eos_token` of the
            `tokenizer_config.json` or `special_tokens_map.json` beside the file, and
            without those the first usual end token that the file has.

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
        # Some files cut or pad what they encode; a prompt must come through whole.
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
        # Not the number of tokens: ids may leave gaps, and an embedding has all rows.
        self.vocab_size = max(self._tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Text to ids; no special tokens are added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; special tokens and ids out of range are left out."""
        known = [i for i in ids if 0 <= i < self.vocab_size and i != self.eos_id]
        return self._tokenizer.decode(known, skip_special_tokens=True)


_BUILT_IN = {"byte": ByteTokenizer, "ascii": AsciiTokenizer}


def names() -> tuple[str, ...]:
    """The tokenizers that need no file."""
    return tuple(_BUILT_IN)


def get(name: str | Path, *, eos: str | None = None) -> Tokenizer:
    """Return a tokenizer.

    Args:
      name: one of `names()`, or the path of a `tokenizer.json` or of its directory.
      eos: the end token's text, for a file; found if not given.

    Raises:
      FieldError: neither a name nor a file, or see `FileTokenizer`.
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

    The same texts give the same file, byte for byte. Digits are single tokens, so that
    numbers are spelled the same wherever they stand.

    Args:
      texts: what it learns from; few texts may give fewer ids than asked for.
      vocab_size: ids in all, the 256 bytes and the end token included.
      path: of the `tokenizer.json` to write; its directory is made.

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
    # Whole or not at all: a run that resumes finds this file and must not trust half.
    # Processes of several hosts have the same number now and then.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        tokenizer.save(str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return FileTokenizer(path, _TRAINED_END)


def _stated_end(directory: Path) -> str | None:
    """The `eos_token` that the files beside a tokenizer name, if any."""
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
