"""The JSON files of a model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._errors import ConvertError

Json = dict[str, Any]

NAMED_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

# What transformers' tokenizer classes take for special without being told.
BERT_TOKENS = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "sep", "pad", "cls", "mask")}
ROBERTA_TOKENS = {f"{kind}_token": f"<{kind}>" for kind in ("unk", "pad", "mask")}
ROBERTA_TOKENS |= {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
CLASS_TOKENS = {"WordPiece": BERT_TOKENS, "BPE": ROBERTA_TOKENS, "Unigram": ROBERTA_TOKENS}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    ConvertError
        The file is missing, or not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConvertError(f"folder: {path} is missing; download all files of the model") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConvertError(f"folder: {path} is not JSON ({error}); download it again") from error


def read_object(path: Path) -> Json:
    """The content of a JSON file that has to hold an object.

    Raises
    ------
    ConvertError
        The file is missing, not JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ConvertError(f"folder: {path} holds no JSON object; download it again")
    return content


def token_text(entry: Any) -> str | None:
    """The text of a token that is written as a string or as an object with ``content``."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises
    ------
    ConvertError
        The file is not text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConvertError(f"folder: {path} is not text in UTF-8 ({error}); download it again") from error
    # Not splitlines: a token may be one of the other characters that it takes for the end of a line.
    return text.removesuffix("\n").split("\n")


def bert_tokenizer(tokens: list[str], settings: Json) -> Json:
    """What tokenizer.json would hold, as far as it is read here, for a BERT folder with vocab.txt alone."""
    ids = {token: i for i, token in enumerate(tokens)}
    names = {kind: token_text(settings.get(kind)) for kind in BERT_TOKENS}
    ends = [{"SpecialToken": {"id": names[kind]}} for kind in ("cls_token", "sep_token")]
    special = [name for name in names.values() if name in ids]
    return {
        "model": {"type": "WordPiece", "vocab": ids},
        "added_tokens": [{"id": ids[name], "content": name, "special": True} for name in special],
        "normalizer": {
            "type": "BertNormalizer",
            "lowercase": settings.get("do_lower_case", True),
            "strip_accents": settings.get("strip_accents"),
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [ends[0], {"Sequence": {"id": "A"}}, ends[1]],
            "pair": [ends[0], {"Sequence": {"id": "A"}}, ends[1], {"Sequence": {"id": "B"}}, ends[1]],
        },
    }


@dataclass(frozen=True)
class AddedToken:
    """A token beside the model's own vocabulary, or one of it that is matched as a whole."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True)
class Folder:
    """A model folder: its path, config.json, and the tokenizer's files where there are any."""

    path: Path
    config: Json
    tokenizer: Json | None
    tokenizer_config: Json | None
    special_map: Json = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Read the folder's JSON files; only config.json has to be there.

        Raises
        ------
        ConvertError
            config.json is missing, or one of the files is not a JSON object.
        """

        def optional(name: str) -> Json | None:
            return read_object(path / name) if (path / name).is_file() else None

        tokenizer, tokenizer_config = optional("tokenizer.json"), optional("tokenizer_config.json")
        if tokenizer is None and (path / "vocab.txt").is_file():
            # Upstream leaves out the special tokens of such a folder; libllama then assumes English BERT's.
            tokenizer_config = {**BERT_TOKENS, **(tokenizer_config or {})}
            tokenizer = bert_tokenizer(read_lines(path / "vocab.txt"), tokenizer_config)
        return cls(
            path=path,
            config=read_object(path / "config.json"),
            tokenizer=tokenizer,
            tokenizer_config=tokenizer_config,
            special_map=optional("special_tokens_map.json") or {},
        )

    def need_tokenizer(self) -> Json:
        """The content of tokenizer.json.

        Raises
        ------
        ConvertError
            The folder has no tokenizer.json, or one without a model.
        """
        if self.tokenizer is None or not isinstance(self.tokenizer.get("model"), dict):
            raise ConvertError(
                f"folder: {self.path / 'tokenizer.json'} is missing or has no model; make it with "
                "transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
        return self.tokenizer

    def special_names(self) -> set[str]:
        """The tokens that are special by the tokenizer's class, or by its configuration."""
        settings = self.tokenizer_config or {}
        plain = settings.get("tokenizer_class") == "PreTrainedTokenizerFast"
        named = {} if plain else dict(CLASS_TOKENS.get(self.vocabulary(), {}))
        others: set[str] = set()
        for source in (settings, self.special_map):
            texts = {f"{kind}_token": token_text(source.get(f"{kind}_token")) for kind in NAMED_TOKENS}
            named |= {kind: text for kind, text in texts.items() if text}
            extra = source.get("additional_special_tokens") or []
            others |= {text for entry in extra if (text := token_text(entry))}
        return others | set(named.values())

    def vocabulary(self) -> str:
        """The kind of vocabulary in tokenizer.json: WordPiece, BPE, Unigram."""
        return str(self.need_tokenizer()["model"].get("type"))

    def added_tokens(self, vocabulary: dict[str, int]) -> dict[str, AddedToken]:
        """Tokens that are matched as a whole, by text: those listed, and special ones of `vocabulary`."""
        listed = list((self.tokenizer or {}).get("added_tokens") or [])
        decoder = (self.tokenizer_config or {}).get("added_tokens_decoder") or {}
        listed += [{**entry, "id": int(token_id)} for token_id, entry in decoder.items()]
        found: dict[str, AddedToken] = {}
        for entry in listed:
            token = AddedToken(entry["id"], entry["content"], bool(entry.get("special")))
            found.setdefault(token.content, token)
        for name in self.special_names() & vocabulary.keys():
            found.setdefault(name, AddedToken(vocabulary[name], name, special=True))
        return found

    def modules(self) -> dict[str, str]:
        """Folders and kinds ("Transformer", "Pooling", ...) of sentence-transformers' modules."""
        path = self.path / "modules.json"
        listed = read_json(path) if path.is_file() else []
        return {module["path"]: str(module["type"]).rpartition(".")[2] for module in listed}

    def prompts(self) -> Json:
        """The content of config_sentence_transformers.json, empty where there is none.

        Raises
        ------
        ConvertError
            It is not a JSON object.
        """
        path = self.path / "config_sentence_transformers.json"
        return read_object(path) if path.is_file() else {}

    def pooling(self) -> int | None:
        """The number by which libllama knows sentence-transformers' pooling, None where there is none.

        Raises
        ------
        ConvertError
            The pooling is none of mean, cls and last token.
        """
        path = next((path for path, kind in self.modules().items() if kind.endswith("Pooling")), None)
        return None if path is None else pooling_number(self.path / path / "config.json")


POOLINGS = {"mean": 1, "cls": 2, "lasttoken": 3}


def pooling_number(path: Path) -> int:
    """The number by which libllama knows the pooling in a sentence-transformers config.json.

    Raises
    ------
    ConvertError
        The pooling is none of mean, cls and last token.
    """
    content = read_object(path)
    flags = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "lasttoken"}
    set_flags = (mode for flag, mode in flags.items() if content.get(f"pooling_mode_{flag}"))
    mode = next(set_flags, content.get("pooling_mode"))
    if mode not in POOLINGS:
        known = ", ".join(POOLINGS)
        raise ConvertError(f"folder: {path} asks for a pooling that libllama does not have; it has {known}")
    return POOLINGS[mode]
