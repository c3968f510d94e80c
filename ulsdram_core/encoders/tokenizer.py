"""Tokenizers: loaded by name or path, saved to a folder, or built from texts at hand."""

import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from ulsdram_core.errors import CheckpointError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_tokenizer(path_or_name: str | Path) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer from a folder, or by hub name where the machine can reach it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path_or_name), trust_remote_code=False)
    except OSError as error:
        line = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"found no tokenizer {str(path_or_name)!r} ({line}); give a folder that holds one, or "
            "a hub name that this machine can reach"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f"{path_or_name} holds a {type(tokenizer).__name__}, expected a fast tokenizer; "
            "save it with its tokenizer.json"
        )
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, path: str | Path) -> None:
    """Write the files that load_tokenizer reads without a network."""
    tokenizer.save_pretrained(str(path))


def build_tokenizer(texts: Iterable[str], vocab_size: int = 8_000) -> PreTrainedTokenizerFast:
    """Learn a lower-casing WordPiece tokenizer; the same texts give the same one.

    Every character seen has a piece of its own, so the vocabulary may exceed `vocab_size`;
    letters and digits are always there. Ids 0..4 are SPECIAL_TOKENS.
    """
    lines = list(texts)
    draft = BertTokenizer(vocab={token: i for i, token in enumerate(SPECIAL_TOKENS)})
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = draft.backend_tokenizer.normalizer
    backend.pre_tokenizer = draft.backend_tokenizer.pre_tokenizer
    alphabet, continuations = _characters(lines, backend)
    # The trainer numbers ## characters in hash order and breaks ties by number; naming them
    # beforehand makes two runs agree.
    fixed = [*SPECIAL_TOKENS, *(f"##{character}" for character in continuations)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    vocabulary = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    return BertTokenizer(vocab=dict(vocabulary), do_lower_case=True)


def _characters(lines: list[str], backend: Tokenizer) -> tuple[list[str], list[str]]:
    """Return characters that the words hold, and those that occur after a word's first; sorted."""
    words: set[str] = set()
    for line in lines:
        normal = backend.normalizer.normalize_str(line)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    letters = set(string.ascii_lowercase + string.digits)
    alphabet = letters.union(string.punctuation, *words)
    return sorted(alphabet), sorted(letters.union(*(word[1:] for word in words)))
